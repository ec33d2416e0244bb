package binlog_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

// withAndWithoutGTIDs are servers of the test's own: one with GTIDs and, where it can do without, by file and offset.
func withAndWithoutGTIDs(t *testing.T, options ...string) map[string]*bundle {
	t.Helper()
	servers := map[string]*bundle{"GTID": private(t, options...)}
	if servers["GTID"].isMySQL() {
		servers["file and offset"] = private(t, append(options, "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF")...)
	}
	return servers
}

// TestFromAPlaceOfAnotherHistoryNothingIsCounted: after a reset the same files, offsets and GTIDs come again for other
// transactions, so a place from before seems to be behind all of them.
func TestFromAPlaceOfAnotherHistoryNothingIsCounted(t *testing.T) {
	t.Parallel()
	for name, b := range withAndWithoutGTIDs(t) {
		b.history(100)
		from := b.confirmed(3)
		b.reset()
		b.commit(2)
		r := b.reader(binlog.StartLatest)
		end := b.moment(b.isMySQL(), time.Time{})
		to, err := r.Locate(t.Context(), binlog.Target{File: end.file, Pos: end.pos})
		require.NoError(t, err)
		unknown := binlog.Count{AtLeast: true}
		d, err := r.Compare(t.Context(), from, to, time.Minute)
		require.NoError(t, err)
		require.Equal(t, binlog.Difference{Again: unknown, Skipped: unknown}, d, "%s: from %+v to %+v", name, from, to)
	}
}

// TestASnapshotSkipsWhatOnlyTheBinlogHas: the application may delete its rows itself, in the transaction that inserts them or later.
func TestASnapshotSkipsWhatOnlyTheBinlogHas(t *testing.T) {
	t.Parallel()
	for name, b := range withAndWithoutGTIDs(t) {
		const held, gone = 4, 1203
		from := b.confirmed(3)
		b.exec("DELETE FROM outbox")
		tx, err := b.db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		for range gone - 2 {
			require.NoError(t, schema.Insert(t.Context(), tx, schematest.Event()))
		}
		_, err = tx.ExecContext(t.Context(), "DELETE FROM outbox")
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
		b.commit(2)
		b.exec("DELETE FROM outbox")
		b.commit(held)
		b.exec("FLUSH BINARY LOGS")

		r := b.reader(binlog.StartLatest)
		compare := func(from relay.Position, within time.Duration) binlog.Difference {
			d, err := r.Compare(t.Context(), from, relay.Position{Snapshot: true}, within)
			require.NoError(t, err)
			require.Equal(t, binlog.Count{Rows: held}, d.Again)
			return d
		}
		require.Equal(t, binlog.Count{Rows: gone}, compare(from, time.Minute).Skipped, name)
		require.True(t, compare(from, time.Nanosecond).Skipped.AtLeast, "no time to count")
		require.True(t, compare(relay.Position{}, time.Minute).Skipped.AtLeast, "nobody knows what is confirmed")
		b.reset()
		require.True(t, compare(from, time.Minute).Skipped.AtLeast, "the binlog that had them is gone")
	}
}
