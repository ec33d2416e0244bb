package consume_test

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

func TestEachEventIsAppliedOnceWhenAllArriveThreeTimesInAnyOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const customers, versions = 12, 10
	var all [][]schema.Event
	for i := range customers {
		events := customer(versions)
		all = append(all, events)
		b.publish(t, shuffled(slices.Concat(events, events, events), uint64(i))...)
	}
	w := b.start(t, consume.Config{}, effect.Handlers())

	for _, events := range all {
		b.applied(t, events)
	}
	w.settled(t, "duplicate", 2*customers*versions)
	require.NoError(t, w.stop())
	got := w.Stats().Messages
	require.EqualValues(t, customers*versions, got["applied"])
	require.EqualValues(t, 2*customers*versions, got["duplicate"])
	require.Zero(t, got["dead"])
	require.Equal(t, customers*versions, b.count(t, "inbox"))
	b.empty(t, b.queue.Queue)
}

func TestEventThatCameTooEarlyWaitsForThoseBeforeIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.start(t, consume.Config{GapWait: time.Hour}, effect.Handlers())
	events := customer(4)

	b.publish(t, events[3], events[1], events[2])
	eventually(t, "three events wait", func() bool { return w.Stats().WaitingGaps == 3 })
	require.Zero(t, b.profile(t, events[0].AggregateID).version)

	b.publish(t, events[0])
	b.applied(t, events)
	w.settled(t, "applied", 4)
	require.Zero(t, w.Stats().Messages["retried"], "nothing left the worker's memory")
	require.Zero(t, w.Stats().WaitingGaps)
	eventually(t, "nothing is in flight", func() bool { return w.Stats().InFlight == 0 })
}

func TestEventThatWaitsTooLongGoesToTheRetryQueue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.start(t, consume.Config{GapWait: time.Millisecond}, effect.Handlers())
	events := customer(3)

	b.publish(t, events[1], events[2])
	w.settled(t, "retried", 2)
	require.Zero(t, w.Stats().InFlight, "it holds no place of the prefetch")
	b.publish(t, events[0])
	b.applied(t, events)
}

func TestLaterEventsThatFillThePrefetchLetTheFirstOnePass(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := customer(21)
	b.publish(t, events[1:]...)
	b.publish(t, events[0])

	w := b.start(t, consume.Config{Prefetch: 4, GapWait: time.Hour}, effect.Handlers())
	b.applied(t, events)
	require.Zero(t, w.Stats().Messages["dead"])
}

func TestGettingAheadCountsAttemptsAnew(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := customer(8)
	backwards := slices.Clone(events)
	slices.Reverse(backwards)
	b.publish(t, backwards...)

	// Each turn through the retry queue applies two events or so; there are more turns than attempts.
	w := b.start(t, consume.Config{Prefetch: 2, MaxAttempts: 2, GapWait: time.Hour}, effect.Handlers())
	b.applied(t, events)
	require.Zero(t, w.Stats().Messages["dead"])
}

func TestEventWithoutPredecessorEndsAsDeadLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start(t, consume.Config{MaxAttempts: 2, GapWait: time.Millisecond}, effect.Handlers())
	events := customer(2)
	b.publish(t, events[1])

	letter := b.dead(t, 1)[events[1].ID]
	require.Equal(t, "gap: version 1 has not been applied", letter.Headers[consume.HeaderError])
	require.EqualValues(t, 2, letter.Headers[consume.HeaderAttempts])
}

func TestEventsWithoutVersionsAreAppliedAsTheyCome(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.start(t, consume.Config{}, effect.Handlers())
	events := customer(3)
	for i := range events {
		events[i].AggregateVersion = 0
	}
	b.publish(t, events...)
	w.settled(t, "applied", 3)
	require.EqualValues(t, 3, b.profile(t, events[0].AggregateID).applied)
}

// breaking are handlers that fail for one event that came in order, until it is repaired.
func breaking(id string) (handlers map[string]consume.Handler, repaired *atomic.Bool, broken *atomic.Int64) {
	repaired, broken = &atomic.Bool{}, &atomic.Int64{}
	handlers = effect.Handlers()
	for kind, handler := range handlers {
		handlers[kind] = func(ctx context.Context, tx *sql.Tx, event schema.Event) error {
			if err := handler(ctx, tx, event); err != nil || event.ID != id || repaired.Load() {
				return err
			}
			broken.Add(1)
			return errors.New("broken")
		}
	}
	return handlers, repaired, broken
}

func TestEventsThatWaitGoOnBehindOneThatFailedOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := customer(6)
	handlers, repaired, broken := breaking(events[2].ID)
	w := b.start(t, consume.Config{GapWait: patience}, handlers)
	b.publish(t, events[0])
	w.settled(t, "applied", 1)
	b.publish(t, events[2:]...)
	eventually(t, "four events wait", func() bool { return w.Stats().WaitingGaps == 4 })

	b.publish(t, events[1])
	w.settled(t, "retried", 1)
	repaired.Store(true)
	b.applied(t, events)
	w.settled(t, "applied", 6)
	require.LessOrEqual(t, w.Stats().Messages["retried"], uint64(broken.Load()), "those behind it waited for it and for nothing before it")
}

func TestEventsThatWaitFollowTheOneThatDiesBeforeThem(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := customer(6)
	handlers, _, _ := breaking(events[2].ID)
	w := b.start(t, consume.Config{GapWait: patience, MaxAttempts: 1}, handlers)
	b.publish(t, events[0])
	w.settled(t, "applied", 1)
	b.publish(t, events[2:]...)
	eventually(t, "four events wait", func() bool { return w.Stats().WaitingGaps == 4 })

	b.publish(t, events[1])
	w.settled(t, "dead", 4)
	letters, _, err := w.DeadLetters(t.Context(), 10)
	require.NoError(t, err)
	require.Len(t, letters, 4)
	for i, letter := range letters {
		require.Equal(t, events[2+i].ID, letter.MessageID)
		require.Equal(t, i > 0, letter.BlockedBy == events[2].ID, "blocked by %q", letter.BlockedBy)
	}
}
