package consume

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"tailbox/schema"
)

func waiter(id string, version uint64, since time.Time) *message {
	return &message{event: schema.Event{AggregateType: "customer", AggregateID: id, AggregateVersion: version}, since: since}
}

func TestWaitingEventsAreTakenInOrderOfVersion(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var count atomic.Int64
		g := newGaps(&count)
		model := map[string][]uint64{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "id")
			key := waiter(id, 0, time.Time{}).key()
			var took *message
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1:
				version := rapid.Uint64Range(1, 9).Draw(t, "version")
				g.add(waiter(id, version, time.Time{}), 1)
				model[id] = append(model[id], version)
				continue
			case 2:
				took = g.takeFirst(key)
			case 3:
				took = g.takeLast(key)
			}
			if len(model[id]) == 0 {
				require.Nil(t, took)
				require.Zero(t, g.missing(key))
				continue
			}
			model[id] = without(model[id], took.event.AggregateVersion)
		}
		left := 0
		for id, versions := range model {
			left += len(versions)
			previous := uint64(0)
			key := waiter(id, 0, time.Time{}).key()
			for range versions {
				next := g.takeFirst(key)
				require.GreaterOrEqual(t, next.event.AggregateVersion, previous)
				previous = next.event.AggregateVersion
			}
			require.Nil(t, g.takeFirst(key))
		}
		require.Zero(t, count.Load())
		require.Empty(t, g.byKey, "nothing is kept for an aggregate of which nothing waits")
	})
}

func without(versions []uint64, version uint64) []uint64 {
	for i, v := range versions {
		if v == version {
			return append(versions[:i:i], versions[i+1:]...)
		}
	}
	panic("took what was not there")
}

func TestOverdueAreThoseThatWaitLongest(t *testing.T) {
	t.Parallel()
	var count atomic.Int64
	g := newGaps(&count)
	start := time.Now()
	_, some := g.oldest()
	require.False(t, some)

	g.add(waiter("a", 7, start.Add(time.Second)), 2)
	g.add(waiter("a", 5, start.Add(2*time.Second)), 3)
	g.add(waiter("b", 9, start), 4)
	oldest, some := g.oldest()
	require.True(t, some)
	require.Equal(t, start, oldest)

	taken := map[uint64]uint64{}
	for m, missing := g.takeOlder(start.Add(time.Second)); m != nil; m, missing = g.takeOlder(start.Add(time.Second)) {
		taken[m.event.AggregateVersion] = missing
	}
	require.Equal(t, map[uint64]uint64{9: 4, 7: 3}, taken, "an aggregate waits for the version that was missing last")
	require.EqualValues(t, 1, count.Load())
}
