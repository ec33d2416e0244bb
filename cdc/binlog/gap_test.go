package binlog_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
	"tailbox/deploy/stack"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

// private is a bundle on a server of the test's own, which it may hurt.
func private(t *testing.T, options ...string) *bundle {
	t.Helper()
	b, _ := privateServer(t, options...)
	return b
}

// privateServer gives the server, too.
func privateServer(t *testing.T, options ...string) (b *bundle, server *stack.MySQL) {
	t.Helper()
	set, err := stack.SetFromEnv()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "tailbox-gap-")
	require.NoError(t, err)
	server, err = stack.NewMySQL(t.Context(), stack.Config{Dir: dir, Set: set, Log: os.Stderr, MySQLOptions: options})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = server.Kill() // the data is thrown away
		require.NoError(t, server.Stop(ctx))
		require.NoError(t, os.RemoveAll(dir))
	})
	require.NoError(t, server.Start(t.Context()))
	root := schematest.Open(t, server.DSN(""))
	_, err = root.ExecContext(t.Context(), "CREATE DATABASE tailbox")
	require.NoError(t, err)
	b = &bundle{t: t, dsn: server.DSN("tailbox")}
	b.db = schematest.Open(t, b.dsn)
	_, err = schema.Migrate(t.Context(), b.db)
	require.NoError(t, err)
	return b, server
}

// purge deletes all binlog files but a new one.
func (b *bundle) purge() {
	b.t.Helper()
	require.Eventually(b.t, func() bool { // a file that a stream is still being read from is passed over
		b.exec("FLUSH BINARY LOGS")
		files := b.binlogs()
		b.exec("PURGE BINARY LOGS TO '" + files[len(files)-1] + "'")
		return len(b.binlogs()) == 1
	}, 30*time.Second, 50*time.Millisecond, "the files to be gone")
}

func (b *bundle) flavor() string {
	b.t.Helper()
	var version string
	require.NoError(b.t, b.db.QueryRowContext(b.t.Context(), "SELECT VERSION()").Scan(&version))
	if strings.Contains(version, "MariaDB") {
		return stack.FlavorMariaDB
	}
	return stack.FlavorMySQL
}

// reset begins the binlog anew.
func (b *bundle) reset() {
	b.t.Helper()
	second := func() (n int) {
		require.NoError(b.t, b.db.QueryRowContext(b.t.Context(), "SELECT UNIX_TIMESTAMP()").Scan(&n))
		return n
	}
	began := second() // a file tells when it was begun to the second
	require.Eventually(b.t, func() bool { return second() > began }, 10*time.Second, 10*time.Millisecond)
	statement := "RESET BINARY LOGS AND GTIDS"
	if b.flavor() == stack.FlavorMariaDB {
		statement = "RESET MASTER"
	}
	b.exec(statement)
}

func (b *bundle) binlogs() (names []string) {
	b.t.Helper()
	rows, err := b.db.QueryContext(b.t.Context(), "SHOW BINARY LOGS")
	require.NoError(b.t, err)
	defer rows.Close()
	columns, err := rows.Columns()
	require.NoError(b.t, err)
	for rows.Next() {
		into := make([]any, len(columns))
		for i := range into {
			into[i] = new(sql.RawBytes)
		}
		require.NoError(b.t, rows.Scan(into...))
		names = append(names, string(*into[0].(*sql.RawBytes)))
	}
	require.NoError(b.t, rows.Err())
	return names
}

// confirmed commits n events, reads them and gives the place behind the last one.
func (b *bundle) confirmed(n int) relay.Position {
	b.t.Helper()
	r := b.reader(binlog.StartLatest)
	r.Begin(relay.Position{})
	first := b.startLatest(r)
	all := append([]string{first}, b.commit(n-1)...)
	require.Equal(b.t, all, ids(b.read(r, all[len(all)-1], 0)))
	place, _, ok := r.Confirmed(uint64(n))
	require.True(b.t, ok)
	return place
}

// history commits n events of a few aggregates that change by turns, ten to a transaction, and returns the ids of each
// aggregate in the order of its versions.
func (b *bundle) history(n int) map[string][]string {
	b.t.Helper()
	const aggregates = 7
	customers, want := make([]string, aggregates), map[string][]string{}
	for i := range customers {
		customers[i] = schema.NewID()
	}
	var events []schema.Event
	for i := range n {
		events = append(events, schematest.Event(func(e *schema.Event) {
			e.AggregateID, e.AggregateVersion = customers[i%aggregates], uint64(i/aggregates+1)
			want[e.AggregateID] = append(want[e.AggregateID], e.ID)
		}))
		if len(events) == 10 || i == n-1 {
			b.insert(events...)
			events = nil
		}
	}
	return want
}

func (b *bundle) insert(events ...schema.Event) {
	b.t.Helper()
	tx, err := b.db.BeginTx(b.t.Context(), nil)
	require.NoError(b.t, err)
	require.NoError(b.t, schema.Insert(b.t.Context(), tx, events...))
	require.NoError(b.t, tx.Commit())
}

