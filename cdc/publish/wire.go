package publish

import (
	"net"
	"sync"
	"time"
)

const (
	// wireGate is how much may be buffered before the session waits with the next message.
	wireGate = 192 << 10
	// writeDeadline is how long one write to the broker may take, unless the broker is blocked.
	writeDeadline = 20 * time.Second
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
	err      error // sticky
	closing  bool
	patient  bool // the broker said that it takes nothing: a write may take as long as it likes
	done     chan struct{}
}

func newWire(conn, socket net.Conn) *wire {
	w := &wire{Conn: conn, socket: socket, done: make(chan struct{})}
	w.room.L, w.filled.L = &w.mu, &w.mu
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
		w.mu.Lock()
		for len(w.buf) == 0 && !w.closing && w.err == nil {
			w.filled.Wait()
		}
		if w.err != nil || len(w.buf) == 0 {
			w.mu.Unlock()
			return
		}
		out := w.buf
		w.buf = w.spare[:0]
		deadline := time.Time{}
		if !w.patient {
			deadline = time.Now().Add(writeDeadline)
		}
		w.room.Broadcast()
		w.mu.Unlock()

		err := w.SetWriteDeadline(deadline)
		if err == nil {
			_, err = w.Conn.Write(out)
		}
		w.mu.Lock()
		w.spare = out
		w.mu.Unlock()
		if err != nil {
			w.fail(err)
		}
	}
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
	if patient {
		_ = w.SetWriteDeadline(time.Time{}) // of the write under way; a broken wire says so by itself
	} else {
		_ = w.SetWriteDeadline(time.Now().Add(writeDeadline))
	}
}

// fail breaks the wire for good.
func (w *wire) fail(err error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
	}
	w.room.Broadcast()
	w.filled.Broadcast()
	w.mu.Unlock()
	_ = w.socket.Close() // what is wrong is known already; the encryption would wait to say goodbye
}

// abort cuts the connection at once. Everything that waits on it returns.
func (w *wire) abort() { w.fail(net.ErrClosed) }

// Close writes what is buffered, for a second at most, and closes the connection.
func (w *wire) Close() error {
	w.mu.Lock()
	w.closing = true
	w.filled.Broadcast()
	w.mu.Unlock()
	_ = w.SetWriteDeadline(time.Now().Add(time.Second)) // a wire that is broken is closed all the same
	<-w.done
	w.fail(net.ErrClosed)
	return nil
}
