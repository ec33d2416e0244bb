package publish_test

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/publish"
	"tailbox/cdc/relay"
	"tailbox/deploy/stack"
)

// TestAnAlarmHoldsTheSessionAndItsEndIsHeard: the broker runs out of memory with events under way, and is over it; then again,
// and closes the connection while it lasts.
func TestAnAlarmHoldsTheSessionAndItsEndIsHeard(t *testing.T) {
	t.Parallel()
	set, err := stack.SetFromEnv()
	require.NoError(t, err)
	broker, err := stack.NewRabbitMQ(t.Context(), stack.Config{Dir: t.TempDir(), Set: set, Log: os.Stderr})
	require.NoError(t, err)
	require.NoError(t, broker.Start(t.Context()))
	t.Cleanup(func() { _ = broker.Kill() })

	const confirms = 5 * time.Second
	b := &bundle{t: t, url: broker.URL("/"), name: "alarm"}
	b.configure(publish.Config{Park: true, ConfirmTimeout: confirms})
	s := b.open()
	memory := func(watermark string) {
		_, err := broker.Ctl(t.Context(), "set_vm_memory_high_watermark", watermark)
		require.NoError(t, err)
	}
	parked := func(seq uint64, n int) []relay.Row {
		batch := rows(seq, n)
		for i := range batch {
			batch[i].Parked = true
		}
		return batch
	}

	memory("0")
	s.Publish(parked(1, 3))
	require.Equal(t, relay.Blocked, b.outcome(s).Kind)
	patience := time.NewTimer(confirms + time.Second) // longer than the confirm timeout: blocked time does not count
	defer patience.Stop()
	<-patience.C
	memory("0.6")
	require.Equal(t, relay.Unblocked, b.outcome(s).Kind)
	b.confirmed(s, 3)

	memory("0")
	s.Publish(parked(4, 3))
	require.Equal(t, relay.Blocked, b.outcome(s).Kind)
	_, err = broker.Ctl(t.Context(), "close_all_connections", "the test says so")
	require.NoError(t, err)
	for o := range s.Outcomes() {
		require.NotEqual(t, relay.Confirmed, o.Kind)
	}
	require.Error(t, s.Err())
}
