package e2e_test

import (
	"encoding/json"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/schema/topology"
)

// missed commits n events of a few customers while the relay is stopped, and purges them from the binlog.
func (w *world) missed(n int) {
	w.t.Helper()
	require.NoError(w.t, w.cdc.Process().Signal(syscall.SIGTERM))
	require.NoError(w.t, w.cdc.Process().Wait(w.t.Context()))
	customers := make([]string, 10)
	for i := range customers {
		customers[i] = schema.NewID()
	}
	var events []schema.Event
	for i := range n {
		version, kind := uint64(i/len(customers)+1), "CustomerUpdated"
		if version == 1 {
			kind = "CustomerCreated"
		}
		events = append(events, schematest.Event(func(e *schema.Event) {
			e.AggregateID, e.AggregateVersion, e.Type = customers[i%len(customers)], version, kind
		}))
		if len(events) == 50 || i == n-1 {
			require.NoError(w.t, insert(w.t.Context(), w.db, true, events...))
			events = nil
		}
	}
	w.purge()
}

// purge makes the server forget all of its binlog but the newest file.
func (w *world) purge() {
	w.t.Helper()
	w.waitFor("the purge", 30*time.Second, func() bool { // a dump thread of a relay that has ended may still hold a file for a moment
		_, err := w.db.ExecContext(w.t.Context(), "FLUSH BINARY LOGS")
		require.NoError(w.t, err)
		files := w.binlogs()
		_, err = w.db.ExecContext(w.t.Context(), "PURGE BINARY LOGS TO '"+files[len(files)-1]+"'")
		require.NoError(w.t, err)
		return len(w.binlogs()) == 1
	})
}

func (w *world) binlogs() (files []string) {
	w.t.Helper()
	rows, err := w.db.QueryContext(w.t.Context(), "SHOW BINARY LOGS")
	require.NoError(w.t, err)
	defer rows.Close()
	columns, err := rows.Columns()
	require.NoError(w.t, err)
	for rows.Next() {
		var file, other string
		into := []any{&file}
		for range columns[1:] {
			into = append(into, &other)
		}
		require.NoError(w.t, rows.Scan(into...))
		files = append(files, file)
	}
	require.NoError(w.t, rows.Err())
	return files
}

// TestAPurgedBinlogIsRepairedAndOldRowsAreDeleted: what the relay missed, and the binlog no longer has, comes from the outbox
// table, in order, whatever is killed meanwhile. Then retention empties the table, and nothing is missing.
func TestAPurgedBinlogIsRepairedAndOldRowsAreDeleted(t *testing.T) {
	t.Parallel()
	w := setup(t)
	audit := w.audit("#")
	_, err := w.post(t.Context(), 1)
	require.NoError(t, err)
	w.everythingOnce(1)

	const n = 1000
	w.missed(n)
	began := time.Now()
	w.start(w.cdc)
	w.settled(30 * time.Second)
	t.Logf("%d events were repaired and applied within %s", n, time.Since(began).Round(time.Millisecond))
	w.everythingOnce(1 + n)
	w.firstDeliveriesFollowVersions(audit.settled())
	w.tellsOfRepairs(1)

	// Killed in the middle of a repair: it begins again.
	w.missed(n)
	require.NoError(t, w.cdc.Start())
	w.waitFor("rows of the repair", 30*time.Second, func() bool {
		p := position{}
		return w.call(t.Context(), http.MethodGet, w.cdc.URL("/position"), "", http.StatusOK, &p) == nil && p.Totals.Published > 0
	})
	require.NoError(t, w.cdc.Process().Kill())
	w.start(w.cdc)
	w.everythingOnce(1 + 2*n)
	w.firstDeliveriesFollowVersions(audit.settled())

	// Told to halt at a gap it does, and says why.
	w.missed(10)
	w.cdc = w.service("cdc", "ON_GAP=halt", "RETENTION=off")
	began = time.Now()
	require.NoError(t, w.cdc.Start())
	w.waitFor("the halt", 30*time.Second, func() bool {
		p := position{}
		return w.call(t.Context(), http.MethodGet, w.cdc.URL("/position"), "", http.StatusOK, &p) == nil && p.State == "halted" && p.Reason == "binlog_purged"
	})
	require.Less(t, time.Since(began), 10*time.Second)
	require.ErrorContains(t, w.call(t.Context(), http.MethodGet, w.cdc.URL("/readyz"), "", http.StatusOK, nil), "binlog_purged")
	require.NoError(t, w.cdc.Process().Kill())

	w.cdc = w.service("cdc", "RETENTION=0")
	w.start(w.cdc)
	w.waitFor("an empty outbox", 30*time.Second, func() bool { return w.number("SELECT COUNT(*) FROM outbox") == 0 })
	w.waitFor("every event in the inbox", 30*time.Second, func() bool { return w.number("SELECT COUNT(*) FROM inbox") == 1+2*n+10 })
	require.Zero(t, w.messages(topology.Customers(topology.CustomersQueue).DeadQueue()))
	require.GreaterOrEqual(t, w.metric(w.cdc, "tailbox_relay_deleted_total"), 1+2*n+10)
}

// tellsOfRepairs compares what /position, the metric and the audit say of a repair.
func (w *world) tellsOfRepairs(repairs int) {
	w.t.Helper()
	var p struct {
		Totals struct{ Repaired int }
		Repair struct {
			Reason, Since, At string
			Rows              int
		}
	}
	require.NoError(w.t, w.call(w.t.Context(), http.MethodGet, w.cdc.URL("/position"), "", http.StatusOK, &p))
	require.Equal(w.t, "binlog_purged", p.Repair.Reason)
	require.NotEmpty(w.t, p.Repair.Since)
	require.NotEmpty(w.t, p.Repair.At)
	require.GreaterOrEqual(w.t, p.Repair.Rows, 1000)
	require.Equal(w.t, p.Repair.Rows, p.Totals.Repaired)
	require.Equal(w.t, p.Repair.Rows, w.metric(w.cdc, `tailbox_relay_events_total{stage="repaired"}`))

	require.Equal(w.t, repairs, w.number("SELECT COUNT(*) FROM relay_audit WHERE action = 'repair'"))
	var text string
	require.NoError(w.t, w.db.QueryRowContext(w.t.Context(), "SELECT after_state FROM relay_audit WHERE action = 'repair' ORDER BY id DESC LIMIT 1").Scan(&text))
	var after struct{ Rows int }
	require.NoError(w.t, json.Unmarshal([]byte(text), &after))
	require.Equal(w.t, p.Repair.Rows, after.Rows)
	require.Contains(w.t, w.printed("cdc"), "the gap is repaired")
}
