package publish_test

import (
	"os"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/publish"
	"tailbox/cdc/relay"
	"tailbox/deploy/stack"
	"tailbox/schema"
	"tailbox/schema/topology"
)

func TestWhatCouldLoseMessagesIsNamedUntilItIsMended(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.configure(publish.Config{Park: true})
	require.NoError(t, b.ch.ExchangeDeclare(topology.Exchange, "fanout", false, false, false, false, nil))
	b.refused(`exchange "outbox.events" has durable false and needs true`)
	require.NoError(t, b.ch.ExchangeDelete(topology.Exchange, false, false))

	_, err := b.ch.QueueDeclare(topology.Unrouted, true, false, false, false, amqp.Table{"x-max-length": int64(1000), "x-overflow": "drop-head"})
	require.NoError(t, err)
	b.refused(`queue "outbox.unrouted" has x-max-length 1000 and needs none: it would drop or refuse messages beyond that`)
	_, err = b.ch.QueueDelete(topology.Unrouted, false, false, false)
	require.NoError(t, err)
	b.open()
}

// refused tries to open a session.
func (b *bundle) refused(why string) {
	b.t.Helper()
	_, err := b.pub.Open(b.t.Context())
	var found *relay.TopologyError
	require.ErrorAs(b.t, err, &found)
	require.ErrorContains(b.t, err, why)
}

func TestAnUnroutedQueueThatWasDeletedIsBackInTheNextSession(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.configure(publish.Config{Park: true})
	s := b.open()
	_, err := b.ch.QueueDelete(topology.Unrouted, false, false, false)
	require.NoError(t, err)
	batch := rows(1, 3)
	for i := range batch {
		batch[i].Parked = true
	}
	s.Publish(batch)
	b.unknown(s)
	var missing *relay.TopologyError
	require.ErrorAs(t, s.Err(), &missing)
	s = b.open()
	s.Publish(batch)
	b.confirmed(s, 3)
}

// TestAMessageOverTheBrokersLimitCostsOneSession: the broker's limit may be lower than MAX_MESSAGE_BYTES, and is known only when
// it closes the channel.
func TestAMessageOverTheBrokersLimitCostsOneSession(t *testing.T) {
	t.Parallel()
	set, err := stack.SetFromEnv()
	require.NoError(t, err)
	broker, err := stack.NewRabbitMQ(t.Context(), stack.Config{Dir: t.TempDir(), Set: set, RabbitConfig: "max_message_size = 65536\n", Log: os.Stderr})
	require.NoError(t, err)
	require.NoError(t, broker.Start(t.Context()))
	t.Cleanup(func() { _ = broker.Kill() })
	b := &bundle{t: t, url: broker.URL("/"), name: "limit"}
	b.configure(publish.Config{Park: true})
	batch := append(rows(1, 1, func(e *schema.Event) { e.Payload = []byte(`"` + strings.Repeat("x", 100000) + `"`) }), rows(2, 20)...)
	for i := range batch {
		batch[i].Parked = true
	}

	s := b.open()
	s.Publish(batch)
	b.unknown(s)
	require.ErrorContains(t, s.Err(), "406")
	s = b.open()
	s.Publish(batch)
	o := b.outcome(s)
	require.Equal(t, relay.Poison, o.Kind)
	require.Equal(t, uint64(1), o.Seq)
	require.ErrorContains(t, o.Err, "the payload has 100002 bytes, the broker's max_message_size allows 65536")
	b.confirmed(s, 21)
}

func TestAnEventWhoseExchangeHasNoNameIsPoison(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.configure(publish.Config{Exchange: template(t, "{header.to}")})
	s := b.open()
	s.Publish(rows(1, 1))
	o := b.outcome(s)
	require.Equal(t, relay.Poison, o.Kind)
	require.ErrorContains(t, o.Err, "the exchange's name is empty")
}
