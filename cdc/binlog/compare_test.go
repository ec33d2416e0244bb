package binlog_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
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
