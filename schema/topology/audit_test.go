package topology_test

import (
	"fmt"
	"maps"
	"net/url"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"tailbox/schema/schematest"
	"tailbox/schema/topology"
)

// connection is to a fresh vhost.
func connection(t *testing.T) *amqp.Connection {
	t.Helper()
	conn, err := amqp.Dial(schematest.Vhost(t))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// on is a channel for one call, which the broker may close.
func on(t *testing.T, conn *amqp.Connection) *amqp.Channel {
	t.Helper()
	ch, err := conn.Channel()
	require.NoError(t, err)
	return ch
}

func TestAQueueThatCouldLoseMessagesIsNamedAndUsedOnceItIsMended(t *testing.T) {
	t.Parallel()
	conn := connection(t)
	c := topology.Customers("customers")
	require.NoError(t, c.Ensure(conn))
	dead := amqp.Table{"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-delivery-limit": int64(1 << 30)}
	work := amqp.Table{"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-delivery-limit": int64(1000), "x-single-active-consumer": true,
		"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "customers.dead", "x-dead-letter-strategy": "at-least-once"}
	retry := amqp.Table{"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-message-ttl": int64(1000),
		"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "customers", "x-dead-letter-strategy": "at-least-once"}
	with := func(args amqp.Table, changes ...any) amqp.Table { // nil takes an argument away
		args = maps.Clone(args)
		for i := 0; i < len(changes); i += 2 {
			args[changes[i].(string)] = changes[i+1]
			if changes[i+1] == nil {
				delete(args, changes[i].(string))
			}
		}
		return args
	}
	for _, m := range []struct {
		queue         string
		durable, auto bool
		args          amqp.Table
		says          string
	}{
		{"customers.dead", false, false, nil, "has durable false and needs true"},
		{"customers.dead", true, true, nil, "has auto_delete true and needs false"},
		{"customers.dead", true, false, nil, "has x-overflow none and needs reject-publish"},
		{"customers.dead", true, false, with(dead, "x-queue-type", nil, "x-delivery-limit", nil), "has x-"},
		{"customers.dead", true, false, with(dead, "x-queue-type", nil, "x-delivery-limit", nil, "x-overflow", "drop-head", "x-max-length", int64(5)), "has x-max-length 5 and needs none"},
		{"customers.dead", true, false, with(dead, "x-overflow", "drop-head"), "has x-overflow drop-head and needs reject-publish"},
		{"customers.dead", true, false, with(dead, "x-message-ttl", int64(60000)), "has x-message-ttl 60000 and needs none"},
		{"customers.dead", true, false, with(dead, "x-delivery-limit", int64(20)), "has x-delivery-limit 20 and needs 1073741824"},
		{"customers", true, false, with(work, "x-dead-letter-exchange", nil, "x-dead-letter-routing-key", nil, "x-dead-letter-strategy", nil), "has x-dead-letter-exchange none and needs \"\""},
		{"customers", true, false, with(work, "x-dead-letter-routing-key", "elsewhere"), "has x-dead-letter-routing-key elsewhere and needs customers.dead"},
		{"customers", true, false, with(work, "x-dead-letter-strategy", "at-most-once"), "has x-dead-letter-strategy at-most-once and needs at-least-once"},
		{"customers", true, false, with(work, "x-single-active-consumer", nil), "has x-single-active-consumer none and needs true"},
		{"customers", true, false, with(work, "x-max-length", int64(5)), "has x-max-length 5 and needs none"},
		{"customers.retry.1s", true, false, with(retry, "x-message-ttl", int64(5000)), "has x-message-ttl 5000 and needs 1000"},
		{"customers.retry.1s", true, false, with(retry, "x-expires", int64(600000)), "has x-expires 600000 and needs none"},
	} {
		_, err := on(t, conn).QueueDelete(m.queue, false, false, false)
		require.NoError(t, err)
		_, err = on(t, conn).QueueDeclare(m.queue, m.durable, m.auto, false, false, m.args)
		if !m.durable && err != nil { // RabbitMQ 4.3 does not make such a queue any more
			continue
		}
		require.NoError(t, err, m.says)
		err = c.Ensure(conn)
		var found *topology.Mismatch
		require.ErrorAs(t, err, &found, m.says)
		require.Equal(t, m.queue, found.Name)
		require.ErrorContains(t, err, fmt.Sprintf("queue %q %s", m.queue, m.says))
		require.ErrorContains(t, err, "To mend it, delete it once it is empty")
		_, err = on(t, conn).QueueDelete(m.queue, false, false, false)
		require.NoError(t, err)
	}
	require.NoError(t, c.Ensure(conn), "and what was missing is there again")
	_, err := on(t, conn).QueueDeclarePassive("customers.dead", true, false, false, false, nil)
	require.NoError(t, err)
}

func TestAllThatIsWrongIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	conn := connection(t)
	require.NoError(t, on(t, conn).ExchangeDeclare(topology.Exchange, "topic", true, true, false, false, nil))
	for _, queue := range []string{"customers", "customers.dead"} {
		_, err := on(t, conn).QueueDeclare(queue, true, false, false, false, nil)
		require.NoError(t, err)
	}
	err := topology.Customers("customers").Ensure(conn)
	for _, part := range []string{`exchange "outbox.events" has auto_delete true`, `queue "customers" has`, `queue "customers.dead" has`} {
		require.ErrorContains(t, err, part)
	}
	require.NotContains(t, err.Error(), "retry")
}

func TestAnExchangeIsUsedWhateverItsTypeAsLongAsItLosesNothing(t *testing.T) {
	t.Parallel()
	conn := connection(t)
	for _, m := range []struct {
		kind                    string
		durable, auto, internal bool
		args                    amqp.Table
		says                    string
	}{
		{kind: "topic", durable: true},
		{kind: "fanout", durable: true},
		{kind: "headers", durable: true, args: amqp.Table{"alternate-exchange": "elsewhere"}},
		{kind: "topic", durable: false, says: `exchange "e" has durable false and needs true: it is gone when the broker restarts. To mend it, note its bindings and delete it`},
		{kind: "direct", durable: true, auto: true, says: `exchange "e" has auto_delete true and needs false`},
		{kind: "headers", durable: true, internal: true, says: `exchange "e" has internal true and needs false`},
	} {
		require.NoError(t, on(t, conn).ExchangeDeclare("e", m.kind, m.durable, m.auto, m.internal, false, m.args))
		err := topology.EnsureExchange(conn, "e")
		if m.says == "" {
			require.NoError(t, err, m.kind)
		} else {
			require.ErrorContains(t, err, m.says)
		}
		require.NoError(t, on(t, conn).ExchangeDelete("e", false, false))
	}
	require.NoError(t, topology.EnsureExchange(conn, "e"))
	require.NoError(t, topology.DeclareExchange(on(t, conn), "e"), "a missing one was declared as a durable topic exchange")
}

func TestAUserWhoMayNotLookAtTheExchangeUsesItAsItIs(t *testing.T) {
	t.Parallel()
	address := schematest.Vhost(t)
	conn, err := amqp.Dial(address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, on(t, conn).ExchangeDeclare("e", "topic", false, false, false, false, nil)) // which would be a mismatch

	broker := schematest.Servers(t).Rabbit
	vhost := address[strings.LastIndex(address, "/")+1:]
	user := "u" + vhost
	_, err = broker.API(t.Context(), "PUT", "/users/"+user, map[string]string{"password": "p", "tags": ""})
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = broker.API(t.Context(), "DELETE", "/users/"+user, nil) })
	_, err = broker.API(t.Context(), "PUT", "/permissions/"+vhost+"/"+user, map[string]string{"configure": "", "write": ".*", "read": ""})
	require.NoError(t, err)
	least, err := url.Parse(address)
	require.NoError(t, err)
	least.User = url.UserPassword(user, "p")
	theirs, err := amqp.Dial(least.String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = theirs.Close() })
	require.NoError(t, topology.EnsureExchange(theirs, "e"))
}

