package consume_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

func TestDroppedEventFreesWhatFollowsIt(t *testing.T) {
	t.Parallel()
	for name, versioned := range map[string]bool{"with versions": true, "without versions": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			events := customer(5)
			for i := range events {
				if !versioned {
					events[i].AggregateVersion = 0
				}
			}
			r := &refusing{id: events[1].ID}
			cfg := consume.Config{MaxAttempts: 1, Drop: effect.Drop}
			w := b.start(t, cfg, r.handlers())
			b.publish(t, events[0])
			w.settled(t, "applied", 1)
			b.publish(t, events[1:4]...)
			w.settled(t, "dead", 3)
			require.NoError(t, w.stop())
			done, err := w.Drop(t.Context(), events[1].ID)
			require.NoError(t, err)
			require.Equal(t, consume.Dropped{Dropped: 1, Redriven: 2}, done)

			r.repaired.Store(true) // too late
			w = b.start(t, cfg, r.handlers())
			w.settled(t, "applied", 2)
			require.NoError(t, w.stop())
			require.EqualValues(t, 1, w.Stats().Messages["dropped"])
			require.Zero(t, b.count(t, "blocked_aggregates"))

			w = b.start(t, cfg, r.handlers()) // a restart does not forget
			b.publish(t, events[1])           // nor is a copy taken for something new
			b.publish(t, events[4])
			w.settled(t, "duplicate", 1)
			w.settled(t, "applied", 1)
			require.NoError(t, w.stop())
			require.Equal(t, []string{events[0].ID, events[2].ID, events[3].ID, events[4].ID}, r.applied)
			got := b.profile(t, events[0].AggregateID)
			require.Equal(t, events[4].AggregateVersion, got.version)
			require.EqualValues(t, 4, got.applied)
			b.empty(t, b.queue.DeadQueue())
			_, err = w.Drop(t.Context(), events[1].ID)
			require.ErrorIs(t, err, consume.ErrNoDeadLetter)
		})
	}
}

func TestEventThatCannotBeReadCanBeDropped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := customer(3)
	w := b.start(t, consume.Config{Drop: effect.Drop}, effect.Handlers())
	torn := message(events[0])
	torn.Body = []byte(`{`)
	delete(torn.Headers, schema.HeaderCreatedAt)
	torn.Type = "CustomerWed"
	b.send(t, torn)
	b.publish(t, events[1:]...)
	w.settled(t, "dead", 3)

	done, err := w.Drop(t.Context(), events[0].ID)
	require.NoError(t, err)
	require.Equal(t, consume.Dropped{Dropped: 1, Redriven: 2}, done)
	w.settled(t, "applied", 2)
	require.EqualValues(t, 3, b.profile(t, events[0].AggregateID).version)
	require.Zero(t, b.count(t, "blocked_aggregates"))
}

func TestFollowerCanBeDroppedBeforeTheOneItFollows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := customer(3)
	r := &refusing{id: events[0].ID}
	w := b.start(t, consume.Config{MaxAttempts: 1, Drop: effect.Drop}, r.handlers())
	b.publish(t, events...)
	w.settled(t, "dead", 3)
	_, err := w.Drop(t.Context(), events[1].ID)
	require.NoError(t, err)
	w.settled(t, "dropped", 1)
	require.Equal(t, 2, b.count(t, "blocked_aggregates"), "the first one goes on blocking, and the third its followers")

	r.repaired.Store(true)
	_, err = w.Redrive(t.Context(), events[0].ID)
	require.NoError(t, err)
	w.settled(t, "applied", 2)
	got := b.profile(t, events[0].AggregateID)
	require.EqualValues(t, 3, got.version)
	require.EqualValues(t, 2, got.applied)
}

func TestEventUnderAReusedIDCanBeDropped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.start(t, consume.Config{Drop: effect.Drop}, effect.Handlers())
	first := schematest.Event()
	other := customer(2)
	other[0].ID = first.ID
	b.publish(t, first)
	w.settled(t, "applied", 1)
	b.publish(t, other...)
	w.settled(t, "dead", 2)

	_, err := w.Drop(t.Context(), first.ID)
	require.NoError(t, err)
	w.settled(t, "applied", 2)
	w.settled(t, "dropped", 1)
	require.EqualValues(t, 2, b.profile(t, other[0].AggregateID).version)
	require.EqualValues(t, 1, b.profile(t, first.AggregateID).applied)
}

func TestEventsThatWaitInMemoryGoOnWhenTheMissingOneIsDropped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := customer(4)
	w := b.start(t, consume.Config{GapWait: patience, Drop: effect.Drop}, effect.Handlers())
	b.publish(t, events[0], events[3])
	eventually(t, "one waits", func() bool { return w.Stats().WaitingGaps == 1 })
	for i, e := range []schema.Event{events[2], events[1]} { // the first of them need not wait for the second
		given := message(e)
		given.Headers[consume.HeaderDropped] = true
		b.send(t, given)
		w.settled(t, "dropped", i+1)
	}
	w.settled(t, "applied", 2)
	require.EqualValues(t, 4, b.profile(t, events[0].AggregateID).version)
}

func TestDroppedEventIsNotAppliedTogetherWithOthers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := customer(3)
	given := message(events[1]) // of an aggregate that nothing blocks, as one is that was older than the inbox remembers
	given.Headers[consume.HeaderDropped] = true
	b.send(t, message(events[0]), given, message(events[2]))
	w := b.start(t, consume.Config{Drop: effect.Drop}, effect.Handlers())
	w.settled(t, "applied", 2)
	require.NoError(t, w.stop())
	require.EqualValues(t, 1, w.Stats().Messages["dropped"])
	require.EqualValues(t, 2, b.profile(t, events[0].AggregateID).applied)
}