// repaired streams from a place that the binlog does not lead on from, up to an event that is committed when the repair has
// ended, and returns the rows before that one, and the repair.
func (b *bundle) repaired(place relay.Position) ([]relay.Row, binlog.Repair) {
	b.t.Helper()
	return b.repairedBy(place, "INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, type, payload, created_at) "+
		"VALUES (?, 'customer', '1', 1, 'CustomerCreated', '{}', UTC_TIMESTAMP(6))")
}

// repairedBy does so where the table has other columns.
func (b *bundle) repairedBy(place relay.Position, insert string) ([]relay.Row, binlog.Repair) {
	b.t.Helper()
	var after string
	var began []binlog.Repair
	r := b.reader(binlog.StartLatest, func(c *binlog.Config) {
		c.Repairing = func(_ context.Context, repair binlog.Repair) {
			if began = append(began, repair); !repair.Ended.IsZero() {
				after = schema.NewID()
				b.exec(insert, after)
			}
		}
	})
	r.Begin(place)
	var rows []relay.Row
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	err := r.Stream(ctx, func(row relay.Row) error {
		_, _, ok := r.Confirmed(row.Seq - 1)
		if row.Event.ID == after {
			require.False(b.t, row.Repaired)
			require.True(b.t, ok, "behind the last row of the repair there is a place")
			return errEnough
		}
		require.True(b.t, row.Repaired)
		require.False(b.t, ok, "inside a repair there is no place")
		require.True(b.t, r.Repairing())
		rows = append(rows, row)
		return nil
	})
	require.ErrorIs(b.t, err, errEnough)
	require.Len(b.t, began, 2, "told when it begins and when it ends")
	repair, ok := r.Repair()
	require.True(b.t, ok)
	require.Equal(b.t, began[1], repair)
	require.Equal(b.t, uint64(len(rows)), repair.Rows)
	return rows, repair
}

// inOrder checks that all events are among the rows, those of each aggregate in the order of their versions.
func inOrder(t *testing.T, want map[string][]string, rows []relay.Row) {
	t.Helper()
	got := map[string][]string{}
	for _, row := range rows {
		if _, wanted := want[row.Event.AggregateID]; wanted {
			got[row.Event.AggregateID] = append(got[row.Event.AggregateID], row.Event.ID)
		}
	}
	require.Equal(t, want, got)
}

// halted streams from a place with ON_GAP=halt and gives why that halts, which must be soon.
func (b *bundle) halted(place relay.Position) *relay.Halt {
	b.t.Helper()
	r := b.reader(binlog.StartLatest, func(c *binlog.Config) { c.OnGap = binlog.GapHalt })
	r.Begin(place)
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	began := time.Now()
	var halt *relay.Halt
	require.ErrorAs(b.t, r.Stream(ctx, func(relay.Row) error { return nil }), &halt)
	require.Less(b.t, time.Since(began), 5*time.Second)
	return halt
}

func TestAGapIsRepairedFromTheTable(t *testing.T) {
	t.Parallel()
	t.Run("with GTIDs", func(t *testing.T) {
		t.Parallel()
		b := private(t)
		testGaps(t, b)
		testMargin(t, b)
		testBrokenRepair(t, b)
		testRebuilt(t, b, private(t))
	})
	t.Run("without GTIDs", func(t *testing.T) {
		t.Parallel()
		if schematest.Servers(t).MySQL.Flavor() == stack.FlavorMariaDB {
			return // it has no such mode
		}
		testGaps(t, private(t, "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"))
	})
}

func testGaps(t *testing.T, b *bundle) {
	for _, gap := range []struct {
		name   string
		events int
		reason relay.Reason
		hurt   func()
	}{
		{"reset", 100, relay.HistoryReset, b.reset},
		{"reset and filled past the place", 100, relay.HistoryReset, func() {
			b.reset()
			b.history(500)
		}},
		{"purged", 1000, relay.BinlogPurged, b.purge},
	} {
		t.Run(gap.name, func(t *testing.T) {
			place := b.confirmed(20)
			want := b.history(gap.events)
			gap.hurt()
			require.Equal(t, gap.reason, b.halted(place).Reason)

			rows, repair := b.repaired(place)
			inOrder(t, want, rows)
			require.Equal(t, gap.reason, repair.Reason)
			require.Equal(t, place, repair.From)
			require.False(t, repair.To.IsZero())
		})
	}
}