// TestWhereAFullDeadLetterQueueIsSetByPolicyItRefusesInsteadOfDropping: operators limit queues by policy, whose default is to
// drop the oldest message.
func TestWhereAFullDeadLetterQueueIsSetByPolicyItRefusesInsteadOfDropping(t *testing.T) {
	t.Parallel()
	address := schematest.Vhost(t)
	conn, err := amqp.Dial(address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, topology.EnsureUnrouted(conn))
	vhost := address[strings.LastIndex(address, "/")+1:]
	_, err = schematest.Servers(t).Rabbit.API(t.Context(), "PUT", "/policies/"+vhost+"/limit", map[string]any{
		"pattern": ".*", "apply-to": "queues", "definition": map[string]any{"max-length": 1}})
	require.NoError(t, err)

	ch := on(t, conn)
	require.NoError(t, ch.Confirm(false))
	refused := func(id string) bool {
		confirm, err := ch.PublishWithDeferredConfirm(topology.Unrouted, "", true, false, amqp.Publishing{DeliveryMode: amqp.Persistent, MessageId: id})
		require.NoError(t, err)
		return !confirm.Wait()
	}
	require.False(t, refused("first"))
	require.Eventually(t, func() bool { return refused("later") }, 20*time.Second, 10*time.Millisecond, "the queue is full")
	m, ok, err := ch.Get(topology.Unrouted, true)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "first", m.MessageId)
}
