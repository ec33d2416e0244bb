package consume_test

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

// refusing are handlers that fail for one event until it is repaired, and note in which order events were applied.
type refusing struct {
	id       string
	repaired atomic.Bool
	mu       sync.Mutex
	applied  []string
}

func (r *refusing) handlers() map[string]consume.Handler {
	handlers := effect.Handlers()
	for kind, handler := range handlers {
		handlers[kind] = func(ctx context.Context, tx *sql.Tx, event schema.Event) error {
			if event.ID == r.id && !r.repaired.Load() {
				return errors.New("broken")
			}
			if err := handler(ctx, tx, event); err != nil {
				return err
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.applied = append(r.applied, event.ID)
			return nil
		}
	}
	return handlers
}

func TestLaterEventsFollowADeadOneUntilItIsRedriven(t *testing.T) {
	t.Parallel()
	for name, versioned := range map[string]bool{"with versions": true, "without versions": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			events, other := customer(5), customer(5)
			for i := range events {
				if !versioned {
					events[i].AggregateVersion = 0
				}
			}
			r := &refusing{id: events[1].ID}
			cfg := consume.Config{MaxAttempts: 1, Batch: 1} // the note of what was applied knows no rollback
			w := b.start(t, cfg, r.handlers())
			b.publish(t, events[:3]...)
			w.settled(t, "dead", 2)
			require.NoError(t, w.stop())

			w = b.start(t, cfg, r.handlers()) // a restart does not forget
			b.publish(t, events[0])           // nor does it take what was applied for something that follows
			b.publish(t, other...)
			b.publish(t, events[3:]...)
			b.applied(t, other)
			w.settled(t, "dead", 2)
			w.settled(t, "duplicate", 1)
			letters, _, err := w.DeadLetters(t.Context(), 10)
			require.NoError(t, err)
			require.Len(t, letters, 4)
			for i, letter := range letters {
				require.Equal(t, events[1+i].ID, letter.MessageID)
				if i == 0 {
					require.Empty(t, letter.BlockedBy)
				} else {
					require.Equal(t, events[1].ID, letter.BlockedBy)
					require.Equal(t, "blocked", letter.Reason)
				}
			}

			r.repaired.Store(true)
			done, err := w.Redrive(t.Context(), events[1].ID)
			require.NoError(t, err)
			require.Equal(t, consume.Redriven{Redriven: 4}, done)
			w.settled(t, "applied", 5+4)
			require.NoError(t, w.stop())
			requireSequence(t, r.applied, events)
			require.EqualValues(t, 5, b.profile(t, events[0].AggregateID).applied)
			require.Zero(t, b.count(t, "blocked_aggregates"))
			b.empty(t, b.queue.DeadQueue())
		})
	}
}

// requireSequence requires that these events were applied in this order, whatever was applied between them.
func requireSequence(t *testing.T, applied []string, events []schema.Event) {
	t.Helper()
	next := 0
	for _, id := range applied {
		if next < len(events) && id == events[next].ID {
			next++
		}
	}
	require.Len(t, events, next)
}

func TestEarlierEventsPassADeadOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := customer(3)
	r := &refusing{id: events[1].ID}
	w := b.start(t, consume.Config{MaxAttempts: 1}, r.handlers())
	b.publish(t, events[1])
	w.settled(t, "dead", 1)
	b.publish(t, events[0], events[2])
	b.applied(t, events[:1])
	w.settled(t, "dead", 2)

	r.repaired.Store(true)
	_, err := w.Redrive(t.Context(), "")
	require.NoError(t, err)
	b.applied(t, events)
}

func TestEventThatCannotBeReadBlocksItsAggregate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := customer(2)
	w := b.start(t, consume.Config{}, effect.Handlers())
	mended := message(events[0])
	torn := mended
	torn.Body = []byte(`{`)
	b.send(t, torn)
	b.publish(t, events[1])
	w.settled(t, "dead", 2)
	require.Equal(t, 2, b.count(t, "blocked_aggregates"))

	b.send(t, mended) // the same event, under the same id
	b.applied(t, events[:1])
	require.Equal(t, 1, b.count(t, "blocked_aggregates"), "what followed it is not applied yet")
	_, err := w.Redrive(t.Context(), events[1].ID)
	require.NoError(t, err)
	b.applied(t, events)
	require.Zero(t, b.count(t, "blocked_aggregates"))
}

func TestNoMessageCanHoldUpTheOthersByWhatItIsCalled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	longest := strings.Repeat("i", 255) // as AMQP allows
	names := map[string]string{"\xff": "a", "\xf0\x9f": "b", longest: "c", "\x00": "d", "\U0010ffff": strings.Repeat("\xff", 2000)}
	for id, aggregate := range names {
		torn := message(schematest.Event())
		torn.MessageId, torn.Body = id, []byte(`{`)
		torn.Headers[schema.HeaderAggregateID] = aggregate
		torn.Headers[schema.HeaderAggregateVersion] = int64(math.MaxInt64)
		b.send(t, torn)
	}
	w := b.start(t, consume.Config{Concurrency: 1}, effect.Handlers())
	events := customer(2)
	b.publish(t, events...)
	b.applied(t, events)
	require.Len(t, b.dead(t, len(names)), len(names))
	require.Equal(t, 3, b.count(t, "blocked_aggregates"), "an id that no row can hold blocks nothing")
	require.Empty(t, w.Unready())
}

func TestEventsThatWaitTogetherFollowADeadOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := customer(6)
	for i := range events {
		events[i].AggregateVersion = 0
	}
	r := &refusing{id: events[0].ID}
	blocker := customer(1)
	first, queued := make(chan struct{}), make(chan struct{})
	handlers := wrap(r.handlers(), func(_ *sql.Tx, e schema.Event) {
		if e.ID == blocker[0].ID {
			close(first)
			<-queued
		}
	})
	w := b.start(t, consume.Config{MaxAttempts: 1, Concurrency: 1}, handlers)
	b.publish(t, events[0])
	w.settled(t, "dead", 1)
	b.publish(t, blocker[0])
	<-first
	b.publish(t, events[1:]...)
	eventually(t, "a backlog in memory", func() bool { return w.Stats().InFlight == 6 })
	close(queued)
	w.settled(t, "dead", 6)
	require.EqualValues(t, 1, w.Stats().Messages["applied"], "the one that is not of this aggregate")

	r.repaired.Store(true)
	_, err := w.Redrive(t.Context(), "")
	require.NoError(t, err)
	w.settled(t, "applied", 7)
	require.EqualValues(t, 6, b.profile(t, events[0].AggregateID).applied)
}
