package relay

import (
	"fmt"
	"sync"
	"time"
)

// Lease is the right to relay under a name, as the row that all instances share has it.
type Lease struct {
	Epoch  uint64 // grows with each change of the holder
	Beat   uint64 // grows with each renewal
	Holder string // empty when it was handed over
	TTL    time.Duration
	Paused bool
	// ExpiresAt is for people, by the database's clock. No decision looks at it.
	ExpiresAt time.Time
}

// Watch is how an instance judges the lease of another: by its own monotonic clock, from what it saw with its own eyes. No
// clock is compared with another, so a clock that is set, the database's or ours, makes no lease look expired.
//
// Invariant: the lease of a holder that lives is never free before one TTL without a renewal has gone by.
type Watch struct {
	me    string
	ttl   time.Duration
	seen  Lease
	since time.Time // when the row was first seen like this
}

// NewWatch returns the watch of an instance that has seen nothing yet.
func NewWatch(me string, ttl time.Duration) *Watch { return &Watch{me: me, ttl: ttl} }

// Saw takes in what a look has shown, at a time behind the answer, and tells whether the lease may be taken.
func (w *Watch) Saw(lease Lease, at time.Time) (free bool) {
	if w.since.IsZero() || lease.Epoch != w.seen.Epoch || lease.Beat != w.seen.Beat {
		w.since = at
	}
	w.seen = lease
	if lease.Holder == "" || lease.Holder == w.me {
		return true // handed over, or nobody took it since we lost it
	}
	return at.Sub(w.since) >= max(w.ttl, lease.TTL)
}

// Tenure is how the holder judges its own lease. It is safe for concurrent use.
//
// Invariant: it is over at 0.7 of the TTL after the last renewal that was answered had been *asked* for, so before any Watch
// can call the lease free, which waits for a whole TTL from the moment when it saw that renewal.
type Tenure struct {
	epoch uint64
	ttl   time.Duration
	lost  chan struct{} // closed when it is over

	mu    sync.Mutex
	until time.Time
	why   error
}

// NewTenure returns the tenure of a lease that was acquired by a call made at that time.
func NewTenure(lease Lease, asked time.Time) *Tenure {
	t := &Tenure{epoch: lease.Epoch, ttl: lease.TTL, lost: make(chan struct{})}
	t.Renewed(asked)
	return t
}

// Renewed takes in that a renewal which was asked for at that time was granted.
func (t *Tenure) Renewed(asked time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.until = asked.Add(t.ttl * 7 / 10)
}

// Until is when the tenure is over unless it is renewed.
func (t *Tenure) Until() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.until
}

// Holds tells whether the holder may still act as one.
func (t *Tenure) Holds(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.why == nil && now.Before(t.until)
}

// lose ends the tenure. The first reason stays.
func (t *Tenure) lose(why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.why == nil {
		t.why = why
		close(t.lost)
	}
}

// cause is why the tenure is over.
func (t *Tenure) cause() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.why
}

// StandbyError is returned by calls that only the leader answers. It says who that is.
type StandbyError struct {
	Leader string // empty when nobody leads, or it is not known
}

func (e *StandbyError) Error() string {
	if e.Leader == "" {
		return "this instance does not lead, and nobody else is known to"
	}
	return fmt.Sprintf("this instance is a standby: %s leads", e.Leader)
}
