package topology_test

import (
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"tailbox/schema/schematest"
	"tailbox/schema/topology"
)

func TestMain(m *testing.M) { schematest.Main(m) }

func channel(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	require.NoError(t, err)
	return ch
}

func TestDeclaringTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	ch := channel(t, schematest.Vhost(t))
	c := topology.Customers("customers")
	require.NoError(t, c.Declare(ch))
	require.NoError(t, c.Declare(ch))
}

func TestAnotherQueueOfThatNameIsNamed(t *testing.T) {
	t.Parallel()
	url := schematest.Vhost(t)
	ch := channel(t, url)
	_, err := ch.QueueDeclare("customers", true, false, false, false, nil)
	require.NoError(t, err)
	require.ErrorContains(t, topology.Customers("customers").Declare(ch), `queue "customers" has x-`)
}

func TestAMessageInARetryQueueComesBackAfterItsDelay(t *testing.T) {
	t.Parallel()
	ch := channel(t, schematest.Vhost(t))
	c := topology.Customers("customers")
	require.NoError(t, c.Declare(ch))
	require.Equal(t, "customers.retry.1s", c.RetryQueue(time.Second))
	require.Equal(t, "customers.retry.2m", c.RetryQueue(2*time.Minute))
	require.Equal(t, "customers.dead", c.DeadQueue())

	messages, err := ch.ConsumeWithContext(t.Context(), "customers", "", false, false, false, false, nil)
	require.NoError(t, err)
	sent := time.Now()
	require.NoError(t, ch.PublishWithContext(t.Context(), "", c.RetryQueue(time.Second), true, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, MessageId: "m", Body: []byte("{}")}))
	select {
	case m := <-messages:
		require.Equal(t, "m", m.MessageId)
		require.GreaterOrEqual(t, time.Since(sent), time.Second)
		require.NoError(t, m.Reject(false))
	case <-time.After(20 * time.Second):
		t.Fatal("it does not come back")
	}
	require.Eventually(t, func() bool { // refused: to the dead letters
		_, ok, err := ch.Get(c.DeadQueue(), true)
		require.NoError(t, err)
		return ok
	}, 20*time.Second, 20*time.Millisecond)
}
