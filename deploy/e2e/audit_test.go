package e2e_test

import (
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/schema/topology"
)

// audit is a second queue on the exchange: it sees every message that was routed, in order, duplicates included.
type audit struct {
	w     *world
	queue string
	ids   []string
}

const (
	auditQueue   = "audit"
	markerPrefix = "marker-"
)

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

// bindAudit declares the audit queue. Call it before anything is published; its messages are read later.
func (w *world) bindAudit() {
	w.t.Helper()
	ch := w.channel()
	require.NoError(w.t, topology.DeclareExchange(ch, topology.Exchange))
	_, err := ch.QueueDeclare(auditQueue, true, false, false, false, amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": int64(1_000_000)})
	require.NoError(w.t, err)
	require.NoError(w.t, ch.QueueBind(auditQueue, "#", topology.Exchange, false, nil))
}

// read takes what is in the audit queue at this moment, adds it to what was read before and returns all of it.
//
// A marker is put behind it, and the queue is read until the marker comes. What has come by then and behind is acknowledged, so
// little goes back: what was on its way when the reading ended. It comes first the next time, because the queue has a delivery
// limit; without one RabbitMQ 3.10 would put it at the queue's end, and the order of deliveries would be lost.
func (a *audit) read() []string {
	a.w.t.Helper()
	ch := a.w.channel()
	marker := markerPrefix + schema.NewID()
	require.NoError(a.w.t, ch.PublishWithContext(a.w.t.Context(), "", a.queue, true, false, amqp.Publishing{MessageId: marker, DeliveryMode: amqp.Persistent}))
	require.NoError(a.w.t, ch.Qos(1000, 0, false))
	deliveries, err := ch.ConsumeWithContext(a.w.t.Context(), a.queue, marker, false, true, false, false, nil)
	require.NoError(a.w.t, err)
	unacknowledged, found := 0, false
	for m := range deliveries {
		switch {
		case m.MessageId == marker:
			found = true
			require.NoError(a.w.t, ch.Cancel(marker, false)) // what is under way still comes, then the range ends
		case strings.HasPrefix(m.MessageId, markerPrefix), m.Redelivered && slices.Contains(a.ids, m.MessageId):
			// of an earlier reading
		default:
			a.ids = append(a.ids, m.MessageId)
		}
		if unacknowledged++; unacknowledged == 500 || found {
			require.NoError(a.w.t, m.Ack(true))
			unacknowledged = 0
		}
	}
	require.True(a.w.t, found, "the broker is there")
	require.NoError(a.w.t, ch.Close())
	return a.ids
}

// audit binds the queue and returns what reads it.
func (w *world) audit() *audit {
	w.bindAudit()
	return &audit{w: w, queue: auditQueue}
}

// settled waits until the queue has been empty for a moment that is longer than a publish takes.
func (a *audit) settled() []string {
	a.w.t.Helper()
	before := -1
	a.w.waitFor("an audit queue that no longer grows", time.Minute, func() bool {
		pause(a.w.t, 100*time.Millisecond)
		n := len(a.read())
		same := n == before
		before = n
		return same
	})
	return a.ids
}
