package relay_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tailbox/cdc/relay"
)

const ttl = relay.DefaultLeaseTTL

// leader is the one instance that leads; it fails when there are two, or none within the time.
func (b *bundle) leader(within time.Duration, all ...*instance) *instance {
	b.t.Helper()
	for deadline := time.Now().Add(within); ; {
		var leading []*instance
		for _, i := range all {
			if _, ok := i.Leading(); ok {
				leading = append(leading, i)
			}
		}
		require.LessOrEqual(b.t, len(leading), 1, "two instances lead")
		if len(leading) == 1 {
			return leading[0]
		}
		require.True(b.t, time.Now().Before(deadline), "nobody leads after %s", within)
		time.Sleep(10 * time.Millisecond) // synctest's clock
	}
}

func TestACleanStopHandsTheLeaseOverAtOnceAndMakesNoDuplicate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		first, second := b.instance(), b.instance()
		one := b.leader(time.Second, first, second)
		other := second
		if one == second {
			other = first
		}
		time.Sleep(time.Second) // the other has looked again: who was only second to take the lease does not know yet who was first
		require.Equal(t, relay.Standby, other.Status().State)
		require.False(t, other.Status().Me)
		require.Equal(t, one.Status().Leader, other.Status().Leader)

		all := b.log.Commit(25)
		time.Sleep(time.Second)
		began := time.Now()
		require.NoError(t, one.stop())
		require.Equal(t, relay.Standby, one.Status().State, "and not as if it had never seen the row")
		require.Same(t, other, b.leader(time.Second, other))
		require.Less(t, time.Since(began), time.Second)
		all = append(all, b.log.Commit(25)...)
		time.Sleep(time.Second)
		require.Equal(t, all, b.broker.Routed())
		require.Equal(t, uint64(1), other.Status().Takeovers)
		require.NoError(t, other.stop())
	})
}

func TestALeaderThatIsGoneIsReplacedAfterOneTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		first := b.instance()
		b.leader(time.Second, first)
		second := b.instance()
		all := b.log.Commit(5)
		time.Sleep(10 * time.Second)
		first.store.Break(true) // to the others this is a killed one

		began := time.Now()
		require.Same(t, second, b.leader(ttl+2*time.Second, second))
		require.Greater(t, time.Since(began), ttl*7/10, "not before the first has stopped by its own clock")
		all = append(all, b.log.Commit(5)...)
		time.Sleep(time.Second)
		require.Equal(t, all, unique(b.broker.Routed()))

		first.store.Break(false)
		time.Sleep(time.Minute)
		require.Equal(t, relay.Standby, first.Status().State)
		require.Same(t, second, b.leader(time.Second, first, second), "who was replaced does not take the lease back")
		require.NoError(t, second.stop())
		require.Same(t, first, b.leader(time.Second, first))
		require.NoError(t, first.stop())
	})
}

func TestAnInstanceThatCannotRenewStopsSendingBeforeAnotherBegins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		first := b.instance()
		b.leader(time.Second, first)
		second := b.instance()
		time.Sleep(time.Second)
		first.store.Break(true)
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			_, one := first.Leading()
			_, two := second.Leading()
			require.False(t, one && two, "two instances lead")
		}
		require.NoError(t, first.stop())
		require.NoError(t, second.stop())
	})
}

func TestAnInstanceThatOnlyLostTheDatabaseForAWhileLeadsAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		only := b.instance()
		b.leader(time.Second, only)
		only.store.Break(true)
		time.Sleep(time.Minute)
		require.Equal(t, relay.Standby, only.Status().State)
		require.Equal(t, relay.SourceDown, only.Status().Reason)
		all := b.log.Commit(3)
		only.store.Break(false)
		b.leader(3*time.Second, only)
		time.Sleep(time.Second)
		require.Equal(t, all, unique(b.broker.Routed()))
		require.NoError(t, only.stop())
	})
}

func TestALeaseThatCanBeReadButNotTakenIsNoReadyStandby(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		log, lines := observer.New(zap.WarnLevel)
		b.logger = zap.New(log)
		only := b.instance()
		b.leader(time.Second, only)
		all := b.log.Commit(3)
		time.Sleep(time.Second)
		only.store.Fill(true)
		time.Sleep(ttl)
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
			require.Equal(t, relay.Standby, only.Status().State)
			require.Equal(t, relay.SourceDown, only.Status().Reason)
		}
		require.Equal(t, 1, lines.FilterMessage("the lease is out of reach, trying again").Len(), "told once, however long it lasts")
		only.store.Fill(false)
		b.leader(2*ttl, only) // once the call that waits has ended
		all = append(all, b.log.Commit(3)...)
		time.Sleep(time.Second)
		require.Equal(t, relay.Streaming, only.Status().State)
		require.Equal(t, all, unique(b.broker.Routed()))
		require.NoError(t, only.stop())
	})
}

