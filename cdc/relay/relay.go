// Package relay is the heart of the cdc service: it takes committed outbox rows from a Source, publishes them in order
// through a Publisher, and saves to a Store how far every row is confirmed. It imports no driver.
//
// It owns the window of unconfirmed rows and the watermark: the number of rows, counted from the position it began at, that
// are all confirmed. The Source translates a watermark into a Position and back into a place to resume from. It also owns the
// lease: of all instances with one name, one leads and the others stand by, connected and ready to take over.
//
// What it promises, whatever process or connection dies: a row is confirmed, and was routed to a queue, before a
// checkpoint passes it; rows are sent in commit order; after a crash at most the window and the rows since the last save
// are sent again; after a clean stop none is. An instance that lost its lease never saves again, and has stopped sending
// before another may begin; if it was frozen in between, what it still sends is at most one window, and in order.
//
// The decisions are in Core, Watch and Tenure, which do no I/O; Relay is the engine that feeds them from its goroutines (the
// source, the opening of sessions, the saving of checkpoints, the renewal of the lease) and hands out what they decide.
package relay

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"
)

// Relay moves rows from a Source to a Publisher and keeps the Store.
type Relay struct {
	source    Source
	publisher Publisher
	store     Store
	cfg       Config
	log       *zap.Logger
	clock     func() time.Time

	opening  chan struct{} // asks for a session
	sessions chan Session  // freshly opened
	moves    chan move     // from Move to whoever leads
	nudge    chan struct{} // the core was changed from outside of the loop

	session  Session // used by the goroutine of Run alone, like outcomes
	outcomes <-chan Outcome

	mu     sync.Mutex // guards what Status reads
	core   *Core
	tenure *Tenure // nil while another leads
	lease  Lease   // as it was seen last
	idle   standing
	told   bool // why the lease is out of reach was logged
	last   savedPlace
	terms  uint64 // how often this instance became the leader
}

// standing is what an instance that does not lead says of itself.
type standing struct {
	state  State
	reason Reason
	detail string
}

type savedPlace struct {
	Place   Position
	EventID string
	At      time.Time
}

// New returns a relay that is not running.
func New(source Source, publisher Publisher, store Store, log *zap.Logger, cfg Config) *Relay {
	cfg = cfg.withDefaults()
	return &Relay{
		source: source, publisher: publisher, store: store, cfg: cfg, log: log,
		clock:    time.Now,
		opening:  make(chan struct{}, 1),
		sessions: make(chan Session),
		moves:    make(chan move),
		nudge:    make(chan struct{}, 1),
		core:     NewCore(cfg),
		idle:     standing{state: Starting},
	}
}

// Run stands by until it may lead, and then relays, until ctx ends. Then it stops reading, waits for the confirms that are
// under way, saves the place and hands the lease over, for at most the shutdown timeout, and returns nil. When it loses the
// lease it stands by again. When it halts it stays until ctx ends, so that Status can tell why, or returns the *Halt at once
// if ExitOnHalt is set.
func (r *Relay) Run(ctx context.Context) error {
	working, stop := context.WithCancel(context.WithoutCancel(ctx)) // outlives ctx: the drain needs sessions
	var group sync.WaitGroup
	group.Go(func() { r.openSessions(working) })
	defer group.Wait()
	defer stop()
	defer func() {
		bounded, cancel := context.WithTimeout(working, 2*time.Second) // nothing is in flight any more
		defer cancel()
		r.closeSession(bounded)
	}()

	signal(r.opening)
	for {
		term, ok := r.standBy(ctx)
		if !ok {
			return nil
		}
		err := r.lead(ctx, term)
		var halt *Halt
		switch {
		case errors.Is(err, errLost):
			continue
		case errors.As(err, &halt):
			return halt
		}
		return nil
	}
}

// openSessions opens one session per request.
func (r *Relay) openSessions(ctx context.Context) {
	retry := newBackOff(time.Second)
	var opened time.Time
	for {
		select {
		case <-r.opening:
		case <-ctx.Done():
			return
		}
		if r.clock().Sub(opened) > 10*time.Second {
			retry.Reset() // the last session held for a while
		} else if !wait(ctx, retry.NextBackOff()) {
			return
		}
		session := r.open(ctx, retry)
		if session == nil {
			return
		}
		opened = r.clock()
		select {
		case r.sessions <- session:
		case <-ctx.Done():
			_ = session.Close(ctx) // by force: the context has ended; nothing was published through it
			return
		}
	}
}

func (r *Relay) open(ctx context.Context, retry *backoff.ExponentialBackOff) Session {
	for {
		session, err := r.publisher.Open(ctx)
		if err == nil {
			return session
		}
		if ctx.Err() != nil {
			return nil
		}
		r.log.Warn("the broker is out of reach, trying again", zap.Error(err))
		r.locked(func(c *Core) { c.OnBrokerError(err) })
		if !wait(ctx, retry.NextBackOff()) {
			return nil
		}
	}
}

func (r *Relay) onSession(session Session) {
	if r.session != nil { // it was asked for twice, before and after a change of place
		go func() { _ = session.Close(context.Background()) }()
		return
	}
	r.session, r.outcomes = session, session.Outcomes()
	r.locked((*Core).OnSession)
}

func (r *Relay) onSessionLost() {
	err := r.session.Err()
	r.log.Warn("the publishing session ended, opening another", zap.Error(err))
	r.locked(func(c *Core) { c.OnSessionLost(err) })
	_ = r.session.Close(context.Background()) // it has ended: this only waits for its goroutines
	r.session, r.outcomes = nil, nil
	signal(r.opening)
}

// closeSession ends the session in good order until ctx ends, then by force.
func (r *Relay) closeSession(ctx context.Context) {
	if r.session == nil {
		return
	}
	if err := r.session.Close(ctx); err != nil {
		r.log.Warn("the publishing session was closed by force", zap.Error(err))
	}
	r.session, r.outcomes = nil, nil
	r.locked((*Core).OnSessionClosed)
}

func (r *Relay) locked(f func(*Core)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.core)
}

// newBackOff grows to most with jitter, and never gives up.
func newBackOff(most time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = 100 * time.Millisecond
	b.MaxInterval = most
	b.Reset()
	return b
}

// wait waits, and tells whether ctx still lives.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
