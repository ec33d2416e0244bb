package binlog

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"
)

// link is the way to the server's dump thread. It dials, cuts what it has dialled, and takes for dead what is silent for too
// long: each read has its own deadline, so a reader that is held back raises no false alarm, and a large event only has to
// trickle in.
type link struct {
	dialer net.Dialer
	cfg    Config

	mu      sync.Mutex
	conns   []*watched
	closed  bool
	phase   phase
	reading bool          // a read waits, with the deadline of its phase
	silent  time.Duration // how long the silence was that ended a read; 0 for none
}

// phase is what the server may be busy with, and so how long it may be silent.
type phase int

const (
	talking   phase = iota // it answers questions
	searching              // it looks for the place to begin at, which a MariaDB does in silence
	streaming              // it sends what there is, and a heartbeat when there is nothing
)

// linkProbes make the kernel notice a peer that is gone even while it may be silent.
var linkProbes = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 3 * time.Second, Count: 3}

func newLink(cfg Config) *link {
	return &link{dialer: net.Dialer{Timeout: cfg.ReadTimeout, KeepAliveConfig: linkProbes, Control: smallSegments}, cfg: cfg}
}

// dial is a client.Dialer.
func (l *link) dial(ctx context.Context, network, address string) (net.Conn, error) {
	l.mu.Lock()
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return nil, net.ErrClosed
	}
	raw, err := l.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = raw.Close() // nobody will use it
		return nil, net.ErrClosed
	}
	conn := &watched{Conn: raw, link: l}
	l.conns = append(l.conns, conn)
	return conn, nil
}

// close cuts all connections; none is made any more.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, conn := range l.conns {
		_ = conn.Close() // cutting it is the point
	}
}

// search notes that the dump was asked for, unless its first event is there already.
func (l *link) search() { l.enter(searching) }

// stream notes that the server has found the place.
func (l *link) stream() { l.enter(streaming) }

func (l *link) enter(next phase) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if next <= l.phase {
		return
	}
	l.phase = next
	if !l.reading {
		return
	}
	for _, conn := range l.conns { // the read that waits has the deadline of the phase before
		_ = conn.Conn.SetReadDeadline(time.Now().Add(l.patience())) // on a closed connection it does not matter
	}
}

// patience is how long the server may be silent now.
func (l *link) patience() time.Duration {
	if l.phase == searching {
		return l.cfg.SearchTimeout
	}
	return l.cfg.ReadTimeout
}

// err is why the link was given up, if it was for its silence.
func (l *link) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.silent == 0 {
		return nil
	}
	return fmt.Errorf("read the binlog: nothing came from the server for %s", l.silent)
}

// watched is a connection whose reads end when the server is silent for too long.
type watched struct {
	net.Conn
	link *link
}

func (w *watched) Read(p []byte) (int, error) {
	l := w.link
	l.mu.Lock()
	patience := l.patience()
	err := w.Conn.SetReadDeadline(time.Now().Add(patience))
	l.reading = true
	l.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := w.Conn.Read(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reading = false
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() { //nolint:errorlint // a connection returns it bare
		l.silent = l.patience()
	}
	return n, err
}

// Write has a deadline, too: what is written are short questions.
func (w *watched) Write(p []byte) (int, error) {
	if err := w.SetWriteDeadline(time.Now().Add(w.link.cfg.ReadTimeout)); err != nil {
		return 0, err
	}
	return w.Conn.Write(p)
}

// SetReadDeadline does nothing: go-mysql knows one timeout for all phases.
func (w *watched) SetReadDeadline(time.Time) error { return nil }

// SetDeadline does nothing, likewise.
func (w *watched) SetDeadline(time.Time) error { return nil }

func address(network, addr string) (host string, port uint16, err error) {
	if network == "unix" {
		return addr, 0, nil
	}
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("read the address in MYSQL_DSN: %w", err)
	}
	number, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("read the port in MYSQL_DSN: %w", err)
	}
	return host, uint16(number), nil
}
