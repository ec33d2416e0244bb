package consume_test

import (
	"net"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

func TestNothingVanishesWhenAConsumerCrashesAgainAndAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const customers, versions, crashes, prefetch = 10, 10, 25, 50
	all := b.load(t, customers, versions)
	for range crashes { // more than the twenty deliveries that RabbitMQ 4 allows a message by default
		b.crash(t, prefetch)
	}
	w := b.start(t, consume.Config{Prefetch: prefetch}, effect.Handlers())
	for _, events := range all {
		b.applied(t, events)
	}
	require.NoError(t, w.stop())
	require.EqualValues(t, customers*versions, w.Stats().Messages["applied"])
	require.Zero(t, w.Stats().Messages["dead"])
	b.empty(t, b.queue.DeadQueue())
}

// crash is a consumer that has its prefetch in hand when its socket closes without a word, as a killed process's does.
func (b *bundle) crash(t *testing.T, prefetch int) {
	t.Helper()
	var socket net.Conn
	conn, err := amqp.DialConfig(b.url, amqp.Config{Dial: func(network, addr string) (net.Conn, error) {
		var err error
		socket, err = net.Dial(network, addr)
		return socket, err
	}})
	require.NoError(t, err)
	ch, err := conn.Channel()
	require.NoError(t, err)
	require.NoError(t, ch.Qos(prefetch, 0, false))
	deliveries, err := ch.Consume(b.queue.Queue, "", false, false, false, false, nil)
	require.NoError(t, err)
	for range prefetch {
		_, open := <-deliveries
		require.True(t, open)
	}
	require.NoError(t, socket.Close())
	for range deliveries { // ends when the library has noticed
	}
}