// testRebuilt loads the tables of one server into another, as a dump does, with and without the GTIDs of the first.
func testRebuilt(t *testing.T, old, fresh *bundle) {
	place := old.confirmed(5)
	want := old.history(100)
	fresh.copyOutbox(old)
	t.Run("rebuilt from a dump without GTIDs", func(t *testing.T) {
		require.Equal(t, relay.HistoryReset, fresh.halted(place).Reason)
		rows, _ := fresh.repaired(place)
		inOrder(t, want, rows)
	})
	if old.flavor() == stack.FlavorMariaDB {
		return
	}
	t.Run("rebuilt from a dump with GTIDs", func(t *testing.T) {
		var executed string
		require.NoError(t, old.db.QueryRowContext(t.Context(), "SELECT @@GLOBAL.gtid_executed").Scan(&executed))
		fresh.reset()
		fresh.exec("SET GLOBAL gtid_purged = ?", executed)
		require.Equal(t, relay.BinlogPurged, fresh.halted(place).Reason)
		rows, _ := fresh.repaired(place)
		inOrder(t, want, rows)
	})
}

func (b *bundle) copyOutbox(from *bundle) {
	b.t.Helper()
	rows, err := from.db.QueryContext(b.t.Context(), "SELECT id, aggregate_type, aggregate_id, aggregate_version, type, payload, created_at FROM outbox")
	require.NoError(b.t, err)
	defer rows.Close()
	var events []schema.Event
	for rows.Next() {
		var e schema.Event
		require.NoError(b.t, rows.Scan(&e.ID, &e.AggregateType, &e.AggregateID, &e.AggregateVersion, &e.Type, &e.Payload, &e.CreatedAt))
		events = append(events, e)
	}
	require.NoError(b.t, rows.Err())
	b.insert(events...)
}

// testMargin: a repair leaves out what was created longer before the checkpoint than the margin, and
// sends what was committed late, even by a clock that is behind. The margin grows with what was seen.
func testMargin(t *testing.T, b *bundle) {
	b.exec("DELETE FROM outbox")
	long := schematest.Event(func(e *schema.Event) { e.CreatedAt = time.Now().UTC().Add(-3 * time.Hour).Truncate(time.Microsecond) })
	b.insert(long)
	place := b.confirmed(5)
	place.Late = 0 // all that was seen was committed at once
	// A transaction that began before the place was taken, and is committed behind it.
	late := schematest.Event(func(e *schema.Event) {
		e.CreatedAt = time.Now().UTC().Add(-50 * time.Minute).Truncate(time.Microsecond)
	})
	b.insert(late)
	b.purge()

	rows, repair := b.repaired(place)
	require.Equal(t, place.CommittedAt.Add(-time.Hour), repair.Since)
	require.NotContains(t, ids(rows), long.ID)
	require.Contains(t, ids(rows), late.ID)

	place.Late = 2 * time.Hour
	rows, repair = b.repaired(place)
	require.Equal(t, place.CommittedAt.Add(-4*time.Hour), repair.Since)
	require.Contains(t, ids(rows), long.ID)

	place.CommittedAt = time.Time{} // of a release that did not keep it
	rows, repair = b.repaired(place)
	require.True(t, repair.Since.IsZero())
	require.Contains(t, ids(rows), long.ID)

	b.exec("CREATE TABLE kept LIKE outbox")
	defer b.exec("RENAME TABLE outbox TO gone, kept TO outbox")
	b.exec("ALTER TABLE outbox DROP COLUMN created_at, DROP COLUMN aggregate_version, DROP COLUMN headers")
	all := len(rows) + 1 // the event that told the end of the last repair
	place.CommittedAt = time.Now()
	rows, repair = b.repairedBy(place, "INSERT INTO outbox (id, aggregate_type, aggregate_id, type, payload) VALUES (?, 'customer', '1', 'CustomerCreated', '{}')")
	require.True(t, repair.Since.IsZero(), "the table does not tell")
	require.Len(t, rows, all)
}

// testBrokenRepair: a repair that breaks off begins again, in the same process, and in the next one, which finds the old checkpoint.
func testBrokenRepair(t *testing.T, b *bundle) {
	b.exec("DELETE FROM outbox")
	place := b.confirmed(5)
	want := b.history(200)
	b.purge()

	broken := errors.New("broken")
	r := b.reader(binlog.StartLatest)
	r.Begin(place)
	seen := uint64(0)
	for range 3 {
		n := 0
		err := r.Stream(t.Context(), func(row relay.Row) error {
			require.Equal(t, seen+1, row.Seq, "rows are numbered on")
			seen = row.Seq
			if n++; n == 100 {
				return broken
			}
			return nil
		})
		require.ErrorIs(t, err, broken)
		_, _, ok := r.Confirmed(seen)
		require.False(t, ok, "though all that was sent is confirmed, the repair has not ended")
	}
	repair, _ := r.Repair()
	require.Zero(t, repair.Ended)

	var rows []relay.Row
	require.ErrorIs(t, r.Stream(t.Context(), func(row relay.Row) error {
		if rows = append(rows, row); !row.Repaired {
			return broken
		}
		if repair, _ := r.Repair(); repair.Rows == 204 {
			defer b.commit(1)
		}
		return nil
	}), broken)
	inOrder(t, want, rows)
	rows, _ = b.repaired(place) // as after a kill: nothing was saved
	inOrder(t, want, rows)
}
