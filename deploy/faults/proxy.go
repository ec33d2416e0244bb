// Package faults is a TCP proxy for tests that misbehaves on demand, as networks do: it swallows what one side says, stops
// reading, trickles, cuts after a byte, resets, or leads to another server. It owns its listener and the connections through
// it; nothing it forwards is looked at.
package faults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Direction is one way through the proxy.
type Direction int

// The two ways.
const (
	ToServer Direction = iota
	ToClient
)

// Proxy forwards connections on a loopback port to a target. All methods may be called at any time, from any goroutine; a
// fault holds for the connections that are open and for those to come, until it is taken back.
type Proxy struct {
	listener net.Listener
	group    sync.WaitGroup

	mu      sync.Mutex
	target  string
	refuse  bool
	ways    [2]way
	pipes   map[*pipe]struct{}
	closed  bool
	total   int
	orphans int
	passed  [2]int64
}

// way is what happens to bytes of one direction.
type way struct {
	swallow bool
	stopped chan struct{} // closed when reading goes on; nil while it does
	piece   int           // bytes at a time, 0 for all
	every   time.Duration // between two pieces
	cut     int64         // bytes until each connection is cut; negative for never
	flip    int64         // the byte of each connection of which a bit is flipped; negative for none
}

// pipe is one connection and its way on to the server.
type pipe struct {
	client, server net.Conn
	passed         [2]int64
	orphaned       atomic.Bool // one side has ended, and the other does not know
	done           chan struct{}
	once           sync.Once
}

// New returns a proxy that listens on a free port of 127.0.0.1 and forwards to the target, which is host:port.
func New(target string) (*Proxy, error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	p := &Proxy{listener: listener, target: target, pipes: map[*pipe]struct{}{}}
	p.ways[ToServer].cut, p.ways[ToClient].cut = -1, -1
	p.ways[ToServer].flip, p.ways[ToClient].flip = -1, -1
	p.group.Go(p.accept)
	return p, nil
}

// Addr is where the proxy listens, as host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Connections is how many connections were accepted so far.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}

// Passed is how many bytes were forwarded so far in a direction, over all connections.
func (p *Proxy) Passed(d Direction) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.passed[d]
}

// Orphans is how many connections so far had an end that was swallowed.
func (p *Proxy) Orphans() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.orphans
}

// Target leads connections to come to another server. Those that are open stay; see Reset.
func (p *Proxy) Target(addr string) { p.locked(func() { p.target = addr }) }

// Refuse closes each connection to come at once.
func (p *Proxy) Refuse(on bool) { p.locked(func() { p.refuse = on }) }

// Swallow reads the bytes of a direction and drops them: the link looks open, and is dead. When the side that speaks ends
// the connection meanwhile, the other is not told either, until a Reset.
func (p *Proxy) Swallow(d Direction, on bool) { p.locked(func() { p.ways[d].swallow = on }) }

// Stop stops reading a direction, so that whoever writes fills the buffers in between and then waits.
func (p *Proxy) Stop(d Direction, on bool) {
	p.locked(func() {
		w := &p.ways[d]
		switch {
		case on && w.stopped == nil:
			w.stopped = make(chan struct{})
		case !on && w.stopped != nil:
			close(w.stopped)
			w.stopped = nil
		}
	})
}

// Trickle forwards a direction a few bytes at a time with a pause behind each; 0 bytes ends that.
func (p *Proxy) Trickle(d Direction, bytes int, every time.Duration) {
	p.locked(func() { p.ways[d].piece, p.ways[d].every = bytes, every })
}

// CutAfter closes each connection to come when it has forwarded so many bytes in a direction; a negative number ends that.
func (p *Proxy) CutAfter(d Direction, bytes int64) { p.locked(func() { p.ways[d].cut = bytes }) }

// Flip flips a bit of that byte of each connection, counted from 0; a negative number ends that.
func (p *Proxy) Flip(d Direction, at int64) { p.locked(func() { p.ways[d].flip = at }) }

// Reset closes all open connections with a TCP reset, on both sides.
func (p *Proxy) Reset() {
	p.locked(func() {
		for pipe := range p.pipes {
			pipe.reset()
		}
	})
}