func TestAPauseHoldsForWhoeverLeads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		first := b.instance()
		b.leader(time.Second, first)
		second := b.instance()
		time.Sleep(time.Second)
		var standby *relay.StandbyError
		require.ErrorAs(t, second.Pause(t.Context()), &standby)
		require.Equal(t, first.Status().Leader, standby.Leader)

		require.NoError(t, first.Pause(t.Context()))
		all := b.log.Commit(3)
		time.Sleep(time.Minute)
		require.Empty(t, b.broker.Routed())
		require.Equal(t, relay.Paused, first.Status().State)
		require.NoError(t, first.stop())
		b.leader(time.Second, second)
		time.Sleep(time.Minute)
		require.Empty(t, b.broker.Routed())
		require.NoError(t, second.Resume(t.Context()))
		time.Sleep(time.Second)
		require.Equal(t, all, b.broker.Routed())
		require.NoError(t, second.stop())
	})
}

func TestAMoveGoesOnFromTheOtherPlaceAndEndsAHalt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		i := b.instance()
		b.leader(time.Second, i)
		var all []string
		for range 4 {
			all = append(all, b.log.Commit(2)...)
		}
		time.Sleep(time.Second)
		require.NoError(t, i.Move(t.Context(), relay.Position{Flavor: "fake", Pos: 2}))
		place, _ := b.row.Saved()
		require.Equal(t, uint64(2), place.Pos, "the new place is saved when Move returns")
		time.Sleep(time.Second)
		require.Equal(t, slices.Concat(all, all[4:]), b.broker.Routed())

		i.source.Halt(relay.Haltf(relay.BinlogPurged, "too late"))
		time.Sleep(time.Second)
		require.Equal(t, relay.Halted, i.Status().State)
		require.True(t, i.Status().Me, "the lease is kept")
		i.source.Halt(nil)
		require.NoError(t, i.Move(t.Context(), relay.Position{Flavor: "fake", Pos: 3}))
		time.Sleep(time.Second)
		require.Equal(t, relay.Streaming, i.Status().State)
		require.Equal(t, slices.Concat(all, all[4:], all[6:]), b.broker.Routed())
		require.NoError(t, i.stop())
	})
}

// TestAMoveKeepsWhatIsKnownOfTheRows: which of them were passed over, and how late one can be committed.
func TestAMoveKeepsWhatIsKnownOfTheRows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		known := relay.Position{Flavor: "fake", Unsent: time.Unix(1000, 0), Late: time.Hour}
		b.row.Set(known)
		i := b.instance()
		b.leader(time.Second, i)
		b.log.Commit(3)
		time.Sleep(time.Second)
		require.NoError(t, i.Move(t.Context(), relay.Position{Flavor: "fake"}))
		place, _ := b.row.Saved()
		require.Equal(t, known, place)
		require.NoError(t, i.Move(t.Context(), relay.Position{Snapshot: true}))
		place, _ = b.row.Saved()
		require.Equal(t, relay.Position{Snapshot: true, Late: time.Hour}, place, "all rows are sent again")
		require.NoError(t, i.stop())
	})
}

func TestADeletedRowHaltsUntilItIsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		i := b.instance()
		b.leader(time.Second, i)
		b.row.Delete(true)
		time.Sleep(ttl)
		require.Equal(t, relay.Halted, i.Status().State)
		require.Equal(t, relay.CheckpointGone, i.Status().Reason)
		b.row.Delete(false)
		b.leader(3*time.Second, i)
		require.NoError(t, i.stop())
	})
}

// quarantine keeps ids, and fails on demand.
type quarantine struct {
	mu     sync.Mutex
	ids    []string
	broken bool
}

func (q *quarantine) Add(_ context.Context, _ uint64, row relay.Row, _ error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.broken {
		return errors.New("broken on demand")
	}
	q.ids = append(q.ids, row.Event.ID)
	return nil
}

func (q *quarantine) list() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.ids)
}

func (q *quarantine) fail(broken bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.broken = broken
}

func TestPoisonGoesToTheQuarantineBeforeTheCheckpointPassesIt(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := setup(t)
			q := &quarantine{broken: true}
			b.cfg.Quarantine, b.cfg.StrictOrder = q, strict
			i := b.instance()
			all := b.log.Commit(6)
			b.broker.Poison(all[1], all[4])
			time.Sleep(time.Minute)
			place, _ := b.row.Saved()
			require.Equal(t, 1, b.log.Index(place))
			require.Equal(t, relay.QuarantineOff, i.Status().Reason, "it says why it does not get on")
			i.link.Cut(true) // what is set aside stays so when the session is lost
			time.Sleep(time.Second)
			i.link.Cut(false)
			q.fail(false)
			time.Sleep(time.Minute)
			require.Equal(t, []string{all[1], all[4]}, q.list())
			require.Equal(t, []string{all[0], all[2], all[3], all[5]}, unique(b.broker.Routed()))
			place, _ = b.row.Saved()
			require.Equal(t, 6, b.log.Index(place))
			require.Equal(t, uint64(2), i.Status().Totals.Quarantined)
			require.NoError(t, i.stop())
		})
	}
}

