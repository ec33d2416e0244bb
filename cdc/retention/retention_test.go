package retention_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
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
	"tailbox/deploy/stack"
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

func TestConfirmedRowsGoWhenTheyAreOldEnough(t *testing.T) {
	t.Parallel()
	b := setup(t, time.Hour)
	old := b.insert(aged(2*time.Hour), aged(90*time.Minute))
	young := b.insert(aged(0), aged(30*time.Minute))
	s := b.sweep()
	b.gone("old rows", old...)
	b.stay("young rows", young...)
	require.Equal(t, uint64(2), s.Deleted())
}

// TestARowThatReachedNoQueueStays: the checkpoint has not passed it, however old it is, and none behind it goes either.
func TestARowThatReachedNoQueueStays(t *testing.T) {
	t.Parallel()
	b := setup(t, 0)
	b.sweep()
	b.gone("what is confirmed", b.insert(aged(time.Hour))...)
	b.broker.Unbind(true)
	held := append(b.insert(aged(time.Hour)), b.insert(aged(48*time.Hour), aged(0))...)
	b.stay("unconfirmed rows", held...)
	b.broker.Unbind(false)
	b.gone("all, now that they are confirmed", held...)
}

func TestNothingGoesWhileTheBrokerIsAway(t *testing.T) {
	t.Parallel()
	b := setup(t, time.Hour)
	b.broker.Down(true)
	var lagging []string
	for range 20 {
		lagging = append(lagging, b.insert(aged(2*time.Hour), aged(3*time.Hour))...)
	}
	b.sweep()
	b.stay("unconfirmed rows", lagging...)
	b.broker.Down(false)
	b.gone("all, now that they are confirmed", lagging...)
}

// TestALongTransactionIsNotMistakenForAnOldOne: its rows were created long before others that are confirmed, and are committed
// after those were marked.
func TestALongTransactionIsNotMistakenForAnOldOne(t *testing.T) {
	t.Parallel()
	b := setup(t, time.Hour)
	long := aged(5 * time.Hour)
	tx, err := b.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, schema.Insert(t.Context(), tx, long))
	b.insert(aged(2 * time.Hour))
	s := retention.New(b.cfg)
	b.broker.Unbind(true)
	b.insert(aged(2 * time.Hour)) // holds the mark open
	b.stepped(s)

	require.NoError(t, tx.Commit()) // marks are there, and its row is none of them
	b.run(s.Run)
	b.stay("the late row", long.ID)
	b.broker.Unbind(false)
	b.gone("all", long.ID)
}

// TestUncommittedRowsAreNotMarked, not even where the server shows them by default.
func TestUncommittedRowsAreNotMarked(t *testing.T) {
	t.Parallel()
	b := setup(t, 0)
	b.server.Params = map[string]string{"tx_isolation": "'READ-UNCOMMITTED'"}
	if !strings.Contains(b.version(), "MariaDB") {
		b.server.Params = map[string]string{"transaction_isolation": "'READ-UNCOMMITTED'"}
	}
	b.cfg.DB = schematest.Open(t, b.server.FormatDSN())
	tx, err := b.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	open := aged(time.Hour)
	require.NoError(t, schema.Insert(t.Context(), tx, open))
	s := retention.New(b.cfg)
	for range 5 {
		waiting, err := s.Step(t.Context())
		require.NoError(t, err)
		require.False(t, waiting)
	}
	require.NoError(t, tx.Rollback())
}

func (b *bundle) version() (version string) {
	b.t.Helper()
	require.NoError(b.t, b.db.QueryRowContext(b.t.Context(), "SELECT VERSION()").Scan(&version))
	return version
}

// TestClocksDecideWhatIsMarkedAndNothingElse: a day ahead, a day behind.
func TestClocksDecideWhatIsMarkedAndNothingElse(t *testing.T) {
	t.Parallel()
	b := setup(t, time.Hour)
	b.broker.Unbind(true)
	write := func(shift string) string {
		conn, err := b.db.Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close()
		id := schema.NewID()
		_, err = conn.ExecContext(t.Context(), "SET SESSION timestamp = UNIX_TIMESTAMP() "+shift)
		require.NoError(t, err)
		_, err = conn.ExecContext(t.Context(), `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, type, payload, created_at)
			VALUES (?, 'customer', '1', 1, 'CustomerCreated', '{}', UTC_TIMESTAMP(6))`, id)
		require.NoError(t, err)
		_, err = conn.ExecContext(t.Context(), "SET SESSION timestamp = DEFAULT")
		require.NoError(t, err)
		return id
	}
	behind, ahead := write("- 86400"), write("+ 86400")
	b.sweep()
	b.stay("unconfirmed rows", behind, ahead)
	b.broker.Unbind(false)
	b.gone("the one that says it is old", behind)
	b.stay("the one that says it is young", ahead)
}

