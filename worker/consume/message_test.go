package consume

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"tailbox/schema/topology"
)

func TestCopyCarriesNothingThatTheBrokerActsOn(t *testing.T) {
	t.Parallel()
	d := amqp.Delivery{
		MessageId: "id", Type: "CustomerCreated", Body: []byte("{}"), Expiration: "1", UserId: "somebody", DeliveryMode: amqp.Transient,
		Headers: amqp.Table{
			"CC": []any{"elsewhere"}, "BCC": []any{"elsewhere"}, "x-death": []any{}, "x-first-death-queue": "q",
			"x-last-death-reason": "expired", "x-delivery-count": int64(3), "x-acquired-count": int64(3),
			HeaderAttempts: int64(3), HeaderError: "gap", headerWaitsFor: int64(2), headerWaitsBehind: "another",
			"traceparent": "00-1-2-03", "x-mine": "kept", "aggregate_id": "a",
		},
	}
	got := copyOf(d, amqp.Table{HeaderAttempts: int64(4)})
	require.Equal(t, amqp.Table{"traceparent": "00-1-2-03", "x-mine": "kept", "aggregate_id": "a", HeaderAttempts: int64(4)}, got.Headers)
	require.Empty(t, got.Expiration, "a dead letter must not expire")
	require.Empty(t, got.UserId, "the broker closes the channel on another user's id")
	require.Equal(t, amqp.Persistent, got.DeliveryMode)
	require.Contains(t, d.Headers, "x-death", "the delivery itself is not changed")
}

func TestDelaysGrowAndStayAtTheLast(t *testing.T) {
	t.Parallel()
	for i, delay := range topology.RetryDelays {
		require.Equal(t, delay, delayAfter(i+1))
	}
	require.Equal(t, topology.RetryDelays[len(topology.RetryDelays)-1], delayAfter(100))
}

func TestPausesAreDrawnBelowABoundThatDoubles(t *testing.T) {
	t.Parallel()
	for range 100 {
		pauses := newPauses(250*time.Millisecond, 5*time.Second)
		for bound := 250 * time.Millisecond; bound < 20*time.Second; bound *= 2 {
			pause := pauses.NextBackOff()
			require.GreaterOrEqual(t, pause, time.Duration(0))
			require.LessOrEqual(t, pause, min(bound, 5*time.Second)+1)
		}
	}
}

func TestSleepIsCutShort(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		require.True(t, sleep(time.Minute, nil))
		require.Equal(t, time.Minute, time.Since(began))

		cut := newLatch()
		time.AfterFunc(time.Second, func() { cut.set(nil) })
		require.False(t, sleep(time.Minute, cut.done))
		require.Equal(t, time.Minute+time.Second, time.Since(began))
	})
}

func TestTransientErrorsAreNotTheMessagesFault(t *testing.T) {
	t.Parallel()
	for _, err := range []error{
		driver.ErrBadConn, mysql.ErrInvalidConn,
		&mysql.MySQLError{Number: 1213}, &mysql.MySQLError{Number: 1205}, &mysql.MySQLError{Number: 1290},
		&mysql.MySQLError{Number: 1792}, &mysql.MySQLError{Number: 1040}, &mysql.MySQLError{Number: 1053},
		&mysql.MySQLError{Number: 1045}, &mysql.MySQLError{Number: 1146}, &mysql.MySQLError{Number: 1054},
	} {
		require.True(t, Transient(fmt.Errorf("insert: %w", err)), err)
	}
	for _, err := range []error{nil, errors.New("no"), &mysql.MySQLError{Number: 1062}, &mysql.MySQLError{Number: 1406}} {
		require.False(t, Transient(err), err)
	}
}

func TestDescriptionOfAnErrorNeverQuotesIt(t *testing.T) {
	t.Parallel()
	require.Equal(t, "mysql 1062", describe(fmt.Errorf("insert: %w", &mysql.MySQLError{Number: 1062, Message: "Duplicate entry 'ada@example.com'"})))
	require.Equal(t, "dial tcp: refused", describe(fmt.Errorf("begin: %w", &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("refused")})))
	require.Equal(t, "*errors.errorString", describe(fmt.Errorf("insert: %w", errors.New("ada@example.com"))))
}

func TestAggregateStaysOnItsShard(t *testing.T) {
	t.Parallel()
	used := map[int]bool{}
	for n := range 100 {
		d := amqp.Delivery{Headers: amqp.Table{"aggregate_type": "customer", "aggregate_id": fmt.Sprint(n)}}
		shard := shardOf(d, 8)
		require.Equal(t, shard, shardOf(d, 8))
		used[shard] = true
	}
	require.Len(t, used, 8)
	require.Zero(t, shardOf(amqp.Delivery{}, 1))
}

func FuzzReadRefusesOrGivesAnEvent(f *testing.F) {
	f.Add("id", "type", "customer", "a", int64(1), "2024-05-06T07:08:09.000010Z", []byte("{}"))
	f.Fuzz(func(t *testing.T, id, kind, aggregate, aggregateID string, version int64, at string, body []byte) {
		m, why := read(amqp.Delivery{MessageId: id, Type: kind, Body: body, Headers: amqp.Table{
			"aggregate_type": aggregate, "aggregate_id": aggregateID, "aggregate_version": version, "created_at": at,
		}})
		if (m == nil) == (why == nil) {
			t.Fatal("neither or both")
		}
		if why != nil && len(why.String()) > 300 {
			t.Fatal("the reason holds more than names")
		}
	})
}
