package binlog_test

import (
	"context"
	"database/sql"
	"os"
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
	set, err := stack.SetFromEnv()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "tailbox-gap-")
	require.NoError(t, err)
	server, err := stack.NewMySQL(t.Context(), stack.Config{Dir: dir, Set: set, Log: os.Stderr, MySQLOptions: options})
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
	b := &bundle{t: t, dsn: server.DSN("tailbox")}
	b.db = schematest.Open(t, b.dsn)
	_, err = schema.Migrate(t.Context(), b.db)
	require.NoError(t, err)
	return b
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

// reset begins the binlog anew.
func (b *bundle) reset() {
	b.t.Helper()
	if _, err := b.db.ExecContext(b.t.Context(), "RESET BINARY LOGS AND GTIDS"); err != nil {
		b.exec("RESET MASTER")
	}
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
	var after string
	var began []binlog.Repair
	r := b.reader(binlog.StartLatest, func(c *binlog.Config) {
		c.Repairing = func(_ context.Context, repair binlog.Repair) {
			if began = append(began, repair); !repair.Ended.IsZero() {
				after = b.commit(1)[0]
			}
		}
	})
	r.Begin(place)
	var rows []relay.Row
	err := r.Stream(b.t.Context(), func(row relay.Row) error {
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

func TestAGapIsRepairedFromTheTable(t *testing.T) {
	t.Parallel()
	b := private(t)
	for _, gap := range []struct {
		name   string
		reason relay.Reason
		hurt   func()
	}{
		{"purged", relay.BinlogPurged, b.purge},
	} {
		t.Run(gap.name, func(t *testing.T) {
			place := b.confirmed(20)
			want := b.history(1000)
			gap.hurt()

			began := time.Now()
			halting := b.reader(binlog.StartLatest, func(c *binlog.Config) { c.OnGap = binlog.GapHalt })
			halting.Begin(place)
			var halt *relay.Halt
			require.ErrorAs(t, halting.Stream(t.Context(), func(relay.Row) error { return nil }), &halt)
			require.Equal(t, gap.reason, halt.Reason)
			require.Less(t, time.Since(began), 5*time.Second)

			rows, repair := b.repaired(place)
			inOrder(t, want, rows)
			require.Equal(t, gap.reason, repair.Reason)
			require.Equal(t, place, repair.From)
			require.False(t, repair.To.IsZero())
		})
	}
}
