package consume_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

func TestStopUnderLoadLeavesNothingToBeDeliveredAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const customers, versions, stops = 60, 50, 6
	all := b.load(t, customers, versions)

	var applied, duplicates uint64
	for i := range stops {
		w := b.start(t, consume.Config{Concurrency: 4 + 2*i}, effect.Handlers())
		w.settled(t, "applied", customers*versions/(2*stops))
		require.NoError(t, w.stop())
		applied += w.Stats().Messages["applied"]
		duplicates += w.Stats().Messages["duplicate"]
		require.Equal(t, consume.StateStopped, w.Stats().State)
		require.Zero(t, w.Stats().InFlight)
	}
	last := b.start(t, consume.Config{}, effect.Handlers())
	for _, events := range all {
		b.applied(t, events)
	}
	require.NoError(t, last.stop())
	require.EqualValues(t, customers*versions, applied+last.Stats().Messages["applied"])
	require.Zero(t, duplicates+last.Stats().Messages["duplicate"])
	b.empty(t, b.queue.Queue)
}

func TestStopGivesBackWhatWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := customer(3)
	w := b.start(t, consume.Config{GapWait: time.Hour}, effect.Handlers())
	b.publish(t, events[1:]...)
	eventually(t, "two events wait", func() bool { return w.Stats().WaitingGaps == 2 })
	require.NoError(t, w.stop())

	b.start(t, consume.Config{}, effect.Handlers())
	b.publish(t, events[0])
	b.applied(t, events)
}

func TestStopFinishesWhatAHandlerHasInHand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := newGate()
	w := b.start(t, consume.Config{}, g.handlers())
	event := schematest.Event()
	b.publish(t, event)
	<-g.entered
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop() }()
	eventually(t, "draining", func() bool { return w.Stats().State == consume.StateDraining })
	close(g.leave)

	require.NoError(t, <-stopped)
	require.EqualValues(t, 1, w.Stats().Messages["applied"])
	b.empty(t, b.queue.Queue)
}

func TestStopGivesUpOnAHandlerThatTakesTooLong(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := newGate()
	w := b.start(t, consume.Config{ShutdownTimeout: 50 * time.Millisecond}, g.handlers())
	event := schematest.Event()
	b.publish(t, event)
	<-g.entered
	require.ErrorIs(t, w.stop(), consume.ErrShutdownTimeout)

	b.start(t, consume.Config{}, effect.Handlers())
	b.applied(t, []schema.Event{event})
}

func TestSecondWorkerTakesOverWhereTheFirstStopped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const customers, versions = 40, 25
	all := b.load(t, customers, versions)
	first := b.start(t, consume.Config{}, effect.Handlers())
	first.settled(t, "applied", 1)
	second := b.start(t, consume.Config{}, effect.Handlers())
	second.ready(t)
	require.NoError(t, first.stop())
	for _, events := range all {
		b.applied(t, events)
	}
	require.NoError(t, second.stop())
	require.EqualValues(t, customers*versions, first.Stats().Messages["applied"]+second.Stats().Messages["applied"])
	require.Zero(t, first.Stats().Messages["duplicate"]+second.Stats().Messages["duplicate"])
}

func TestStandbySaysSoAndIsReady(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.start(t, consume.Config{}, effect.Handlers())
	first.ready(t)
	require.Equal(t, consume.RoleIdle, first.Stats().Role, "no message has come")
	second := b.start(t, consume.Config{}, effect.Handlers())
	second.ready(t)
	eventually(t, "the second one stands by", func() bool {
		b.publish(t, schematest.Event())
		return second.Stats().Role == consume.RoleStandby
	})
	require.Equal(t, consume.RoleActive, first.Stats().Role)
	require.Empty(t, second.Unready())
	eventually(t, "the broker has told of the queues", func() bool { return second.Stats().Queued != nil && second.Stats().DeadLetters != nil })

	require.NoError(t, first.stop())
	require.Empty(t, first.Stats().Role)
	b.publish(t, schematest.Event())
	second.settled(t, "applied", 1)
	require.Equal(t, consume.RoleActive, second.Stats().Role)
}
