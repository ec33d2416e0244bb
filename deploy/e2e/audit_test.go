package e2e_test

import (
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/schema/topology"
)

// audit is a queue on the exchange for the test alone: it gets every message that was routed, in order, duplicates included.
//
// Its one consumer stays, so nothing goes back to the queue and comes again in another order. When the broker takes its
// connection, what it has had comes again; the queue has a delivery limit, because RabbitMQ 3.10 keeps the place of what comes
// again in such a queue alone.
type audit struct {
	w          *world
	queue      string
	deliveries <-chan amqp.Delivery
	again      bool // the consumer is not the first
	seen       map[string]bool
	ids        []string
}

// channel is one for a test's own questions, closed with the test.
func (w *world) channel() *amqp.Channel {
	w.t.Helper()
	conn, err := amqp.Dial(w.stack.Rabbit.URL(w.vhost))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	require.NoError(w.t, err)
	return ch
}

// audit declares the queue for what is published under the routing key. Call it before anything is.
func (w *world) audit(key string) *audit {
	w.t.Helper()
	a := &audit{w: w, queue: "audit", seen: map[string]bool{}}
	ch := w.channel()
	require.NoError(w.t, topology.DeclareExchange(ch, topology.Exchange))
	_, err := ch.QueueDeclare(a.queue, true, false, false, false, amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": int64(1_000_000)})
	require.NoError(w.t, err)
	require.NoError(w.t, ch.QueueBind(a.queue, key, topology.Exchange, false, nil))
	a.consume()
	return a
}

func (a *audit) consume() {
	a.w.t.Helper()
	ch := a.w.channel()
	require.NoError(a.w.t, ch.Qos(1000, 0, false))
	var err error
	a.deliveries, err = ch.ConsumeWithContext(a.w.t.Context(), a.queue, "", false, true, false, false, nil)
	require.NoError(a.w.t, err)
}

// read adds what is in the queue at this moment to what was read before, and returns the ids of all of it.
func (a *audit) read() []string {
	a.w.t.Helper()
	for end := a.mark(); !a.seen[end]; {
		m, ok := <-a.deliveries
		if !ok {
			a.again = true
			a.consume()
			continue
		}
		_ = m.Ack(false) // it comes again where the connection is gone
		hadAlready := a.again && m.Redelivered && a.seen[m.MessageId]
		a.seen[m.MessageId] = true
		if m.MessageId != end && !hadAlready {
			a.ids = append(a.ids, m.MessageId)
		}
	}
	return a.ids
}

// mark puts a message of its own behind all that is in the queue, and returns its id.
func (a *audit) mark() string {
	a.w.t.Helper()
	ch := a.w.channel()
	require.NoError(a.w.t, ch.Confirm(false))
	id := schema.NewID()
	confirm, err := ch.PublishWithDeferredConfirmWithContext(a.w.t.Context(), "", a.queue, true, false,
		amqp.Publishing{MessageId: id, DeliveryMode: amqp.Persistent})
	require.NoError(a.w.t, err)
	_, err = confirm.WaitContext(a.w.t.Context())
	require.NoError(a.w.t, err)
	return id
}

// settled waits until the queue has got nothing for a moment that is longer than a publish takes.
func (a *audit) settled() []string {
	a.w.t.Helper()
	before := -1
	a.w.waitFor("an audit that no longer grows", time.Minute, func() bool {
		pause(a.w.t, 100*time.Millisecond)
		n := len(a.read())
		same := n == before
		before = n
		return same
	})
	return a.ids
}
