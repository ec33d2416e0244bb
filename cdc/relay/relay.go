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
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"tailbox/schema"
)

// Row is one committed insert into the outbox table, in commit order.
type Row struct {
	// Seq numbers the rows from 1, without a gap, from the position that Source.Begin was given.
	Seq   uint64
	Event schema.Event
	// Position is where the row's transaction is in the binlog: its GTID, or file:pos of its first event.
	Position string
	// CommittedAt is when the transaction was committed, by the database's clock; to the microsecond where the server
	// says so, else to the second.
	CommittedAt time.Time
	// Parked says that the row reached no queue and goes to the unrouted queue now.
	Parked bool
}

// size is what a row costs in memory, about.
func (r *Row) size() int { return len(r.Event.Payload) + 512 }

// Position is a place between two rows of the binlog. It is opaque here: only the source and the checkpoint look inside.
type Position struct {
	Flavor     string // mysql or mariadb
	ServerUUID string // of the server that File and Pos belong to
	GTID       bool   // the server has GTIDs, so GTIDSet says where this is, else File and Pos
	GTIDSet    string // every transaction up to here; empty at the beginning of all
	File       string // binlog file at the end of the last whole transaction
	Pos        uint64 // offset of that end
	// SkipRows is how many outbox rows of the next transaction (of transaction SkipGTID where there are GTIDs) are
	// behind this place already.
	SkipRows uint64
	SkipGTID string
}

// IsZero tells the position that was never saved.
func (p Position) IsZero() bool { return p == Position{} }

// Source reads committed outbox rows. One goroutine calls Begin and Stream; the others may be called from any.
type Source interface {
	// Begin forgets everything and makes the next Stream start at the position; the zero Position lets the source's
	// own START setting choose. Rows are numbered from 1 again.
	Begin(from Position)
	// Stream delivers rows one by one, in commit order, until ctx ends, deliver returns an error or the stream breaks,
	// and returns why. The next call goes on behind the last row that was delivered. A *Halt says that going on would
	// not be safe. A transaction is never held in memory as a whole, unless
	// the server compressed it.
	Stream(ctx context.Context, deliver func(Row) error) error
	// Connected tells whether a stream is under way and has heard from the server.
	Connected() bool
	// Confirmed gives the place behind row seq, which never goes down from call to call, and how many transactions
	// that are not the relay's own it has passed. ok is false while there is no such place yet (inside a snapshot).
	Confirmed(seq uint64) (place Position, passed uint64, ok bool)
}

// Publisher opens publishing sessions.
type Publisher interface {
	// Open connects, checks the exchange and returns a session that is ready, or an error. It gives up when ctx ends.
	Open(ctx context.Context) (Session, error)
}

// Session publishes rows in the order given and reports what became of each. It is never repaired: when it is lost,
// what it has not reported is unknown, and a new session takes over.
type Session interface {
	// Publish hands over rows, in order. It never blocks as long as no more than the window are unsettled. The session
	// keeps the slice until the rows are settled.
	Publish(rows []Row)
	// Outcomes reports in the order of Publish. It is closed when the session has ended, after all that it knows.
	Outcomes() <-chan Outcome
	// Err says why the session ended. Valid once Outcomes is closed.
	Err() error
	// Close ends the session in good order until ctx ends, then by force. It returns when all its goroutines have.
	Close(ctx context.Context) error
}

// OutcomeKind is what became of a row, or of the broker.
type OutcomeKind int

// The kinds of Outcome.
const (
	Confirmed OutcomeKind = iota // the broker has every row up to Seq that no other outcome named, each in a queue
	Returned                     // row Seq reached no queue
	Refused                      // the broker said no to row Seq
	Poison                       // row Seq cannot be a message; Err says why
	Blocked                      // the broker is short of memory or disk and takes nothing
	Unblocked                    // it takes messages again
)

// Outcome is one report of a session. Rows before Seq are settled before Seq is.
type Outcome struct {
	Kind OutcomeKind
	Seq  uint64
	Err  error
}

