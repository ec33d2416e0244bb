package consume

import "sync"

// latch is set once, for good, with a cause.
type latch struct {
	once  sync.Once
	done  chan struct{}
	cause error // Invariant: written before done is closed, read after
}

func newLatch() *latch { return &latch{done: make(chan struct{})} }

// set closes done; only the first cause counts.
func (l *latch) set(cause error) {
	l.once.Do(func() {
		l.cause = cause
		close(l.done)
	})
}

func (l *latch) isSet() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}
