package relaytest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/relay"
)

// TTL is that of the leases in the contract.
const TTL = 3 * time.Second

// StoreContract is what every relay.Store keeps. fresh gives a row that does not exist yet: each call of what it returns is the
// way of another instance, of that name, to it.
func StoreContract(t *testing.T, fresh func(t *testing.T) func(name string) relay.Store) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, func(string) relay.Store){
		"a new row is free and has no place":                  newRow,
		"a saved place is found whole by the next":            savedPlace,
		"a save is idempotent":                                savedTwice,
		"the zero place is a place to be chosen":              savedZero,
		"nothing of an old epoch changes anything":            oldEpoch,
		"of two that saw the same row one gets it":            race,
		"a renewal between look and acquire keeps the holder": renewed,
		"a lease that was handed over has no holder":          released,
		"a pause outlives the one who paused":                 paused,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, fresh(t))
		})
	}
}

var place = relay.Position{Flavor: "mysql", ServerUUID: "u", GTID: true, GTIDSet: "u:1-5", File: "binlog.000001", Pos: 1 << 40, SkipRows: 3, SkipGTID: "u:6",
	FileMade: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), CommittedAt: time.Date(2026, 11, 23, 12, 0, 0, 123456000, time.UTC), Late: time.Minute,
	Unsent: time.Date(2026, 11, 19, 12, 0, 0, 0, time.UTC)}

// take looks and acquires.
func take(t *testing.T, s relay.Store) (relay.Lease, relay.Position) {
	t.Helper()
	seen, err := s.Look(t.Context())
	require.NoError(t, err)
	lease, from, err := s.Acquire(t.Context(), seen)
	require.NoError(t, err)
	require.Equal(t, seen.Epoch+1, lease.Epoch)
	return lease, from
}

func newRow(t *testing.T, open func(string) relay.Store) {
	seen, err := open("a").Look(t.Context())
	require.NoError(t, err)
	require.Empty(t, seen.Holder)
	lease, from := take(t, open("a"))
	require.Equal(t, uint64(1), lease.Epoch)
	require.Equal(t, "a", lease.Holder)
	require.Equal(t, TTL, lease.TTL)
	require.True(t, from.IsZero())
	seen, err = open("b").Look(t.Context())
	require.NoError(t, err)
	require.Equal(t, "a", seen.Holder)
	require.Equal(t, TTL, seen.TTL)
}

func savedPlace(t *testing.T, open func(string) relay.Store) {
	lease, _ := take(t, open("a"))
	require.NoError(t, open("a").Save(t.Context(), lease.Epoch, place, "event-1"))
	next, from := take(t, open("b"))
	require.Equal(t, lease.Epoch+1, next.Epoch)
	require.Equal(t, place, from)
}

func savedTwice(t *testing.T, open func(string) relay.Store) {
	s := open("a")
	lease, _ := take(t, s)
	for range 3 {
		require.NoError(t, s.Save(t.Context(), lease.Epoch, place, "event-1"))
		require.NoError(t, s.Pause(t.Context(), lease.Epoch, false))
	}
}

func savedZero(t *testing.T, open func(string) relay.Store) {
	s := open("a")
	lease, _ := take(t, s)
	require.NoError(t, s.Save(t.Context(), lease.Epoch, place, "event-1"))
	require.NoError(t, s.Save(t.Context(), lease.Epoch, relay.Position{}, ""))
	_, from := take(t, s)
	require.True(t, from.IsZero())
}

func oldEpoch(t *testing.T, open func(string) relay.Store) {
	a, b := open("a"), open("b")
	old, _ := take(t, a)
	lease, _ := take(t, b)
	require.NoError(t, b.Save(t.Context(), lease.Epoch, place, "event-1"))
	before, err := b.Look(t.Context())
	require.NoError(t, err)

	// The second is an epoch of that number that this instance was given by a server whose last changes a failover has lost.
	for _, epoch := range []uint64{old.Epoch, lease.Epoch} {
		require.ErrorIs(t, a.Save(t.Context(), epoch, relay.Position{File: "x"}, "event-0"), relay.ErrFenced)
		require.ErrorIs(t, a.Renew(t.Context(), epoch), relay.ErrFenced)
		require.ErrorIs(t, a.Release(t.Context(), epoch), relay.ErrFenced)
		require.ErrorIs(t, a.Pause(t.Context(), epoch, true), relay.ErrFenced)
	}
	after, err := b.Look(t.Context())
	require.NoError(t, err)
	require.Equal(t, before, after)
	_, from := take(t, b)
	require.Equal(t, place, from)
}

func race(t *testing.T, open func(string) relay.Store) {
	a, b := open("a"), open("b")
	seen, err := a.Look(t.Context())
	require.NoError(t, err)
	_, _, err = a.Acquire(t.Context(), seen)
	require.NoError(t, err)
	_, _, err = b.Acquire(t.Context(), seen)
	require.ErrorIs(t, err, relay.ErrFenced)
}

func renewed(t *testing.T, open func(string) relay.Store) {
	a, b := open("a"), open("b")
	lease, _ := take(t, a)
	seen, err := b.Look(t.Context())
	require.NoError(t, err)
	require.NoError(t, a.Renew(t.Context(), lease.Epoch))
	_, _, err = b.Acquire(t.Context(), seen)
	require.ErrorIs(t, err, relay.ErrFenced)
	again, err := b.Look(t.Context())
	require.NoError(t, err)
	require.Greater(t, again.Beat, seen.Beat, "a renewal can be seen")
}

func released(t *testing.T, open func(string) relay.Store) {
	a, b := open("a"), open("b")
	lease, _ := take(t, a)
	require.NoError(t, a.Release(t.Context(), lease.Epoch))
	seen, err := b.Look(t.Context())
	require.NoError(t, err)
	require.Empty(t, seen.Holder)
	require.Equal(t, lease.Epoch, seen.Epoch)
}

func paused(t *testing.T, open func(string) relay.Store) {
	a, b := open("a"), open("b")
	lease, _ := take(t, a)
	require.False(t, lease.Paused)
	require.NoError(t, a.Pause(t.Context(), lease.Epoch, true))
	next, _ := take(t, b)
	require.True(t, next.Paused)
	require.NoError(t, b.Pause(t.Context(), next.Epoch, false))
	seen, err := a.Look(t.Context())
	require.NoError(t, err)
	require.False(t, seen.Paused)
}
