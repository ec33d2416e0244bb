package consume_test

import (
	"context"
	"database/sql"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

// scaled is a tenth of a count, or all of it with COUNT=full.
func scaled(count int) int {
	if os.Getenv("COUNT") == "full" {
		return count
	}
	return count / 10
}

// wrap puts a function before each handler.
func wrap(handlers map[string]consume.Handler, before func(tx *sql.Tx, event schema.Event)) map[string]consume.Handler {
	for kind, handler := range handlers {
		handlers[kind] = func(ctx context.Context, tx *sql.Tx, event schema.Event) error {
			before(tx, event)
			return handler(ctx, tx, event)
		}
	}
	return handlers
}

func TestWaitingEventsShareATransaction(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ batch, most int }{"batch of one": {1, 1}, "batch of eight": {8, 8}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			const customers, versions = 20, 10
			var mu sync.Mutex
			sizes := map[*sql.Tx]int{}
			first, queued := make(chan struct{}), make(chan struct{})
			var once sync.Once
			handlers := wrap(effect.Handlers(), func(tx *sql.Tx, _ schema.Event) {
				once.Do(func() { close(first); <-queued })
				mu.Lock()
				defer mu.Unlock()
				sizes[tx]++
			})
			w := b.start(t, consume.Config{Concurrency: 1, Batch: c.batch}, handlers)
			b.publish(t, schematest.Event())
			<-first
			all := b.load(t, customers, versions)
			eventually(t, "a backlog in memory", func() bool { return w.Stats().InFlight == 1+customers*versions })
			close(queued)

			for _, events := range all {
				b.applied(t, events)
			}
			require.NoError(t, w.stop())
			mu.Lock()
			defer mu.Unlock()
			largest := 0
			for _, size := range sizes {
				largest = max(largest, size)
			}
			require.Equal(t, c.most, largest)
			require.Len(t, sizes, 1+customers*versions/c.batch)
			require.EqualValues(t, 1+customers*versions, w.Stats().Messages["applied"])
		})
	}
}

func TestPoisonCostsOnlyItself(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const customers = 100
	versions := scaled(10_000) / customers
	all := make([][]schema.Event, customers)
	for i := range all {
		all[i] = customer(versions)
	}
	injected := map[string]bool{}
	for version := range versions {
		for i, events := range all {
			b.publish(t, events[version])
			if (version*customers+i)%100 == 7 { // of a customer of its own: nothing follows it
				poison := schematest.Event(func(e *schema.Event) { e.Payload = []byte(`{"id":"somebody else"}`) })
				injected[poison.ID] = true
				b.publish(t, poison)
			}
		}
	}
	var mu sync.Mutex
	order := map[string][]uint64{}
	w := b.start(t, consume.Config{}, wrap(effect.Handlers(), func(_ *sql.Tx, e schema.Event) {
		mu.Lock()
		defer mu.Unlock()
		order[e.AggregateID] = append(order[e.AggregateID], e.AggregateVersion)
	}))
	for _, events := range all {
		b.applied(t, events)
	}
	for id := range b.dead(t, len(injected)) {
		require.True(t, injected[id])
	}
	require.NoError(t, w.stop())
	got := w.Stats().Messages
	require.EqualValues(t, customers*versions, got["applied"])
	require.EqualValues(t, len(injected), got["dead"])
	require.Zero(t, got["duplicate"]+got["retried"])
	require.Equal(t, customers*versions, b.count(t, "inbox"))
	b.empty(t, b.queue.Queue)
	for _, events := range all {
		requireInOrder(t, order[events[0].AggregateID])
	}
}

// requireInOrder allows a version to be tried again after its batch was rolled back, and nothing to be tried too early.
func requireInOrder(t *testing.T, tried []uint64) {
	t.Helper()
	next := uint64(1)
	for _, version := range tried {
		require.LessOrEqual(t, version, next)
		next = max(next, version+1)
	}
}