// ErrFenced is returned by Checkpoints.Save, and by Relay.Run, when another relay of the same name took over. Nothing was
// written; the process steps down.
var ErrFenced = errors.New("another relay of this name took over")

// Checkpoints keeps the place of one relay, durably and fenced: it accepts nothing from an epoch that is not the newest.
type Checkpoints interface {
	// Acquire makes the caller the only writer under a new epoch and returns the place that was saved last, the zero
	// Position if none was.
	Acquire(ctx context.Context) (epoch uint64, from Position, err error)
	// Save stores the place durably, or returns ErrFenced when the epoch is not the newest. It is idempotent.
	Save(ctx context.Context, epoch uint64, place Position, eventID string) error
}

// Config of a Relay.
type Config struct {
	// Window is how many rows may be unconfirmed. Defaults to DefaultWindow.
	Window int
	// WindowBytes is how many bytes of payload may be unconfirmed. Defaults to DefaultWindowBytes.
	WindowBytes int
	// StrictOrder keeps at most one event per aggregate in flight, so that the first deliveries follow commit order per
	// aggregate even after the broker has returned or refused one.
	StrictOrder bool
	// ParkUnroutable sends what reaches no queue to the unrouted queue, confirmed, and goes on, instead of holding it.
	ParkUnroutable bool
	// CheckpointInterval is the least time between two saves. Defaults to DefaultCheckpointInterval.
	CheckpointInterval time.Duration
	// IdleCheckpointInterval is the least time between two saves when only other tables' transactions went by.
	// Defaults to DefaultIdleCheckpointInterval.
	IdleCheckpointInterval time.Duration
	// RetryInterval is the first wait before rows that reached no queue are sent again; it doubles up to RetryMax.
	// Defaults to DefaultRetryInterval and DefaultRetryMax.
	RetryInterval, RetryMax time.Duration
	// ShutdownTimeout bounds the drain of a stop. Defaults to DefaultShutdownTimeout.
	ShutdownTimeout time.Duration
	// ExitOnHalt makes Run return the *Halt at once.
	ExitOnHalt bool
	// Observe, if set, is told of each confirmed row, on the relay's own goroutine: it must be quick.
	Observe func(row *Row, confirmedAt time.Time)
}

// Defaults of Config.
const (
	DefaultWindow                 = 1000
	DefaultWindowBytes            = 16 << 20
	DefaultCheckpointInterval     = 200 * time.Millisecond
	DefaultIdleCheckpointInterval = 10 * time.Second
	DefaultRetryInterval          = 250 * time.Millisecond
	DefaultRetryMax               = 5 * time.Second
	DefaultShutdownTimeout        = 10 * time.Second
)

func (c Config) withDefaults() Config {
	if c.Window <= 0 {
		c.Window = DefaultWindow
	}
	if c.WindowBytes <= 0 {
		c.WindowBytes = DefaultWindowBytes
	}
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&c.CheckpointInterval, DefaultCheckpointInterval},
		{&c.IdleCheckpointInterval, DefaultIdleCheckpointInterval},
		{&c.RetryInterval, DefaultRetryInterval},
		{&c.RetryMax, DefaultRetryMax},
		{&c.ShutdownTimeout, DefaultShutdownTimeout},
	} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	return c
}

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

// Halt is why a relay stopped for good: going on could lose, invent or reorder events. Only an operator can resolve it.
type Halt struct {
	Reason Reason
	Err    error // what happened, and the statement or action that mends it
}

func (h *Halt) Error() string { return fmt.Sprintf("halted (%s): %v", h.Reason, h.Err) }

// Unwrap returns what happened.
func (h *Halt) Unwrap() error { return h.Err }

// Haltf returns a Halt with a formatted cause.
func Haltf(reason Reason, format string, args ...any) *Halt {
	return &Halt{Reason: reason, Err: fmt.Errorf(format, args...)}
}
