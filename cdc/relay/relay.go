// Package relay is the heart of the cdc service: it takes committed outbox rows from a Source, publishes them in order
// through a Publisher, and saves to Checkpoints how far every row is confirmed. It imports no driver.
//
// It owns the window of unconfirmed rows and the watermark: the number of rows, counted from the position it began at, that
// are all confirmed. The Source translates a watermark into a Position and back into a place to resume from.
//
// What it promises, whatever process or connection dies: a row is confirmed, and was routed to a queue, before a
// checkpoint passes it; rows are sent in commit order; after a crash at most the window and the rows since the last save
// are sent again; after a clean stop none is.
//
// The decisions are in Core, which does no I/O; Relay is the engine that feeds it from three goroutines (the source, the
// opening of sessions, the saving of checkpoints) and hands out what it decides.
package relay

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"
)

// Relay moves rows from a Source to a Publisher and keeps the Checkpoints.
type Relay struct {
	source      Source
	publisher   Publisher
	checkpoints Checkpoints
	cfg         Config
	log         *zap.Logger

	rows     *queue          // from the source, bounded
	sessions chan Session    // freshly opened
	breaks   chan error      // why a stream ended
	saves    chan save       // to the saver; room for one
	saved    chan saveResult // from the saver
	clock    func() time.Time

	mu    sync.Mutex // guards what Status reads
	core  *Core
	epoch uint64
	last  savedPlace
}

type save struct {
	watermark uint64
	passed    uint64
	place     Position
	eventID   string
}

type saveResult struct {
	save
	at  time.Time
	err error
}

type savedPlace struct {
	Place   Position
	EventID string
	At      time.Time
}

// New returns a relay that is not running.
func New(source Source, publisher Publisher, checkpoints Checkpoints, log *zap.Logger, cfg Config) *Relay {
	cfg = cfg.withDefaults()
	return &Relay{
		source: source, publisher: publisher, checkpoints: checkpoints, cfg: cfg, log: log,
		rows:     newQueue(queueRows, queueBytes),
		sessions: make(chan Session),
		breaks:   make(chan error),
		saves:    make(chan save, 1),
		saved:    make(chan saveResult, 1),
		clock:    time.Now,
		core:     NewCore(cfg),
	}
}

// Run takes the checkpoint over and relays until ctx ends. Then it stops reading, waits for the confirms that are under
// way and saves the place, for at most the shutdown timeout, and returns nil. It returns ErrFenced when another relay took
// over. When it halts it stays until ctx ends, so that Status can tell why, unless ExitOnHalt is set.
func (r *Relay) Run(ctx context.Context) error {
	epoch, from, err := r.acquire(ctx)
	if halt := (*Halt)(nil); errors.As(err, &halt) {
		return r.stayHalted(ctx, halt)
	}
	if err != nil {
		return nil //nolint:nilerr // ctx ended before there was anything to stop
	}
	r.mu.Lock()
	r.epoch, r.last = epoch, savedPlace{Place: from}
	r.core.OnLeading()
	r.mu.Unlock()
	r.log.Info("leading", zap.Uint64("epoch", epoch), zap.String("file", from.File), zap.Uint64("pos", from.Pos),
		zap.String("gtid_set", from.GTIDSet), zap.Uint64("skip_rows", from.SkipRows))

	r.source.Begin(from)
	return r.lead(ctx)
}

// errStopped ends what waited while ctx ended.
var errStopped = errors.New("stopped")

// acquire takes the checkpoint over, trying until it can.
func (r *Relay) acquire(ctx context.Context) (uint64, Position, error) {
	retry := newBackOff(100*time.Millisecond, 2*time.Second)
	for {
		epoch, from, err := r.checkpoints.Acquire(ctx)
		if err == nil {
			return epoch, from, nil
		}
		if halt := (*Halt)(nil); errors.As(err, &halt) {
			return 0, Position{}, halt
		}
		r.log.Warn("the checkpoint is out of reach, trying again", zap.Error(err))
		if !wait(ctx, retry.NextBackOff()) {
			return 0, Position{}, errStopped
		}
	}
}

// lead runs the three goroutines and the loop, and takes them down in order.
func (r *Relay) lead(ctx context.Context) error {
	working, stop := context.WithCancel(context.WithoutCancel(ctx)) // outlives ctx: the drain needs them
	reading, stopReading := context.WithCancel(working)
	var group sync.WaitGroup
	group.Go(func() { r.readSource(reading) })
	group.Go(func() { r.saveCheckpoints(working) })
	opening := make(chan struct{}, 1)
	group.Go(func() { r.openSessions(working, opening) })

	loop := &loop{Relay: r, opening: opening, stopReading: stopReading}
	err := loop.run(ctx)
	stop()
	group.Wait()
	if halt := (*Halt)(nil); errors.As(err, &halt) {
		return r.stayHalted(ctx, halt)
	}
	return err
}

func (r *Relay) stayHalted(ctx context.Context, halt *Halt) error {
	r.mu.Lock()
	r.core.OnHalt(halt)
	r.mu.Unlock()
	r.log.Error("halted", zap.String("reason", string(halt.Reason)), zap.Error(halt.Err))
	if r.cfg.ExitOnHalt {
		return halt
	}
	<-ctx.Done()
	return nil
}

// readSource streams for as long as it may, again and again, and reports each end.
func (r *Relay) readSource(ctx context.Context) {
	retry := newBackOff(100*time.Millisecond, 2*time.Second)
	for ctx.Err() == nil {
		began, before := r.clock(), r.rows.delivered()
		err := r.source.Stream(ctx, func(row Row) error { return r.rows.put(ctx, row) })
		if ctx.Err() != nil {
			return
		}
		if r.rows.delivered() > before || r.clock().Sub(began) > 30*time.Second {
			retry.Reset() // it worked for a while
		}
		select {
		case r.breaks <- err:
		case <-ctx.Done():
			return
		}
		if halt := (*Halt)(nil); errors.As(err, &halt) {
			return
		}
		wait(ctx, retry.NextBackOff())
	}
}

// openSessions opens one session per request.
func (r *Relay) openSessions(ctx context.Context, requests <-chan struct{}) {
	retry := newBackOff(100*time.Millisecond, 2*time.Second)
	var opened time.Time
	for {
		select {
		case <-requests:
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
		r.mu.Lock()
		r.core.OnBrokerError(err)
		r.mu.Unlock()
		if !wait(ctx, retry.NextBackOff()) {
			return nil
		}
	}
}

// saveCheckpoints writes one save at a time; each has its own deadline, so that a stuck database cannot hold the loop.
func (r *Relay) saveCheckpoints(ctx context.Context) {
	for {
		select {
		case s := <-r.saves:
			bounded, cancel := context.WithTimeout(ctx, r.cfg.ShutdownTimeout)
			err := r.checkpoints.Save(bounded, r.epoch, s.place, s.eventID)
			cancel()
			r.saved <- saveResult{save: s, at: r.clock(), err: err}
		case <-ctx.Done():
			return
		}
	}
}

// newBackOff grows from first to most with jitter, and never gives up.
func newBackOff(first, most time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = first
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
