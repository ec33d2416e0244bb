package consume

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestEveryTagIsSettledOnceAndNoneBeforeItsTurn(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var open tags
		broker := map[uint64]bool{} // what it waits for
		var mine []uint64           // what the worker holds
		next := uint64(1)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			for range rapid.IntRange(0, 5).Draw(t, "delivered") {
				open.add(next)
				broker[next] = true
				mine = append(mine, next)
				next++
			}
			var settled []uint64
			kept := mine[:0:0]
			for _, tag := range mine {
				if rapid.Bool().Draw(t, "settle") {
					settled = append(settled, tag)
				} else {
					kept = append(kept, tag)
				}
			}
			settled = rapid.Permutation(settled).Draw(t, "order")
			mine = kept

			upTo, singly := open.settle(settled)
			if upTo != 0 {
				require.True(t, broker[upTo], "the broker waits for the tag itself")
				for tag := range broker {
					if tag <= upTo {
						delete(broker, tag)
					}
				}
			}
			for _, tag := range singly {
				require.True(t, broker[tag], "no tag is settled twice")
				delete(broker, tag)
			}
			require.Len(t, broker, len(mine))
			for _, tag := range mine {
				require.True(t, broker[tag], "what is in hand stays open")
			}
			require.Len(t, open, len(mine), "nothing is kept of what is settled")
		}
	})
}

func TestOneAcknowledgementIsForAllThatNothingOpenStandsBefore(t *testing.T) {
	t.Parallel()
	var open tags
	for tag := range uint64(6) {
		open.add(tag + 1)
	}
	upTo, singly := open.settle([]uint64{2, 1, 3, 5})
	require.EqualValues(t, 3, upTo)
	require.Equal(t, []uint64{5}, singly)
	upTo, singly = open.settle([]uint64{6, 4})
	require.EqualValues(t, 6, upTo)
	require.Empty(t, singly)
}
