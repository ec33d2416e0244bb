// Package consume takes events from a RabbitMQ queue and has each one's effect applied exactly once. It owns the AMQP
// sessions, the transaction around each effect, and the way of a message to the retry and dead-letter queues. Its caller
// owns the database pool and the handlers; a handler gets the open transaction and makes the event's effect in it.
//
//	queue ──▶ session ──hash of the aggregate──▶ shard ──▶ one transaction: inbox rows + handlers ──▶ commit ──▶ ack
//	                                              │ ▲ events that came too early wait here
//	                                              └─┴──▶ queue.retry.* (later again) · queue.dead (never by itself)
//
// What holds after a crash, at any point: an effect is in the database together with its inbox row, or neither is; a
// message is acknowledged only after that commit, or after the broker confirmed that the retry or dead-letter queue has
// it. What was not acknowledged is delivered again and the inbox tells whether it was applied. Nothing is kept elsewhere.
//
// Order: events of one aggregate are handled one after the other, in the order of delivery. A handler that keeps versions
// answers Gap for an event that is too early; the event then waits until those before it were applied. An event that failed
// holds back the later ones of its aggregate: while it is in a retry queue they wait in memory, and when that takes too long
// behind it in the retry queues; once it is a dead letter they follow it to the dead letters, until it was redriven and
// applied. The table blocked_aggregates has all that left the work queue in the order in which they did, so that none passes
// another, whenever and in whichever order they come back.
package consume

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/schema/topology"
	"tailbox/worker/inbox"
)

// Handler makes the effect of one event inside the transaction, which it neither commits nor rolls back. Handlers of
// different aggregates run side by side. The context ends after HandleTimeout or when a stop takes too long; a handler that
// does not heed it holds up its aggregates and the stop. A transaction may hold the effects of several events, and a
// handler may be called again for an event whose transaction was rolled back. An error of the database that the handler did
// not expect has to be returned: after a deadlock the server has rolled back what came before, too.
//
// What it returns decides: nil commits; a Duplicate commits too; a Gap makes the event wait; a Permanent error sends it to
// the dead-letter queue; an error of the database that will pass (see Transient) is tried again on the spot until it has
// passed; any other error sends the event to the retry queue, and to the dead-letter queue after MaxAttempts.
type Handler = func(ctx context.Context, tx *sql.Tx, event schema.Event) error

// Gap is an error of a handler that came too early: the event of MissingVersion has to be applied first.
type Gap interface {
	error
	MissingVersion() uint64
}

// Duplicate is an error of a handler that had nothing to do and wrote nothing, because the event, or a later one of its
// aggregate, was applied before.
type Duplicate interface {
	error
	Duplicate()
}

// Permanent is an error of a handler that will refuse this event for ever. The reason goes into the dead letter's headers
// and the log: a short code in snake_case that holds nothing of the payload.
type Permanent interface {
	error
	PermanentReason() string
}

// Defaults of a Config.
const (
	DefaultConcurrency     = 8
	DefaultBatch           = 64
	DefaultPrefetch        = 256
	DefaultMaxAttempts     = 8
	DefaultHandleTimeout   = time.Minute
	DefaultGapWait         = 2 * time.Second
	DefaultInboxRetention  = 30 * 24 * time.Hour
	DefaultShutdownTimeout = 15 * time.Second
)

// KeepInbox as a Config's InboxRetention keeps every row for ever.
const KeepInbox time.Duration = -1

// Config are the settings of a Worker that have defaults.
type Config struct {
	// Name is the consumer's name in the inbox: a message is applied once per name. Defaults to the queue's name.
	Name string
	// TLS are the files for a broker whose URL says amqps://. Defaults to the system's authorities and no certificate.
	TLS ops.TLSFiles
	// Concurrency is how many events of different aggregates are handled side by side. Defaults to DefaultConcurrency.
	Concurrency int
	// Batch is how many messages at most are applied by one transaction: those that wait already, none is waited for. When
	// one of them cannot be applied, each gets a transaction of its own. Defaults to DefaultBatch.
	Batch int
	// Prefetch is how many messages the broker hands out before any is acknowledged. Defaults to DefaultPrefetch.
	Prefetch int
	// MaxAttempts is how often a message is tried before it is a dead letter. Defaults to DefaultMaxAttempts.
	MaxAttempts int
	// HandleTimeout bounds one transaction; a handler's context ends with it. Well below the consumer timeout of the broker, half
	// an hour unless set otherwise, after which it takes all messages back. Defaults to DefaultHandleTimeout.
	HandleTimeout time.Duration
	// GapWait is how long an event that is too early, or waits for one in a retry queue, waits in memory before it goes to a
	// retry queue. Defaults to DefaultGapWait.
	GapWait time.Duration
	// InboxRetention is how long the inbox remembers what was applied: longer than anything may take to be delivered once
	// more. A message that may have been applied before, because it was created earlier than rows that are gone, is not
	// applied but a dead letter. At least a day, and more than the retry queues may hold a message; KeepInbox keeps all.
	// Defaults to DefaultInboxRetention.
	InboxRetention time.Duration
	// ChecksVersions says that the handlers apply each version of an aggregate once and in order, answering Gap and Duplicate,
	// whatever the inbox remembers: then an event with a version is given to its handler however old it is, and an event with a
	// version that waits in a retry queue is not noted in the database.
	ChecksVersions bool
	// Drop is called in place of its handler for an event that a person has given up (see Worker.Drop), whatever is missing
	// before it. A handler that checks versions has to learn there that the event's version will not come, or it would wait
	// for it ever after. Of the event, id, aggregate and version can be relied on: the rest may be what was wrong with it.
	// Defaults to nothing.
	Drop Handler
	// ShutdownTimeout bounds a stop. Defaults to DefaultShutdownTimeout.
	ShutdownTimeout time.Duration
	// Log gets a line per message. Defaults to none.
	Log *zap.Logger
	// Tracer, if set, gives each try of a message a span in the trace that the message came with.
	Tracer trace.Tracer
	// Metrics is where the tailbox_worker_ metrics are registered. Defaults to nowhere.
	Metrics prometheus.Registerer
}

