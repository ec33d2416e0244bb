package publish

import (
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// slow is a connection whose writes wait for a go-ahead and are recorded.
type slow struct {
	net.Conn
	goAhead chan struct{}
	writes  chan int
}

func (s *slow) Write(p []byte) (int, error) {
	if _, ok := <-s.goAhead; !ok {
		return 0, io.ErrClosedPipe
	}
	s.writes <- len(p)
	return len(p), nil
}

func (s *slow) SetWriteDeadline(time.Time) error { return nil }

func newSlow() (*slow, *wire) {
	here, _ := net.Pipe()
	s := &slow{Conn: here, goAhead: make(chan struct{}), writes: make(chan int, 10)}
	return s, newWire(s, s)
}

// beginWrite brings the first write under way, which then waits for its go-ahead: what comes now stays in the buffer.
func beginWrite(t *testing.T, w *wire, size int) {
	t.Helper()
	_, err := w.Write(make([]byte, size))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.writing
	}, 10*time.Second, time.Millisecond)
}

func TestWireGathersWhatComesDuringAWrite(t *testing.T) {
	t.Parallel()
	s, w := newSlow()
	beginWrite(t, w, 10)
	for range 50 {
		_, err := w.Write(make([]byte, 100))
		require.NoError(t, err)
	}
	s.goAhead <- struct{}{}
	s.goAhead <- struct{}{}
	require.Equal(t, 10, <-s.writes)
	require.Equal(t, 5000, <-s.writes, "fifty frames in one write")
	w.abort()
	close(s.goAhead)
	<-w.done
}

func TestTheGateHoldsThePublisherBackAndAbortFreesIt(t *testing.T) {
	t.Parallel()
	s, w := newSlow()
	beginWrite(t, w, 10)
	for range 20 { // a write never waits, whatever the flusher does: a heartbeat must always get in
		_, err := w.Write(make([]byte, wireGate))
		require.NoError(t, err)
	}
	freed := make(chan bool)
	go func() { freed <- w.wait() }()
	select {
	case <-freed:
		t.Fatal("the gate is open")
	case <-time.After(50 * time.Millisecond): // it is closed: nothing can happen here, so there is nothing to wait for
	}
	w.abort()
	require.False(t, <-freed)
	close(s.goAhead)
	<-w.done
	_, err := w.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed, "a broken wire stays broken")
}

// deaf is a connection to somebody who has hung up: a write fails, and what was said before can still be read.
type deaf struct{ net.Conn }

func (deaf) Write([]byte) (int, error)        { return 0, syscall.EPIPE }
func (deaf) SetWriteDeadline(time.Time) error { return nil }

func TestWhatTheBrokerSaidBeforeItHungUpIsRead(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	w := newWire(deaf{here}, here)
	_, err := w.Write([]byte("x"))
	require.NoError(t, err)
	<-w.done
	require.False(t, w.wait(), "the wire is broken")
	go func() { _, _ = there.Write([]byte("why")) }() // the connection is closed soon
	said := make([]byte, 3)
	_, err = io.ReadFull(w, said)
	require.NoError(t, err)
	require.Equal(t, "why", string(said))
	_, err = w.Read(said)
	require.ErrorIs(t, err, io.ErrClosedPipe, "it does not stay open")
}
