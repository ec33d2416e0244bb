package consume_test

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tailbox/deploy/stack"
	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/worker/consume"
)

// impatient is a bundle on a broker of its own that lets no consumer hold a message for longer than the timeout. It is a
// setting of the whole broker: RabbitMQ 3.10 knows none per queue.
func impatient(t *testing.T, timeout string) *bundle {
	t.Helper()
	b := setup(t)
	set, err := stack.SetFromEnv()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "tailbox-consume-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	broker, err := stack.NewRabbitMQ(t.Context(), stack.Config{Dir: dir, Set: set, Log: os.Stderr})
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = broker.Kill() // the data is thrown away
		require.NoError(t, broker.Stop(context.Background()))
	})
	require.NoError(t, broker.Start(t.Context()))
	_, err = broker.Ctl(t.Context(), "eval", "[application:set_env(rabbit, Key, Value) || {Key, Value} <- "+
		"[{consumer_timeout, "+timeout+"}, {channel_tick_interval, 500}, {quorum_tick_interval, 500}]].") // the ticks look for it
	require.NoError(t, err)
	b.url = broker.URL("/")
	b.reconnect(t)
	require.NoError(t, b.queue.Declare(b.ch))
	return b
}

func TestMessageHeldLongerThanTheBrokerAllowsIsAppliedOnceAndTheRestGoesOn(t *testing.T) {
	t.Parallel()
	b := impatient(t, "2000")
	g := newGate()
	log, lines := observer.New(zap.InfoLevel)
	w := b.start(t, consume.Config{Log: zap.New(log), Batch: 1}, g.handlers())
	held := schematest.Event()
	b.publish(t, held)
	<-g.entered
	eventually(t, "the broker takes the message back", func() bool { return w.Stats().State == consume.StateConnecting })
	others := customer(3)
	b.publish(t, others...)
	close(g.leave)

	b.applied(t, []schema.Event{held})
	b.applied(t, others)
	w.settled(t, "duplicate", 1)
	w.ready(t)
	require.NoError(t, w.stop())
	require.GreaterOrEqual(t, lines.FilterMessage("consuming").Len(), 2, "a session was lost")
	require.Zero(t, lines.FilterLevelExact(zap.ErrorLevel).Len(), "nobody has to mend anything")
	require.Zero(t, w.Stats().Messages["dead"]+w.Stats().Messages["retried"])
}
