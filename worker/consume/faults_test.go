package consume_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"
	amqp "github.com/rabbitmq/amqp091-go"
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

func TestNothingIsConsumedWhileAQueueCouldLoseMessages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.ch.QueueDelete(b.queue.DeadQueue(), false, false, false)
	require.NoError(t, err)
	_, err = b.ch.QueueDeclare(b.queue.DeadQueue(), true, false, false, false, amqp.Table{"x-max-length": int64(10)}) // drops the oldest
	require.NoError(t, err)
	w := b.start(t, consume.Config{}, effect.Handlers())
	eventually(t, "the reason is told", func() bool { return w.Stats().Reason == "topology" })
	require.Contains(t, w.Unready(), "topology")
	_, err = b.ch.QueueDelete(b.queue.DeadQueue(), false, false, false)
	require.NoError(t, err)
	w.ready(t)
}

func TestKilledDatabaseConnectionsLoseNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const customers, versions, kills = 40, 25, 5
	all := b.load(t, customers, versions)
	handlers, used := noting(effect.Handlers())
	w := b.start(t, consume.Config{MaxAttempts: 1}, handlers)
	for i := range kills {
		w.settled(t, "applied", customers*versions*(i+1)/(kills+2))
		b.kill(t, used)
	}
	for _, events := range all {
		b.applied(t, events)
	}
	require.NoError(t, w.stop())
	got := w.Stats().Messages
	require.EqualValues(t, customers*versions, got["applied"])
	require.Zero(t, got["duplicate"]+got["retried"]+got["dead"], "the database is to blame, not the messages")
}

// noting are handlers that note which of the database's connections they ran on.
func noting(handlers map[string]consume.Handler) (noting map[string]consume.Handler, used *sync.Map) {
	used = &sync.Map{}
	for kind, handler := range handlers {
		handlers[kind] = func(ctx context.Context, tx *sql.Tx, event schema.Event) error {
			var id int64
			if err := tx.QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&id); err != nil {
				return err
			}
			used.Store(id, true)
			return handler(ctx, tx, event)
		}
	}
	return handlers, used
}

func (b *bundle) kill(t *testing.T, connections *sync.Map) {
	t.Helper()
	admin := schematest.Open(t, schematest.Servers(t).MySQL.DSN(""))
	connections.Range(func(id, _ any) bool {
		_, _ = admin.ExecContext(t.Context(), fmt.Sprintf("KILL %d", id)) // killed before, maybe
		return true
	})
}

// gate is a handler that stops in the middle of its transaction until it is let go.
type gate struct {
	entered, leave, gaveUp chan struct{}
	once, given            sync.Once
}

func newGate() *gate {
	return &gate{entered: make(chan struct{}), leave: make(chan struct{}), gaveUp: make(chan struct{})}
}

func (g *gate) handlers() map[string]consume.Handler {
	handlers := effect.Handlers()
	created := handlers[effect.CustomerCreated]
	handlers[effect.CustomerCreated] = func(ctx context.Context, tx *sql.Tx, event schema.Event) error {
		g.once.Do(func() { close(g.entered) })
		select {
		case <-g.leave:
		case <-ctx.Done():
			g.given.Do(func() { close(g.gaveUp) })
			return ctx.Err()
		}
		return created(ctx, tx, event)
	}
	return handlers
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

func TestRefusedDatabaseLoginIsWaitedForWithoutBlamingTheMessage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	admin := b.db
	dsn, err := mysql.ParseDSN(schematest.Servers(t).MySQL.DSN(""))
	require.NoError(t, err)
	user := "u" + schema.NewID()[24:]
	dsn.User, dsn.Passwd, dsn.DBName = user, "hunter2", b.database(t)
	b.db = schematest.Open(t, dsn.FormatDSN())
	log, lines := observer.New(zap.InfoLevel)
	w := b.start(t, consume.Config{MaxAttempts: 1, Log: zap.New(log)}, effect.Handlers())
	event := schematest.Event()
	b.publish(t, event)
	eventually(t, "the refusal is told", func() bool {
		return lines.FilterMessage("the database refuses: check MYSQL_DSN and the user's rights").Len() > 0
	})
	eventually(t, "the message waits", func() bool { return w.Stats().InFlight == 1 })
	require.Contains(t, w.Unready(), consume.NoDatabase)

	_, err = admin.ExecContext(t.Context(), "CREATE USER "+user+" IDENTIFIED BY 'hunter2'")
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = schematest.Open(t, schematest.Servers(t).MySQL.DSN("")).Exec("DROP USER " + user) })
	_, err = admin.ExecContext(t.Context(), "GRANT ALL ON "+dsn.DBName+".* TO "+user)
	require.NoError(t, err)
	w.settled(t, "applied", 1)
	w.ready(t)
	for _, line := range lines.All() {
		require.NotContains(t, fmt.Sprint(line.Message, line.ContextMap()), "hunter2")
	}
}
