package relaytest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/relay"
)

// CheckpointsContract is what every relay.Checkpoints keeps. open gives another handle on the same, at first empty, row.
func CheckpointsContract(t *testing.T, open func(t *testing.T) func() relay.Checkpoints) {
	t.Helper()
	place := relay.Position{Flavor: "mysql", ServerUUID: "u", GTID: true, GTIDSet: "u:1-5", File: "binlog.000001", Pos: 1 << 40, SkipRows: 3, SkipGTID: "u:6",
		CommittedAt: time.Date(2026, 11, 23, 12, 0, 0, 123456000, time.UTC), Late: time.Minute}

	t.Run("the first acquire has no place and epoch 1", func(t *testing.T) {
		t.Parallel()
		c := open(t)()
		epoch, from, err := c.Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, uint64(1), epoch)
		require.True(t, from.IsZero())
	})
	t.Run("a saved place is found whole by the next", func(t *testing.T) {
		t.Parallel()
		row := open(t)
		epoch, _, err := row().Acquire(t.Context())
		require.NoError(t, err)
		require.NoError(t, row().Save(t.Context(), epoch, place, "event-1"))
		next, from, err := row().Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, epoch+1, next)
		require.Equal(t, place, from)
	})
	t.Run("a save is idempotent", func(t *testing.T) {
		t.Parallel()
		c := open(t)()
		epoch, _, err := c.Acquire(t.Context())
		require.NoError(t, err)
		for range 3 {
			require.NoError(t, c.Save(t.Context(), epoch, place, "event-1"))
		}
	})
	t.Run("a save of an old epoch is fenced and changes nothing", func(t *testing.T) {
		t.Parallel()
		row := open(t)
		old, _, err := row().Acquire(t.Context())
		require.NoError(t, err)
		epoch, _, err := row().Acquire(t.Context())
		require.NoError(t, err)
		require.NoError(t, row().Save(t.Context(), epoch, place, "event-1"))
		require.ErrorIs(t, row().Save(t.Context(), old, relay.Position{File: "x"}, "event-0"), relay.ErrFenced)
		_, from, err := row().Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, place, from)
	})
}
