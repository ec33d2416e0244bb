package consume_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

// age makes everything that the inbox has look so much older, and its horizon with it.
func (b *bundle) age(t *testing.T, days int) {
	t.Helper()
	_, err := b.db.ExecContext(t.Context(), "UPDATE inbox SET processed_at = processed_at - INTERVAL ? DAY", days)
	require.NoError(t, err)
}

// aged is the first events of a customer, created so many days ago.
func aged(days, events int) []schema.Event {
	all := customer(events)
	for i := range all {
		all[i].CreatedAt = all[i].CreatedAt.AddDate(0, 0, -days)
	}
	return all
}

// pruned runs a worker until the inbox has lost its old rows.
func (b *bundle) pruned(t *testing.T) {
	t.Helper()
	w := b.start(t, consume.Config{}, effect.Handlers())
	eventually(t, "the inbox is pruned", func() bool { return b.count(t, "inbox") == 0 })
	require.NoError(t, w.stop())
}

func TestSeveralWorkersPruneTheInboxWhileEventsAreHandled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const customers, versions, rows, workers = 20, 10, 3000, 3
	_, err := b.db.ExecContext(t.Context(), `INSERT INTO inbox SELECT 'customers', CONCAT('old', a.n * 100 + b.n), REPEAT('x', 32), UTC_TIMESTAMP(6) - INTERVAL 31 DAY
		FROM (WITH RECURSIVE s AS (SELECT 0 n UNION ALL SELECT n + 1 FROM s WHERE n < 29) SELECT n FROM s) a
		JOIN (WITH RECURSIVE s AS (SELECT 0 n UNION ALL SELECT n + 1 FROM s WHERE n < 99) SELECT n FROM s) b`)
	require.NoError(t, err)
	require.Equal(t, rows, b.count(t, "inbox"))
	all := b.load(t, customers, versions)

	var registries [workers]*prometheus.Registry
	for i := range registries {
		registries[i] = prometheus.NewRegistry()
		b.start(t, consume.Config{Metrics: registries[i]}, effect.Handlers())
	}
	for _, events := range all {
		b.applied(t, events)
	}
	eventually(t, "only what was applied now is left", func() bool { return b.count(t, "inbox") == customers*versions })
	require.Equal(t, 1, b.count(t, "inbox_horizon"))
	eventually(t, "pruned rows are counted", func() bool { return pruned(t, registries[:]) == rows })
}

// pruned is how many rows of the inbox some workers have deleted.
func pruned(t *testing.T, registries []*prometheus.Registry) (sum int) {
	t.Helper()
	for _, registry := range registries {
		families, err := registry.Gather()
		require.NoError(t, err)
		for _, family := range families {
			if family.GetName() == "tailbox_worker_inbox_pruned_total" {
				sum += int(family.GetMetric()[0].GetCounter().GetValue())
			}
		}
	}
	return sum
}

func TestKeptInboxIsNotPruned(t *testing.T) {
	t.Parallel()
	b := setup(t)
	event := schematest.Event()
	w := b.start(t, consume.Config{InboxRetention: consume.KeepInbox}, effect.Handlers())
	b.publish(t, event)
	w.settled(t, "applied", 1)
	b.age(t, 1000)
	require.NoError(t, w.stop())
	w = b.start(t, consume.Config{InboxRetention: consume.KeepInbox}, effect.Handlers())
	b.publish(t, event)
	w.settled(t, "duplicate", 1)
}

// counting are handlers that know nothing of versions and count how often an event was applied.
func (b *bundle) counting(t *testing.T) map[string]consume.Handler {
	t.Helper()
	_, err := b.db.ExecContext(t.Context(), "CREATE TABLE IF NOT EXISTS effects (event_id VARCHAR(255) NOT NULL)")
	require.NoError(t, err)
	handler := func(ctx context.Context, tx *sql.Tx, event schema.Event) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO effects VALUES (?)", event.ID)
		return err
	}
	return map[string]consume.Handler{effect.CustomerCreated: handler, effect.CustomerUpdated: handler}
}

func TestEventOlderThanTheInboxRemembersIsNotAppliedAgainInSilence(t *testing.T) {
	t.Parallel()
	b := setup(t)
	handlers := b.counting(t)
	events := aged(40, 3)
	w := b.start(t, consume.Config{}, handlers)
	b.publish(t, events[:2]...)
	w.settled(t, "applied", 2) // however old: nothing was pruned yet
	require.NoError(t, w.stop())
	b.age(t, 40)
	b.pruned(t)

	w = b.start(t, consume.Config{}, handlers)
	b.publish(t, events[0], events[1])
	w.settled(t, "dead", 2)
	b.publish(t, schematest.Event(func(e *schema.Event) { e.AggregateID = events[0].AggregateID }))
	w.settled(t, "applied", 1)
	require.Zero(t, b.count(t, "blocked_aggregates"), "most likely they were applied: nothing has to wait for them")
	letters, _, err := w.DeadLetters(t.Context(), 10)
	require.NoError(t, err)
	require.Equal(t, "older_than_inbox", letters[0].Reason)
	require.Equal(t, 3, b.count(t, "effects"))

	_, err = w.Redrive(t.Context(), "")
	require.NoError(t, err)
	w.settled(t, "dead", 4)
	_, err = w.RedriveOld(t.Context(), events[0].ID) // whoever says so has to know
	require.NoError(t, err)
	w.settled(t, "applied", 2)
	require.Equal(t, 4, b.count(t, "effects"))
}

func TestVersionsTellOfEventsThatTheInboxHasForgotten(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := consume.Config{ChecksVersions: true}
	events := aged(40, 5)
	w := b.start(t, cfg, effect.Handlers())
	b.publish(t, events[:3]...)
	b.applied(t, events[:3])
	require.NoError(t, w.stop())
	b.age(t, 40)
	b.pruned(t)

	w = b.start(t, cfg, effect.Handlers())
	b.publish(t, events...) // all of them again, and two that were never applied
	b.applied(t, events)
	require.NoError(t, w.stop())
	require.Equal(t, map[string]uint64{"applied": 2, "duplicate": 3, "retried": 0, "dead": 0, "dropped": 0}, w.Stats().Messages)
}

func TestDeadEventThatBlocksIsRedrivenAtAnyAge(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events, other := aged(40, 1), aged(40, 1)
	handlers := b.counting(t)
	counted := handlers[effect.CustomerCreated]
	broken := true
	handlers[effect.CustomerCreated] = func(ctx context.Context, tx *sql.Tx, event schema.Event) error {
		if event.ID == events[0].ID && broken {
			return errBadAddress{}
		}
		return counted(ctx, tx, event)
	}
	w := b.start(t, consume.Config{}, handlers)
	b.publish(t, events[0], other[0])
	w.settled(t, "dead", 1)
	w.settled(t, "applied", 1)
	require.NoError(t, w.stop())
	b.age(t, 40)
	b.pruned(t)

	broken = false // no worker runs
	w = b.start(t, consume.Config{}, handlers)
	_, err := w.Redrive(t.Context(), events[0].ID)
	require.NoError(t, err)
	w.settled(t, "applied", 1)
	require.Equal(t, 2, b.count(t, "effects"))
}