func TestRowsInQuarantineStay(t *testing.T) {
	t.Parallel()
	b := setup(t, 0)
	b.broker.Unbind(true)
	events := []schema.Event{aged(2 * time.Hour), aged(time.Hour), aged(0)}
	ids := b.insert(events...)
	// As the relay does before its checkpoint passes an event that cannot be a message.
	store := quarantine.New(b.db, "other", quarantine.Config{})
	require.NoError(t, store.Add(t.Context(), relay.Row{Event: events[1], Position: "p", CommittedAt: time.Now()}, errors.New("too long")))
	b.broker.Unbind(false)
	b.sweep()
	b.gone("the others", ids[0], ids[2])
	b.stay("the one in quarantine", ids[1])
	b.exec("DELETE FROM relay_quarantine")
	b.insert(aged(0)) // something happens
	b.gone("what left the quarantine", ids[1])
}

// TestAnIDThatWasInsertedAgainIsNotHit: it was marked, deleted by somebody else, and is young now.
func TestAnIDThatWasInsertedAgainIsNotHit(t *testing.T) {
	t.Parallel()
	b := setup(t, time.Hour)
	b.broker.Unbind(true)
	e := aged(2 * time.Hour)
	b.insert(e, aged(2*time.Hour))
	s := retention.New(b.cfg)
	b.stepped(s)
	b.exec("DELETE FROM outbox WHERE id = ?", e.ID)
	e.CreatedAt = time.Now().UTC().Truncate(time.Microsecond)
	b.insert(e)
	b.broker.Unbind(false)
	require.Eventually(t, func() bool {
		waiting, err := s.Step(t.Context())
		require.NoError(t, err)
		return !waiting && s.Deleted() == 1
	}, 30*time.Second, 10*time.Millisecond)
	require.Contains(t, b.left(), e.ID)
}

// TestMarksOfAnotherPlaceAreDropped: after a move nothing says that what was marked is behind the checkpoint.
func TestMarksOfAnotherPlaceAreDropped(t *testing.T) {
	t.Parallel()
	b := setup(t, 0)
	first := b.insert(aged(0))
	require.Eventually(t, func() bool {
		return b.engine.Status().EventID == first[0] && b.engine.Status().SavedEventID == first[0]
	}, 30*time.Second, 5*time.Millisecond)
	back := b.engine.Status().Saved
	b.broker.Unbind(true)
	b.insert(aged(0))
	conn, err := b.db.Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	mark, err := b.reader.Mark(t.Context(), conn)
	require.NoError(t, err)
	passed, err := b.reader.Passed(b.engine.Status().Saved, mark)
	require.NoError(t, err)
	require.False(t, passed)
	b.broker.Unbind(false)
	require.Eventually(t, func() bool {
		passed, err := b.reader.Passed(b.engine.Status().Saved, mark)
		return err == nil && passed
	},
		30*time.Second, 5*time.Millisecond, "once all is confirmed")

	require.NoError(t, b.engine.Move(t.Context(), back))
	require.Eventually(t, func() bool { _, err := b.reader.Passed(back, mark); return errors.Is(err, binlog.ErrMarkLost) }, 30*time.Second, time.Millisecond)
}

// TestAnEmptyOutboxIsRelayed: applications in Debezium's habit delete a row in the transaction that inserts it.
func TestAnEmptyOutboxIsRelayed(t *testing.T) {
	t.Parallel()
	b := setup(t, 0)
	s := b.sweep()
	var ids []string
	for range 20 {
		tx, err := b.db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		e := aged(0)
		require.NoError(t, schema.Insert(t.Context(), tx, e))
		_, err = tx.ExecContext(t.Context(), "DELETE FROM outbox WHERE id = ?", e.ID)
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
		ids = append(ids, e.ID)
	}
	require.Eventually(t, func() bool { return len(b.broker.Routed()) == len(ids) }, 30*time.Second, 5*time.Millisecond)
	require.Equal(t, ids, b.broker.Routed())
	require.Zero(t, s.Deleted())
}

const debezium = "ALTER TABLE outbox DROP COLUMN created_at, DROP COLUMN aggregate_version, DROP COLUMN headers, " +
	"RENAME COLUMN aggregate_type TO aggregatetype, RENAME COLUMN aggregate_id TO aggregateid"

func TestATableWithoutCreatedAtHasNoAge(t *testing.T) {
	t.Parallel()
	b := setup(t, 0, debezium)
	b.sweep()
	id := schema.NewID()
	b.exec("INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) VALUES (?, 'customer', '1', 'CustomerCreated', '{}')", id)
	b.gone("what is confirmed", id)

	check, err := b.cfg.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, relay.CheckOK, check.Level)
	b.cfg.Keep = time.Hour
	check, err = b.cfg.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, relay.CheckFail, check.Level)
	require.Equal(t, relay.SchemaMismatch, check.Reason)
	require.Contains(t, check.String(), "RETENTION=0")
	b.cfg.Keep = retention.Off
	check, err = b.cfg.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, relay.CheckOK, check.Level)
}