// Close closes the listener and all connections, and returns when all goroutines have ended.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.locked(func() {
		p.closed = true
		for pipe := range p.pipes {
			pipe.reset()
		}
	})
	p.Stop(ToServer, false)
	p.Stop(ToClient, false)
	p.group.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the proxy: %w", err)
	}
	return nil
}

func (p *Proxy) locked(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.group.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	p.mu.Lock()
	target, refuse := p.target, p.refuse
	p.total++
	p.mu.Unlock()
	if refuse {
		_ = client.Close() // that is the answer
		return
	}
	server, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(context.Background(), "tcp", target)
	if err != nil {
		_ = client.Close() // as the server would
		return
	}
	pipe := &pipe{client: client, server: server, done: make(chan struct{})}
	p.mu.Lock()
	if p.closed {
		pipe.reset()
	}
	p.pipes[pipe] = struct{}{}
	p.mu.Unlock()

	var both sync.WaitGroup
	both.Go(func() { p.forward(pipe, ToServer, client, server) })
	both.Go(func() { p.forward(pipe, ToClient, server, client) })
	both.Wait()
	p.locked(func() { delete(p.pipes, pipe) })
}

// forward moves the bytes of one direction until the pipe is closed.
func (p *Proxy) forward(pipe *pipe, d Direction, from, to net.Conn) {
	defer pipe.close()
	buffer := make([]byte, 64<<10)
	for {
		if !p.mayRead(pipe, d) {
			return
		}
		n, err := from.Read(buffer)
		if n > 0 && !pipe.orphaned.Load() && !p.pass(pipe, d, to, buffer[:n]) {
			return
		}
		if err != nil {
			p.withhold(pipe, d)
			return
		}
	}
}

// withhold keeps the end of one side from the other while the direction is swallowed.
func (p *Proxy) withhold(pipe *pipe, d Direction) {
	p.mu.Lock()
	swallow := p.ways[d].swallow
	p.mu.Unlock()
	if swallow && pipe.orphaned.CompareAndSwap(false, true) {
		p.locked(func() { p.orphans++ })
		<-pipe.done
	}
}

// mayRead waits while reading is stopped; false when the pipe is closed.
func (p *Proxy) mayRead(pipe *pipe, d Direction) bool {
	for {
		p.mu.Lock()
		stopped := p.ways[d].stopped
		p.mu.Unlock()
		if stopped == nil {
			return true
		}
		select {
		case <-stopped:
		case <-pipe.done:
			return false
		}
	}
}

// pass writes what was read, as the direction's fault has it; false when the pipe is to be closed.
func (p *Proxy) pass(pipe *pipe, d Direction, to net.Conn, bytes []byte) bool {
	for len(bytes) > 0 {
		if !p.mayRead(pipe, d) { // what was read before a stop waits, too
			return false
		}
		p.mu.Lock()
		w := p.ways[d]
		p.mu.Unlock()
		if w.swallow {
			return true
		}
		piece := bytes
		if w.piece > 0 {
			piece = bytes[:min(w.piece, len(bytes))]
		}
		cut := w.cut >= 0 && pipe.passed[d]+int64(len(piece)) >= w.cut
		if cut {
			piece = piece[:max(0, w.cut-pipe.passed[d])]
		}
		if at := w.flip - pipe.passed[d]; w.flip >= 0 && at >= 0 && at < int64(len(piece)) {
			piece[at] ^= 1
		}
		n, err := to.Write(piece)
		p.locked(func() { p.passed[d] += int64(n) })
		if err != nil || cut {
			return false
		}
		pipe.passed[d] += int64(len(piece))
		bytes = bytes[len(piece):]
		if w.piece > 0 && !pipe.wait(w.every) {
			return false
		}
	}
	return true
}

// wait waits; false when the pipe is closed.
func (p *pipe) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.done:
		return false
	}
}

func (p *pipe) reset() {
	for _, conn := range []net.Conn{p.client, p.server} {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // the close that follows sends a reset
		}
	}
	p.close()
}

func (p *pipe) close() {
	p.once.Do(func() {
		close(p.done)
		_ = p.client.Close() // closing is the point; both may be closed already
		_ = p.server.Close()
	})
}