// TestAskingForTheStatusConfirmsNothing: a status that began before a change of place must not tell the source, which numbers its
// rows anew, of a watermark from before. The stand-in panics when it is told of a row that it has not delivered.
func TestAskingForTheStatusConfirmsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	i := b.instance()
	i.source.Slow(time.Millisecond)
	var asking sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for range 2 {
		asking.Go(func() {
			for ctx.Err() == nil {
				i.Status()
			}
		})
	}
	b.leader(time.Minute, i)
	n := uint64(len(b.log.Commit(20)))
	for round := range uint64(5) {
		require.Eventually(t, func() bool { return i.Status().Totals.Confirmed == n*(round+1) }, time.Minute, time.Millisecond)
		require.NoError(t, i.Move(t.Context(), i.Status().ConfirmedAt)) // where there were rows there is none now
		for range 5 {
			i.Status() // as long as any that is under way
		}
		require.NoError(t, i.Move(t.Context(), relay.Position{Flavor: "fake"}))
	}
	stop()
	asking.Wait()
	require.NoError(t, i.stop())
}

// TestTwoInstancesLoseNothingWhateverBreaks: two instances whose ways to the row, the broker and the binlog break at random,
// that stop and start, while transactions are committed.
func TestTwoInstancesLoseNothingWhateverBreaks(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { breakTwo(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func breakTwo(t *testing.T, random *rand.Rand) {
	b := setup(t)
	pair := []*instance{b.instance(), b.instance()}
	var all []string
	for range 150 {
		i := pair[random.IntN(2)]
		switch random.IntN(10) {
		case 0:
			i.source.Cut()
		case 1:
			i.link.Cut(true)
		case 2:
			i.link.Cut(false)
		case 3, 4:
			i.store.Break(random.IntN(3) == 0)
		case 5:
			at := slices.Index(pair, i)
			require.NoError(t, i.stop())
			pair[at] = b.instance()
		default:
			all = append(all, b.log.Commit(random.IntN(25))...)
		}
		_, one := pair[0].Leading()
		_, two := pair[1].Leading()
		require.False(t, one && two, "two instances lead")
		time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
	}
	for _, i := range pair {
		i.link.Cut(false)
		i.store.Break(false)
	}
	time.Sleep(2 * time.Minute)
	synctest.Wait()
	for _, i := range pair {
		require.NoError(t, i.stop())
	}
	require.Equal(t, all, unique(b.broker.Routed()), "all, in the order of their commits")
	place, _ := b.row.Saved()
	require.Equal(t, len(all), b.log.Index(place))
}

// TestAMoveThatMeetsAHaltIsToldSo: the relay was asked to move, waits for what is in flight, and that cannot be a message.
func TestAMoveThatMeetsAHaltIsToldSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.broker.Delay(time.Second)
		i := b.instance()
		b.leader(time.Second, i)
		b.broker.Poison("event-000002")
		b.log.Commit(2)
		synctest.Wait()
		told := make(chan error, 1)
		go func() { told <- i.Move(t.Context(), relay.Position{Flavor: "fake"}) }()
		time.Sleep(time.Minute)
		require.ErrorContains(t, <-told, "the relay has halted before it could (poison)")
		require.Equal(t, relay.Halted, i.Status().State)
		require.NoError(t, i.stop())
	})
}

// TestAMoveWhoseLeaseIsLostIsToldSo: the relay was asked to skip events, waits for what is in flight, and another instance takes
// over meanwhile. The way to the row is open: the place is not saved because it must not be.
func TestAMoveWhoseLeaseIsLostIsToldSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.broker.Silence(true)
		i := b.instance()
		b.leader(time.Second, i)
		for range 4 {
			b.log.Commit(1)
		}
		synctest.Wait()
		told := make(chan error, 1)
		go func() { told <- i.Move(t.Context(), relay.Position{Flavor: "fake", Pos: 3}) }()
		synctest.Wait()
		taken, _, err := b.row.Store("other", ttl).Acquire(t.Context(), b.row.Lease())
		require.NoError(t, err)
		select {
		case err := <-told:
			var standby *relay.StandbyError
			require.ErrorAs(t, err, &standby)
		case <-time.After(ttl):
			require.Fail(t, "nobody was told")
		}
		place, _ := b.row.Saved()
		require.True(t, place.IsZero(), "nothing is confirmed and nobody has moved")
		require.Equal(t, taken, b.row.Lease())
		require.NoError(t, i.stop())
	})
}
