package e2e_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/schema/topology"
)

// maxPayload is far more than a customer's event needs.
const maxPayload = 4096

// unsendable are events that no message can be made of.
var unsendable = []func(*schema.Event){
	func(e *schema.Event) { e.Payload = []byte(`"` + strings.Repeat("x", maxPayload) + `"`) },
	func(e *schema.Event) { e.Type = strings.Repeat("ü", 150) }, // 300 bytes: a routing key has room for 255
	func(e *schema.Event) { e.Headers = map[string]string{"CC": "customer.CustomerCreated"} },
	func(e *schema.Event) { e.Headers = map[string]string{strings.Repeat("h", 256): "x"} },
}

// inapplicable are events that arrive and that the customer's profile has no use for.
var inapplicable = []func(*schema.Event){
	func(e *schema.Event) { e.Payload = []byte(`"no customer"`) },
	func(e *schema.Event) { e.Payload = []byte(`{"id":"another"}`) },
	func(e *schema.Event) {
		e.Payload = []byte(`{"id":"` + e.AggregateID + `","email":"a@example.com","name":"` + strings.Repeat("n", 201) + `"}`)
	},
}

// TestOnePercentPoisonLeavesTheRestInOrder: of all events one in a hundred is poison, half of it for the relay and half for the worker.
// Exactly the first are quarantined, exactly the second are dead letters, and the rest arrives in order.
func TestOnePercentPoisonLeavesTheRestInOrder(t *testing.T) {
	t.Parallel()
	w := setup(t, option{cdcEnv: []string{"ON_POISON=quarantine", "MAX_MESSAGE_BYTES=4096"}})
	audit := w.audit("#")
	const batch = 50
	unsent, unapplied := map[string]bool{}, map[string]bool{}
	var ring [10]schema.Event
	events := count(10_000)
	for from := 0; from < events; from += batch {
		rows := make([]schema.Event, batch)
		for i := range rows {
			n := from + i
			switch n % 200 {
			case 77:
				rows[i] = schematest.Event(unsendable[n/200%len(unsendable)])
				unsent[rows[i].ID] = true
			case 177:
				rows[i] = schematest.Event(inapplicable[n/200%len(inapplicable)])
				unapplied[rows[i].ID] = true
			default:
				ring[n%len(ring)] = follower(ring[n%len(ring)])
				rows[i] = ring[n%len(ring)]
			}
		}
		w.insertUnchecked(rows)
	}
	require.Equal(t, events/100, len(unsent)+len(unapplied))

	dead := topology.Customers(topology.CustomersQueue).DeadQueue()
	good := events - len(unsent) - len(unapplied)
	w.waitFor("all others in the inbox", 2*time.Minute, func() bool { return w.number("SELECT COUNT(*) FROM inbox") >= good })
	w.waitFor("the poison in its places", time.Minute, func() bool {
		return w.messages(dead) >= len(unapplied) && w.number("SELECT COUNT(*) FROM relay_quarantine") >= len(unsent)
	})
	require.ElementsMatch(t, slices.Collect(maps.Keys(unsent)), w.list("SELECT event_id FROM relay_quarantine"))
	require.ElementsMatch(t, slices.Collect(maps.Keys(unapplied)), w.drained(dead))
	require.Equal(t, good, w.number("SELECT COUNT(*) FROM inbox"))
	require.Equal(t, good, w.number("SELECT SUM(events_applied) FROM customer_profiles"), "each had its effect once")

	routed := audit.settled()
	require.Len(t, routed, events-len(unsent), "nothing was published twice")
	w.forget(unsent)
	w.firstDeliveriesFollowVersions(routed)
	require.Equal(t, "streaming", w.position().State)
	w.ready(w.cdc, w.worker)
}

// insertUnchecked inserts events in one transaction as a writer does that knows no limits: schema.Insert would refuse some.
func (w *world) insertUnchecked(events []schema.Event) {
	w.t.Helper()
	tx, err := w.db.BeginTx(w.t.Context(), nil)
	require.NoError(w.t, err)
	for i := range events {
		e := &events[i]
		headers, err := json.Marshal(e.Headers)
		require.NoError(w.t, err)
		if e.Headers == nil {
			headers = nil
		}
		_, err = tx.ExecContext(w.t.Context(), `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, type, payload,
			headers, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, NOW(6))`,
			e.ID, e.AggregateType, e.AggregateID, e.AggregateVersion, e.Type, string(e.Payload), headers)
		require.NoError(w.t, err)
	}
	require.NoError(w.t, tx.Commit())
}

// forget deletes events from the outbox table that no queue is expected to get.
func (w *world) forget(ids map[string]bool) {
	w.t.Helper()
	for id := range ids {
		_, err := w.db.ExecContext(w.t.Context(), "DELETE FROM outbox WHERE id = ?", id)
		require.NoError(w.t, err)
	}
}

// list is one column of text.
func (w *world) list(query string) (values []string) {
	w.t.Helper()
	rows, err := w.db.QueryContext(w.t.Context(), query)
	require.NoError(w.t, err)
	defer rows.Close()
	for rows.Next() {
		var value string
		require.NoError(w.t, rows.Scan(&value))
		values = append(values, value)
	}
	require.NoError(w.t, rows.Err())
	return values
}

// drained takes all messages of a queue and gives their ids.
func (w *world) drained(queue string) (ids []string) {
	w.t.Helper()
	ch := w.channel()
	for {
		m, ok, err := ch.Get(queue, true)
		require.NoError(w.t, err)
		if !ok {
			return ids
		}
		ids = append(ids, m.MessageId)
	}
}
