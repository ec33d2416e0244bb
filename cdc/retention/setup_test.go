package retention_test

import (
	"context"
	"database/sql"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"tailbox/cdc/binlog"
	"tailbox/cdc/checkpoint"
	"tailbox/cdc/quarantine"
	"tailbox/cdc/relay"
	"tailbox/cdc/relay/relaytest"
	"tailbox/cdc/retention"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

func TestMain(m *testing.M) { schematest.Main(m) }

// bundle is a relay that reads a real binlog into a broker that fails on demand, and the settings of its sweeper.
type bundle struct {
	t      *testing.T
	db     *sql.DB
	server *mysql.Config
	broker *relaytest.Broker
	engine *relay.Relay
	reader *binlog.Reader
	saves  atomic.Int64
	cfg    retention.Config
}

func setup(t *testing.T, keep time.Duration, prepare ...string) *bundle {
	t.Helper()
	return setupOn(t, schematest.DB(t), binlog.StartSnapshot, keep, prepare...)
}

func setupOn(t *testing.T, dsn string, start binlog.Start, keep time.Duration, prepare ...string) *bundle {
	t.Helper()
	server, err := mysql.ParseDSN(dsn)
	require.NoError(t, err)
	server.ClientFoundRows = true
	b := &bundle{t: t, server: server, db: schematest.Open(t, server.FormatDSN()), broker: relaytest.NewBroker()}
	for _, statement := range prepare {
		b.exec(statement)
	}
	table := binlog.Table{Schema: server.DBName, Name: "outbox"}
	store := checkpoint.New(b.db, "default", "test", relay.DefaultLeaseTTL)
	b.reader = binlog.New(binlog.Config{Server: server, DB: b.db, Outbox: table, Start: start, Fence: store.Fence,
		Own: []binlog.Table{{Schema: server.DBName, Name: checkpoint.Table}}})
	b.engine = relay.New(b.reader, b.broker.Link(), counted{store, &b.saves}, zap.NewNop(), relay.Config{
		Holder: "test", CheckpointInterval: 20 * time.Millisecond, IdleCheckpointInterval: 50 * time.Millisecond,
		RetryInterval: 20 * time.Millisecond, RetryMax: 50 * time.Millisecond,
	})
	b.cfg = retention.Config{
		DB: b.db, Outbox: table, User: server.User, Keep: keep, Source: b.reader, Log: zap.NewNop(),
		Checkpoint: func() (relay.Position, bool) {
			_, leading := b.engine.Leading()
			return b.engine.Status().Saved, leading
		},
		Held: func(ctx context.Context, ids []string) (map[string]bool, error) {
			return quarantine.Holds(ctx, b.db, ids)
		},
	}
	b.run(b.engine.Run)
	require.Eventually(t, func() bool { return b.engine.Status().State == relay.Streaming }, 30*time.Second, 5*time.Millisecond)
	return b
}

// counted counts the saves of the checkpoint.
type counted struct {
	relay.Store
	saves *atomic.Int64
}

func (c counted) Save(ctx context.Context, epoch uint64, place relay.Position, eventID string) error {
	c.saves.Add(1)
	return c.Store.Save(ctx, epoch, place, eventID)
}

// run runs something until the test ends.
func (b *bundle) run(f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		require.NoError(b.t, <-done)
	})
}

// sweep runs a sweeper that looks often.
func (b *bundle) sweep() *retention.Sweeper {
	s := retention.New(b.cfg)
	s.Interval(20 * time.Millisecond)
	b.run(s.Run)
	return s
}

func (b *bundle) exec(query string, args ...any) {
	b.t.Helper()
	_, err := b.db.ExecContext(b.t.Context(), query, args...)
	require.NoError(b.t, err)
}

// aged is an event that was created that long ago, as its writer says.
func aged(age time.Duration) schema.Event {
	return schematest.Event(func(e *schema.Event) { e.CreatedAt = time.Now().UTC().Add(-age).Truncate(time.Microsecond) })
}

func (b *bundle) insert(events ...schema.Event) (ids []string) {
	b.t.Helper()
	tx, err := b.db.BeginTx(b.t.Context(), nil)
	require.NoError(b.t, err)
	require.NoError(b.t, schema.Insert(b.t.Context(), tx, events...))
	require.NoError(b.t, tx.Commit())
	for _, e := range events {
		ids = append(ids, e.ID)
	}
	return ids
}

// left are the ids that the table has.
func (b *bundle) left() map[string]bool {
	b.t.Helper()
	rows, err := b.db.QueryContext(b.t.Context(), "SELECT id FROM outbox")
	require.NoError(b.t, err)
	defer rows.Close()
	left := map[string]bool{}
	for rows.Next() {
		var id string
		require.NoError(b.t, rows.Scan(&id))
		left[id] = true
	}
	require.NoError(b.t, rows.Err())
	return left
}

func (b *bundle) gone(what string, ids ...string) {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		left := b.left()
		for _, id := range ids {
			if left[id] {
				return false
			}
		}
		return true
	}, 30*time.Second, 10*time.Millisecond, what)
}

// stay watches the table for a second.
func (b *bundle) stay(what string, ids ...string) {
	b.t.Helper()
	for end := time.Now().Add(time.Second); time.Now().Before(end); <-time.After(20 * time.Millisecond) {
		left := b.left()
		for _, id := range ids {
			require.True(b.t, left[id], what)
		}
	}
}

// stepped steps by hand until marks wait.
func (b *bundle) stepped(s *retention.Sweeper) {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		waiting, err := s.Step(b.t.Context())
		require.NoError(b.t, err)
		return waiting
	}, 30*time.Second, 10*time.Millisecond, "marks")
}
