package consume_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

// load publishes the events of many customers, interleaved, and returns them by customer.
func (b *bundle) load(t *testing.T, customers, versions int) [][]schema.Event {
	t.Helper()
	all := make([][]schema.Event, customers)
	for i := range all {
		all[i] = customer(versions)
	}
	for version := range versions {
		for _, events := range all {
			b.publish(t, events[version])
		}
	}
	return all
}

func TestConnectionsClosedByTheBrokerLoseNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const customers, versions, cuts = 40, 25, 3
	all := b.load(t, customers, versions)
	w := b.start(t, consume.Config{Prefetch: 50}, effect.Handlers())
	for i := range cuts {
		w.settled(t, "applied", customers*versions*(i+1)/(cuts+2))
		b.cut(t)
	}
	for _, events := range all {
		b.applied(t, events)
	}
	require.NoError(t, w.stop())
	require.EqualValues(t, customers*versions, w.Stats().Messages["applied"])
	require.Equal(t, customers*versions, b.count(t, "inbox"))
}

func TestDeletedQueueIsDeclaredAndConsumedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.start(t, consume.Config{}, effect.Handlers())
	w.ready(t)
	_, err := b.ch.QueueDelete(b.queue.Queue, false, false, false)
	require.NoError(t, err)
	eventually(t, "the loss is noticed", func() bool { return len(w.Unready()) > 0 })
	w.ready(t)
	event := schematest.Event()
	b.publish(t, event)
	b.applied(t, []schema.Event{event})
}

func TestKilledDatabaseConnectionsLoseNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const customers, versions, kills = 40, 25, 5
	all := b.load(t, customers, versions)
	w := b.start(t, consume.Config{MaxAttempts: 1}, effect.Handlers())
	for i := range kills {
		w.settled(t, "applied", customers*versions*(i+1)/(kills+2))
		b.kill(t)
	}
	for _, events := range all {
		b.applied(t, events)
	}
	require.NoError(t, w.stop())
	got := w.Stats().Messages
	require.EqualValues(t, customers*versions, got["applied"])
	require.Zero(t, got["duplicate"]+got["retried"]+got["dead"], "the database is to blame, not the messages")
}

// kill ends all connections to the test's database but its own.
func (b *bundle) kill(t *testing.T) {
	t.Helper()
	conn, err := b.db.Conn(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	rows, err := conn.QueryContext(t.Context(),
		"SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()")
	require.NoError(t, err)
	var ids []int64
	for rows.Next() {
		var id int64
		require.NoError(t, rows.Scan(&id))
		ids = append(ids, id)
	}
	require.NoError(t, rows.Err())
	for _, id := range ids {
		_, _ = conn.ExecContext(t.Context(), fmt.Sprintf("KILL %d", id)) // it may have ended by itself
	}
}

func TestStopUnderLoadLeavesNothingToBeDeliveredAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const customers, versions, stops = 60, 50, 6
	all := b.load(t, customers, versions)

	var applied, duplicates uint64
	for i := range stops {
		w := b.start(t, consume.Config{Concurrency: 4 + 2*i}, effect.Handlers())
		w.settled(t, "applied", customers*versions/(2*stops))
		require.NoError(t, w.stop())
		applied += w.Stats().Messages["applied"]
		duplicates += w.Stats().Messages["duplicate"]
		require.Equal(t, consume.StateStopped, w.Stats().State)
		require.Zero(t, w.Stats().InFlight)
	}
	last := b.start(t, consume.Config{}, effect.Handlers())
	for _, events := range all {
		b.applied(t, events)
	}
	require.NoError(t, last.stop())
	require.EqualValues(t, customers*versions, applied+last.Stats().Messages["applied"])
	require.Zero(t, duplicates+last.Stats().Messages["duplicate"])
	b.empty(t, b.queue.Queue)
}

func TestStopGivesBackWhatWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := customer(3)
	w := b.start(t, consume.Config{GapWait: time.Hour}, effect.Handlers())
	b.publish(t, events[1:]...)
	eventually(t, "two events wait", func() bool { return w.Stats().WaitingGaps == 2 })
	require.NoError(t, w.stop())

	b.start(t, consume.Config{}, effect.Handlers())
	b.publish(t, events[0])
	b.applied(t, events)
}

// gate is a handler that stops in the middle of its transaction until it is let go.
type gate struct {
	entered, leave chan struct{}
	once           sync.Once
}

func newGate() *gate { return &gate{entered: make(chan struct{}), leave: make(chan struct{})} }

func (g *gate) handlers() map[string]consume.Handler {
	handlers := effect.Handlers()
	created := handlers[effect.CustomerCreated]
	handlers[effect.CustomerCreated] = func(ctx context.Context, tx *sql.Tx, event schema.Event) error {
		g.once.Do(func() { close(g.entered) })
		select {
		case <-g.leave:
		case <-ctx.Done():
			return ctx.Err()
		}
		return created(ctx, tx, event)
	}
	return handlers
}

func TestStopFinishesWhatAHandlerHasInHand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := newGate()
	w := b.start(t, consume.Config{}, g.handlers())
	event := schematest.Event()
	b.publish(t, event)
	<-g.entered
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop() }()
	eventually(t, "draining", func() bool { return w.Stats().State == consume.StateDraining })
	close(g.leave)

	require.NoError(t, <-stopped)
	require.EqualValues(t, 1, w.Stats().Messages["applied"])
	b.empty(t, b.queue.Queue)
}

func TestStopGivesUpOnAHandlerThatTakesTooLong(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := newGate()
	w := b.start(t, consume.Config{ShutdownTimeout: 50 * time.Millisecond}, g.handlers())
	event := schematest.Event()
	b.publish(t, event)
	<-g.entered
	require.ErrorIs(t, w.stop(), consume.ErrShutdownTimeout)

	b.start(t, consume.Config{}, effect.Handlers())
	b.applied(t, []schema.Event{event})
}

func TestLostSessionCommitsWhatIsInHandBeforeTheNextBegins(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := newGate()
	log, lines := observer.New(zap.InfoLevel)
	w := b.start(t, consume.Config{Log: zap.New(log)}, g.handlers())
	event := schematest.Event()
	b.publish(t, event)
	<-g.entered
	b.cut(t)
	b.reconnect(t)
	b.publish(t, schematest.Event()) // stays in the queue while the old handler runs
	require.Len(t, lines.FilterMessage("consuming").All(), 1)
	close(g.leave)

	w.settled(t, "duplicate", 1)
	w.settled(t, "applied", 2)
	b.applied(t, []schema.Event{event})
	require.Len(t, lines.FilterMessage("consuming").All(), 2)
}

func TestUnreachableServersAreWaitedFor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.url = "amqp://guest:guest@127.0.0.1:1/"
	w := b.start(t, consume.Config{}, effect.Handlers())
	eventually(t, "the broker is found missing", func() bool { return w.Stats().Reason == consume.NotConnected })
	eventually(t, "the database is found", func() bool { return len(w.Unready()) == 2 })
	require.Equal(t, []string{consume.NotConnected, consume.NotConsuming}, w.Unready())
	require.NoError(t, w.stop())
}

func TestRefusedLoginIsNamed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.url = "amqp://guest:hunter2@" + schematest.Servers(t).Rabbit.Addr() + "/"
	log, lines := observer.New(zap.InfoLevel)
	w := b.start(t, consume.Config{Log: zap.New(log)}, effect.Handlers())
	eventually(t, "the refusal is told", func() bool { return w.Stats().Reason == "access_refused" })
	require.NoError(t, w.stop())
	for _, line := range lines.All() {
		require.NotContains(t, fmt.Sprint(line.Message, line.ContextMap()), "hunter2")
	}
}