// Worker consumes one queue. Make it with New and run it once.
type Worker struct {
	cfg      Config
	db       *sql.DB
	brokers  *ops.Brokers
	queue    topology.Consumer
	handlers map[string]Handler
	log      *zap.Logger
	metrics  *metrics
	status   status
	dead     sync.Mutex // one call at a time looks at the dead letters
}

// New checks the settings, all at once, and returns a worker for the queue that applies events with the handler of their
// type. Nothing is dialled yet. The pool should allow Concurrency connections and two more, and set a wait_timeout that is longer
// than a handler is silent between two statements: what a worker that is gone without a word has locked stays locked for that
// long. ops.OpenMySQL makes it 20 seconds.
func New(db *sql.DB, url ops.Secret, queue topology.Consumer, handlers map[string]Handler, cfg Config) (*Worker, error) {
	if cfg.Name == "" {
		cfg.Name = queue.Queue
	}
	brokers, err := ops.ParseBrokers(url, cfg.TLS)
	if err := errors.Join(err, check(queue, cfg)); err != nil {
		return nil, fmt.Errorf("%w: %w", ops.ErrBadConfig, err)
	}
	cfg.fill()
	w := &Worker{
		cfg: cfg, db: db, brokers: brokers, queue: queue, handlers: maps.Clone(handlers), log: cfg.Log,
		status: status{consumer: cfg.Name, state: StateStarting},
	}
	w.status.queued.Store(-1)
	w.status.dead.Store(-1)
	if w.metrics, err = newMetrics(cfg.Metrics, &w.status.dead); err != nil {
		return nil, err
	}
	return w, nil
}

// Check tells all that New would refuse.
func Check(url ops.Secret, queue topology.Consumer, cfg Config) error {
	_, err := ops.ParseBrokers(url, cfg.TLS)
	return errors.Join(err, check(queue, cfg))
}

func check(queue topology.Consumer, cfg Config) error {
	cfg.fill()
	return errors.Join(
		checkNames(queue, cfg.Name),
		upTo(1000, "CONCURRENCY", cfg.Concurrency),
		upTo(1000, "BATCH", cfg.Batch),
		upTo(2000, "PREFETCH", cfg.Prefetch), // quorum queues give no consumer more
		upTo(1000, "MAX_ATTEMPTS", cfg.MaxAttempts),
		ops.Positive("handle timeout", cfg.HandleTimeout),
		ops.Positive("gap wait", cfg.GapWait),
		checkRetention(cfg.InboxRetention, cfg.MaxAttempts),
		ops.Positive("SHUTDOWN_TIMEOUT", cfg.ShutdownTimeout),
	)
}

// fill replaces zeroes with defaults.
func (c *Config) fill() {
	fill(&c.Concurrency, DefaultConcurrency)
	fill(&c.Batch, DefaultBatch)
	fill(&c.Prefetch, DefaultPrefetch)
	fill(&c.MaxAttempts, DefaultMaxAttempts)
	fill(&c.HandleTimeout, DefaultHandleTimeout)
	fill(&c.GapWait, DefaultGapWait)
	fill(&c.InboxRetention, DefaultInboxRetention)
	fill(&c.ShutdownTimeout, DefaultShutdownTimeout)
	if c.Drop == nil {
		c.Drop = func(context.Context, *sql.Tx, schema.Event) error { return nil }
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
}

func fill[T comparable](value *T, fallback T) {
	var zero T
	if *value == zero {
		*value = fallback
	}
}

func upTo(most int, name string, value int) error {
	if value < 1 || value > most {
		return fmt.Errorf("%s: %d is not between 1 and %d", name, value, most)
	}
	return nil
}

func checkNames(queue topology.Consumer, name string) error {
	var errs []error
	if queue.Queue == "" || queue.Exchange == "" || queue.Binding == "" {
		errs = append(errs, errors.New("QUEUE: the queue, its exchange and its binding need names"))
	}
	if longest := queue.DeadQueue() + "....."; len(longest) > 255 {
		errs = append(errs, fmt.Errorf("QUEUE: the name has %d bytes, with those of its retry queues it may not pass 255", len(queue.Queue)))
	}
	if utf8.RuneCountInString(name) > inbox.MaxConsumer {
		errs = append(errs, fmt.Errorf("QUEUE: the consumer's name, which is the queue's unless given, has more than %d characters", inbox.MaxConsumer))
	}
	return errors.Join(errs...)
}
