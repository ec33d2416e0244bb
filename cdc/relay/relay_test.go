package relay_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"tailbox/cdc/relay"
	"tailbox/cdc/relay/relaytest"
)

// bundle is the stand-ins of one or more instances of a relay. Its time is synctest's.
type bundle struct {
	t      *testing.T
	log    *relaytest.Log
	broker *relaytest.Broker
	row    *relaytest.Row
	cfg    relay.Config
	logger *zap.Logger

	source *relaytest.Source // of the instance that was started last
	store  *relaytest.Store  // likewise
	names  int
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{t: t, log: relaytest.NewLog(), broker: relaytest.NewBroker(), row: &relaytest.Row{}, cfg: relay.Config{Window: 10}, logger: zap.NewNop()}
	b.row.Check = func(place relay.Position) { // at every save: all before it is in a queue, or in quarantine
		routed := map[string]bool{}
		for _, id := range b.broker.Routed() {
			routed[id] = true
		}
		if q, ok := b.cfg.Quarantine.(*quarantine); ok {
			for _, id := range q.list() {
				routed[id] = true
			}
		}
		for i := range b.log.Index(place) {
			if id := fmt.Sprintf("event-%06d", i+1); !routed[id] {
				b.t.Errorf("the checkpoint %+v has passed %s, which is in no queue", place, id)
			}
		}
	}
	return b
}

// instance is one relay of a bundle, and its own ways to everything.
type instance struct {
	*relay.Relay
	source *relaytest.Source
	store  *relaytest.Store
	link   *relaytest.Link
	stop   func() error // the clean stop; gives what Run returned
}

// instance starts one.
func (b *bundle) instance() *instance {
	b.names++
	cfg := b.cfg
	cfg.Holder = fmt.Sprint("instance-", b.names)
	i := &instance{source: relaytest.NewSource(b.log), store: b.row.Store(cfg.Holder, relay.DefaultLeaseTTL), link: b.broker.Link()}
	i.Relay = relay.New(i.source, i.link, i.store, b.logger, cfg)
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	i.stop = func() error {
		cancel()
		return <-done
	}
	return i
}

// start starts the only instance.
func (b *bundle) start() (r *relay.Relay, stop func() error) {
	i := b.instance()
	b.source, b.store = i.source, i.store
	return i.Relay, i.stop
}

func TestStandInStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	relaytest.StoreContract(t, func(*testing.T) func(string) relay.Store {
		row := &relaytest.Row{}
		return func(name string) relay.Store { return row.Store(name, relaytest.TTL) }
	})
}

// unique is the list without repetitions, in order of the first.
func unique(list []string) (firsts []string) {
	for _, s := range list {
		if !slices.Contains(firsts, s) {
			firsts = append(firsts, s)
		}
	}
	return firsts
}

func TestACleanStopMakesNoDuplicate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.broker.Delay(50 * time.Millisecond)
		var all []string
		for range 5 {
			_, stop := b.start()
			all = append(all, b.log.Commit(7)...)
			time.Sleep(time.Second)
			all = append(all, b.log.Commit(30)...) // more than the window
			synctest.Wait()                        // and under way when the stop comes
			require.NoError(t, stop())
		}
		_, stop := b.start()
		time.Sleep(time.Minute)
		require.NoError(t, stop())
		require.Equal(t, all, b.broker.Routed())
	})
}

func TestUnroutableRowsAreHeldUntilTheBindingIsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		r, stop := b.start()
		b.broker.Unbind(true)
		all := b.log.Commit(25)
		time.Sleep(time.Minute)
		require.Equal(t, relay.Stalled, r.Status().State)
		require.Equal(t, relay.Unroutable, r.Status().Reason)
		require.Zero(t, b.log.Index(r.Status().Saved))
		b.broker.Unbind(false)
		time.Sleep(relay.DefaultRetryMax)
		synctest.Wait()
		require.Equal(t, relay.Streaming, r.Status().State)
		require.Equal(t, all, b.broker.Routed())
		require.NoError(t, stop())
	})
}

func TestCheckpointFollowsWithinItsInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		_, stop := b.start()
		b.log.Commit(3)
		time.Sleep(relay.DefaultCheckpointInterval)
		synctest.Wait()
		place, saves := b.row.Saved()
		require.Equal(t, 3, b.log.Index(place))

		time.Sleep(time.Hour)
		_, later := b.row.Saved()
		require.LessOrEqual(t, later, saves+1, "an idle relay does not write")
		require.NoError(t, stop())
	})
}

func TestAStreamThatIsDownIsNotReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		r, stop := b.start()
		synctest.Wait()
		require.Equal(t, relay.Starting, r.Status().State, "its place is not saved yet")
		b.log.Commit(1)
		time.Sleep(time.Second)
		require.Equal(t, relay.Streaming, r.Status().State)
		b.source.Cut()
		synctest.Wait()
		require.Equal(t, relay.Stalled, r.Status().State)
		require.Equal(t, relay.SourceDown, r.Status().Reason)
		time.Sleep(time.Minute)
		require.Equal(t, relay.Streaming, r.Status().State)
		require.NoError(t, stop())
	})
}

func TestAHaltSavesWhatIsConfirmedAndStaysToTellWhy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		r, stop := b.start()
		b.log.Commit(4)
		synctest.Wait()
		b.source.Halt(relay.Haltf(relay.BinlogPurged, "too late"))
		time.Sleep(time.Minute)
		status := r.Status()
		require.Equal(t, relay.Halted, status.State)
		require.Equal(t, relay.BinlogPurged, status.Reason)
		require.Equal(t, "too late", status.Detail)
		require.Equal(t, 4, b.log.Index(status.Saved))
		require.NoError(t, stop())

		b.cfg.ExitOnHalt = true
		_, stop = b.start()
		b.source.Halt(relay.Haltf(relay.BinlogPurged, "too late"))
		time.Sleep(time.Minute)
		var halt *relay.Halt
		require.ErrorAs(t, stop(), &halt)
	})
}

func TestAStopWithASilentBrokerEndsInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		_, stop := b.start()
		b.broker.Silence(true)
		b.log.Commit(5)
		synctest.Wait()
		before := time.Now()
		require.NoError(t, stop())
		require.LessOrEqual(t, time.Since(before), relay.DefaultShutdownTimeout)
		place, _ := b.row.Saved()
		require.Zero(t, b.log.Index(place), "what was not confirmed is not passed")
	})
}

// TestNothingIsLostWhateverBreaks breaks source, broker and checkpoints at random while transactions are committed, with
// relays that stop and start, and checks at every save that all before it is in a queue, and at the end that all is, in order.
func TestNothingIsLostWhateverBreaks(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { breakAll(t, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func breakAll(t *testing.T, random *rand.Rand) {
	b := setup(t)
	_, stop := b.start()
	var all []string
	for range 200 {
		switch random.IntN(12) {
		case 0:
			b.source.Cut()
		case 1:
			b.broker.Down(true)
		case 2:
			b.broker.Down(false)
		case 3:
			b.store.Break(random.IntN(2) == 0)
		case 4:
			b.broker.Silence(true)
			all = append(all, b.log.Commit(3)...)
			synctest.Wait()
			b.broker.Down(true)
			b.broker.Silence(false)
			b.broker.Down(false)
		case 5:
			err := stop()
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			_, stop = b.start()
		default:
			all = append(all, b.log.Commit(random.IntN(25))...)
		}
		time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond)
	}
	b.broker.Down(false)
	b.store.Break(false)
	time.Sleep(time.Minute)
	synctest.Wait()
	require.NoError(t, stop())
	require.Equal(t, all, unique(b.broker.Routed()), "all, in the order of their commits")
	place, _ := b.row.Saved()
	require.Equal(t, len(all), b.log.Index(place))
}

// TestARelayWithoutAPlaceIsStillStarting: what is committed before START=latest has asked where that is may be passed over.
func TestARelayWithoutAPlaceIsStillStarting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		i := b.instance()
		i.source.Seek(true)
		time.Sleep(time.Second)
		require.Equal(t, relay.Starting, i.Status().State)
		b.log.Commit(1)
		time.Sleep(time.Second)
		require.Equal(t, relay.Snapshot, i.Status().State, "it begins with what the table holds")
		i.source.Seek(false)
		time.Sleep(time.Second)
		require.Equal(t, relay.Streaming, i.Status().State)
		require.NoError(t, i.stop())
	})
}

func TestNothingIsSavedInsideARepair(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		i := b.instance()
		i.source.Repair(true)
		sent := b.log.Commit(7)
		time.Sleep(time.Minute)
		require.Equal(t, sent, b.broker.Routed())
		status := i.Status()
		require.Equal(t, relay.Repairing, status.State)
		require.Equal(t, uint64(7), status.Totals.Repaired)
		require.True(t, status.Saved.IsZero(), "there is no place inside a repair")

		i.source.Repair(false)
		b.log.Commit(2)
		time.Sleep(time.Minute)
		status = i.Status()
		require.Equal(t, relay.Streaming, status.State)
		require.Equal(t, uint64(7), status.Totals.Repaired)
		require.Equal(t, uint64(9), status.Totals.Confirmed)
		require.Equal(t, 9, b.log.Index(status.Saved))
		require.NoError(t, i.stop())
	})
}
