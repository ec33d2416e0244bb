package publish

import (
	"net"
	"sync"
	"time"
)

const (
	// wireGate is how much may be buffered before the session waits with the next message.
	wireGate = 192 << 10
	// writeMost is how much is written by one call, which has to be done before its deadline: a large message on a slow link
	// is no dead link.
	writeMost = 256 << 10
	// writeDeadline is how long one write to the broker may take, unless the broker is blocked.
	writeDeadline = 15 * time.Second
	// closeDeadline is that of the last writes.
	closeDeadline = time.Second
	// lastWords is how long may still be read after a write failed: the broker may have said why.
	lastWords = time.Second
	// keepMost is the largest buffer that is kept for the bytes to come.
	keepMost = 1 << 20
)

// wire is the net.Conn under the library. Writes go to a buffer, and a goroutine writes what has gathered as soon
// as its previous write is done: one system call for as many frames as came in between, and no timer, so a lone frame
// leaves at once. It can be cut at any time, even while the library is stuck in a write.
type wire struct {
	net.Conn          // reads and deadlines
	socket   net.Conn // under Conn and its encryption: to cut
	mu       sync.Mutex
	room     sync.Cond // the buffer was taken, or the wire broke
	filled   sync.Cond // there is something to write, or nothing more will come
	buf      []byte
	spare    []byte
	writing  bool  // a write is under way
	err      error // sticky
	closing  bool
	patient  bool // the broker said that it takes nothing: a write may take as long as it likes
	done     chan struct{}
}

func newWire(conn, socket net.Conn) *wire {
	w := &wire{Conn: conn, socket: socket, done: make(chan struct{})}
	w.room.L, w.filled.L = &w.mu, &w.mu
	if tcp, ok := socket.(*net.TCPConn); ok {
		// What was written has to be near the broker, or a slow link would look like a silent broker. The system's own size,
		// which can be megabytes, is as good if it stays.
		_ = tcp.SetWriteBuffer(writeMost)
	}
	go w.flush()
	return w
}

// Write puts the bytes into the buffer and reports the error of an earlier flush. It never waits: the library holds locks
// while it writes that its heartbeats need, too. Who publishes waits before, at the gate, so the buffer never holds more than
// the gate and one message.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	w.buf = append(w.buf, p...)
	w.filled.Signal()
	return len(p), nil
}

func (w *wire) flush() {
	defer close(w.done)
	for {
		out, some := w.take()
		if !some {
			return
		}
		for rest := out; len(rest) > 0; {
			n, err := w.write(rest[:min(writeMost, len(rest))])
			if err != nil {
				w.breaks(err)
				time.AfterFunc(lastWords, w.cut)
				return
			}
			rest = rest[n:]
		}
		w.giveBack(out)
	}
}

// take waits for bytes and takes all that there are; false when no more will be written.
func (w *wire) take() (out []byte, some bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.buf) == 0 && !w.closing && w.err == nil {
		w.filled.Wait()
	}
	if w.err != nil || len(w.buf) == 0 {
		return nil, false
	}
	out, w.buf, w.spare, w.writing = w.buf, w.spare[:0], nil, true
	w.room.Broadcast()
	return out, true
}

func (w *wire) write(p []byte) (int, error) {
	if err := w.expect(); err != nil {
		return 0, err
	}
	return w.Conn.Write(p)
}

// expect sets the deadline of the write that comes next or is under way.
func (w *wire) expect() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closing:
		return w.SetWriteDeadline(time.Now().Add(closeDeadline))
	case w.patient:
		return w.SetWriteDeadline(time.Time{})
	}
	return w.SetWriteDeadline(time.Now().Add(writeDeadline))
}

// giveBack ends what take began, and keeps the buffer for the bytes to come.
func (w *wire) giveBack(out []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writing = false
	if cap(out) <= keepMost {
		w.spare = out
	}
}

// drained tells whether all that was written to the wire has left for the broker.
func (w *wire) drained() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.buf) == 0 && !w.writing
}

// wait blocks while the buffer is filled to the gate, and tells whether the wire still works.
func (w *wire) wait() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && len(w.buf) >= wireGate {
		w.room.Wait()
	}
	return w.err == nil
}

// bePatient takes the deadline off writes while the broker is blocked, and puts it on again.
func (w *wire) bePatient(patient bool) {
	w.mu.Lock()
	w.patient = patient
	w.mu.Unlock()
	_ = w.expect() // a broken wire says so by itself
}

// breaks ends all writing for good.
func (w *wire) breaks(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.room.Broadcast()
	w.filled.Broadcast()
}

// cut closes the connection. What is wrong is known already; the encryption would wait to say goodbye.
func (w *wire) cut() { _ = w.socket.Close() }

// abort cuts the connection at once. Everything that waits on it returns.
func (w *wire) abort() {
	w.breaks(net.ErrClosed)
	w.cut()
}

// Close writes what is buffered, for a moment, and closes the connection.
func (w *wire) Close() error {
	w.mu.Lock()
	w.closing = true
	w.filled.Broadcast()
	w.mu.Unlock()
	_ = w.expect() // a wire that is broken is closed all the same
	<-w.done
	w.abort()
	return nil
}
