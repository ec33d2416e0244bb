package e2e_test

import (
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/schema/topology"
)

// audit is a stream on the exchange: it keeps every message that was routed, in order, duplicates included. Reading takes
// nothing out of it, so what was read cannot come again, nor in another order.
type audit struct {
	w    *world
	name string
	next int64 // offset of the first message that is not read
	ids  []string
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

// audit declares the stream for what is published under the routing key. Call it before anything is.
func (w *world) audit(key string) *audit {
	w.t.Helper()
	a := &audit{w: w, name: "audit"}
	ch := w.channel()
	require.NoError(w.t, topology.DeclareExchange(ch, topology.Exchange))
	_, err := ch.QueueDeclare(a.name, true, false, false, false, amqp.Table{"x-queue-type": "stream"})
	require.NoError(w.t, err)
	require.NoError(w.t, ch.QueueBind(a.name, key, topology.Exchange, false, nil))
	return a
}

// read adds what the stream has got since the last reading to what was read before, and returns the ids of all of it.
// A message of its own marks where this reading ends.
func (a *audit) read() []string {
	a.w.t.Helper()
	ch := a.w.channel()
	marker := schema.NewID()
	require.NoError(a.w.t, ch.PublishWithContext(a.w.t.Context(), "", a.name, true, false, amqp.Publishing{MessageId: marker}))
	require.NoError(a.w.t, ch.Qos(1000, 0, false))
	deliveries, err := ch.ConsumeWithContext(a.w.t.Context(), a.name, marker, false, false, false, false, amqp.Table{"x-stream-offset": a.next})
	require.NoError(a.w.t, err)
	for m := range deliveries {
		offset, ok := m.Headers["x-stream-offset"].(int64)
		require.True(a.w.t, ok, "a stream says where a message is: %v", m.Headers)
		require.NoError(a.w.t, m.Ack(false)) // asks for more
		if offset < a.next {
			continue // a stream is read from the start of a chunk
		}
		a.next = offset + 1
		if m.MessageId == marker {
			require.NoError(a.w.t, ch.Close())
			return a.ids
		}
		a.ids = append(a.ids, m.MessageId)
	}
	require.Fail(a.w.t, "the broker went away during a reading")
	return nil
}

// settled waits until the stream has been still for a moment that is longer than a publish takes.
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
