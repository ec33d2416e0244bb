package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAMillionRowsInOneTransaction: the relay passes them in little memory, and when it is killed in the middle it sends
// again what was published and not saved, no more. That holds for a transaction that the server compressed, too, which is
// harder, so by default only that is run.
func TestAMillionRowsInOneTransaction(t *testing.T) {
	t.Parallel()
	t.Run("compressed", func(t *testing.T) {
		t.Parallel()
		manyRows(t, "--loose-binlog-transaction-compression=ON", "--loose-log-bin-compress=ON")
	})
	if full() {
		t.Run("plain", func(t *testing.T) {
			t.Parallel()
			manyRows(t)
		})
	}
}

func manyRows(t *testing.T, options ...string) {
	w := setup(t, option{noStart: true, mysql: options, cdcEnv: []string{"CHECKPOINT_INTERVAL=20ms"}})
	bulk := w.audit("bulk.*")
	w.start(w.cdc)

	rows := w.insertMany(1_000_000)
	w.waitFor("a checkpoint inside of the transaction", 2*time.Minute, func() bool { return w.position().Checkpoint.SkipRows > rows/3 })
	require.Less(t, w.peak(w.cdc.Process().Pid()), 256<<20, "bytes of memory")
	require.NoError(t, w.cdc.Process().Kill())
	saved := w.number("SELECT JSON_EXTRACT(position, '$.skip_rows') FROM relay_checkpoint")
	published := len(bulk.settled())
	require.Less(t, published, rows, "the kill was in the middle")

	w.start(w.cdc)
	w.waitFor("all rows to be confirmed", 5*time.Minute, func() bool { return w.position().Totals.Confirmed == rows-saved })
	require.Less(t, w.peak(w.cdc.Process().Pid()), 256<<20, "bytes of memory")
	ids := bulk.settled()
	require.Len(t, ids, rows+published-saved, "what was published and not saved came twice, and nothing else")
	require.Less(t, published-saved, 10*1000, "a few windows at the most")
	next := 0
	for i, id := range ids {
		if i == published {
			next = saved
		}
		require.Equal(t, bulkID(next), id)
		next++
	}
}

// insertMany commits rows in one transaction: n with COUNT=full, else a tenth.
func (w *world) insertMany(n int) int {
	w.t.Helper()
	digits := []string{"a", "b", "c", "d", "e"}
	if full() {
		digits = append(digits, "f")
	} else {
		n /= 10
	}
	number, tables := "0", []string{}
	for _, d := range digits {
		number = fmt.Sprintf("(%s) * 10 + %s.n", number, d)
		tables = append(tables, "digits "+d)
	}
	for _, statement := range []string{
		"CREATE TABLE digits (n INT PRIMARY KEY)",
		"INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)",
		fmt.Sprintf(`INSERT INTO outbox SELECT CONCAT('00000000-0000-7000-8000-', LPAD(%[1]s, 12, '0')), 'bulk', '1', %[1]s + 1, 'Bulk',
			CONCAT('{"n":', %[1]s, ',"text":"', REPEAT('x', 300), '"}'), NULL, UTC_TIMESTAMP(6) FROM %[2]s ORDER BY %[1]s`, number, strings.Join(tables, ", ")),
	} {
		_, err := w.db.ExecContext(w.t.Context(), statement)
		require.NoError(w.t, err)
	}
	require.Equal(w.t, n, w.number("SELECT COUNT(*) FROM outbox"))
	return n
}

func bulkID(n int) string { return fmt.Sprintf("00000000-0000-7000-8000-%012d", n) }

// peak is the most memory that a process has had resident so far, in bytes.
func (w *world) peak(pid int) int {
	w.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(w.t, err)
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			var kib int
			_, err := fmt.Sscan(text, &kib)
			require.NoError(w.t, err)
			w.t.Logf("the relay had %d MiB at most", kib>>10)
			return kib << 10
		}
	}
	w.t.Fatal("the system does not say how much memory a process has had")
	return 0
}