func TestAMissingRightIsNamedAndNothingElseHappens(t *testing.T) {
	t.Parallel()
	b := setup(t, 0)
	user := "u" + strings.ReplaceAll(schema.NewID(), "-", "")[:20]
	b.exec(fmt.Sprintf("CREATE USER '%s'@'%%' IDENTIFIED BY 'Secret-1'", user))
	b.exec(fmt.Sprintf("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '%s'@'%%'", user))
	b.exec(fmt.Sprintf("GRANT SELECT ON %s.* TO '%s'@'%%'", b.server.DBName, user))
	t.Cleanup(func() { _, _ = b.db.Exec(fmt.Sprintf("DROP USER '%s'@'%%'", user)) })
	server := b.server.Clone()
	server.User, server.Passwd = user, "Secret-1"
	b.cfg.DB, b.cfg.User = schematest.Open(t, server.FormatDSN()), user

	check, err := b.cfg.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, relay.CheckWarn, check.Level, "events go out all the same")
	require.Contains(t, check.Mend, fmt.Sprintf("GRANT DELETE ON %s.outbox TO '%s'", b.server.DBName, user))
	s := b.sweep()
	b.stay("all rows", b.insert(aged(time.Hour))...)
	require.Zero(t, s.Deleted())
}

// TestNoRowIsDeletedBeforeItIsConfirmed: whatever the broker, transactions and clocks do, each row that is gone is in a queue.
func TestNoRowIsDeletedBeforeItIsConfirmed(t *testing.T) {
	t.Parallel()
	for _, keep := range []time.Duration{0, time.Minute} {
		t.Run(fmt.Sprint("keep ", keep), func(t *testing.T) {
			t.Parallel()
			b := setup(t, keep)
			s := b.sweep()
			var all []string
			check := func() {
				left, routed := b.left(), map[string]bool{}
				for _, id := range b.broker.Routed() {
					routed[id] = true
				}
				for _, id := range all {
					require.True(t, left[id] || routed[id], "event %s is neither in the table nor in a queue", id)
				}
			}
			type pending struct {
				tx  *sql.Tx
				ids []string
			}
			var open []pending
			commit := func(at int) {
				require.NoError(t, open[at].tx.Commit())
				all = append(all, open[at].ids...)
				open = append(open[:at], open[at+1:]...)
			}
			for range 150 {
				tx, err := b.db.BeginTx(t.Context(), nil)
				require.NoError(t, err)
				p := pending{tx: tx}
				for range 1 + rand.IntN(5) {
					e := aged(time.Duration(rand.IntN(2*86400)-86400) * time.Second)
					require.NoError(t, schema.Insert(t.Context(), tx, e))
					p.ids = append(p.ids, e.ID)
				}
				if open = append(open, p); rand.IntN(3) > 0 {
					commit(rand.IntN(len(open)))
				}
				switch rand.IntN(10) {
				case 0:
					b.broker.Unbind(rand.IntN(2) == 0)
				case 1:
					b.broker.Down(rand.IntN(2) == 0)
				}
				check()
			}
			for len(open) > 0 {
				commit(0)
			}
			b.broker.Unbind(false)
			b.broker.Down(false)
			check()
			if keep == 0 {
				require.Eventually(t, func() bool { return len(b.left()) == 0 }, 30*time.Second, 10*time.Millisecond, "all confirmed, all gone")
			}
			require.Positive(t, s.Deleted(), "rows were deleted at all")
		})
	}
}

// TestRowsThatStartLatestPassedOverStay: they were never sent.
func TestRowsThatStartLatestPassedOverStay(t *testing.T) {
	t.Parallel()
	dsn := schematest.DB(t)
	before := aged(time.Minute)
	require.NoError(t, schema.Insert(t.Context(), schematest.Open(t, dsn), before))
	b := setupOn(t, dsn, binlog.StartLatest, 0)
	b.sweep()
	b.gone("what is sent", b.insert(aged(0))...)
	b.stay("what was passed over", before.ID)
	require.NotContains(t, b.broker.Routed(), before.ID)
}

// TestDeletesOfItsOwnDoNotKeepTheRelaySaving: on a server where nothing else happens, it comes to rest.
func TestDeletesOfItsOwnDoNotKeepTheRelaySaving(t *testing.T) {
	t.Parallel()
	set, err := stack.SetFromEnv()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "tailbox-retention-")
	require.NoError(t, err)
	server, err := stack.NewMySQL(t.Context(), stack.Config{Dir: dir, Set: set})
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = server.Kill() // the data is thrown away
		require.NoError(t, server.Stop(context.Background()))
		require.NoError(t, os.RemoveAll(dir))
	})
	require.NoError(t, server.Start(t.Context()))
	_, err = schematest.Open(t, server.DSN("")).ExecContext(t.Context(), "CREATE DATABASE tailbox")
	require.NoError(t, err)
	_, err = schema.Migrate(t.Context(), schematest.Open(t, server.DSN("tailbox")))
	require.NoError(t, err)

	b := setupOn(t, server.DSN("tailbox"), binlog.StartSnapshot, 0)
	b.sweep()
	for range 10 {
		b.gone("what is confirmed", b.insert(aged(0), aged(0))...)
	}
	before, quiet := b.saves.Load(), time.Now()
	require.Eventually(t, func() bool { // an idle save is due every 50 ms
		if n := b.saves.Load(); n != before {
			before, quiet = n, time.Now()
		}
		return time.Since(quiet) > time.Second
	}, 30*time.Second, 10*time.Millisecond, "rest")
}
