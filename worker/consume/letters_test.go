package consume_test

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

func TestPoisonGoesToTheDeadLetterQueueAndTheRestGoesOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	poison := map[string]func(m *amqp.Publishing){
		"unreadable_message: message_id missing": func(m *amqp.Publishing) { m.MessageId = "" },
		"unreadable_message: aggregate_type missing, aggregate_id missing, aggregate_version missing or not a whole number, " +
			"created_at missing or not RFC 3339": func(m *amqp.Publishing) { m.Headers = nil },
		"unreadable_message: aggregate_version missing or not a whole number": func(m *amqp.Publishing) {
			m.Headers[schema.HeaderAggregateVersion] = int64(-1)
		},
		"payload_not_json":            func(m *amqp.Publishing) { m.Body = []byte(`{"email":"ada@example.com"`) },
		"unknown_type":                func(m *amqp.Publishing) { m.Type = "CustomerWed" },
		"payload_of_another_customer": func(m *amqp.Publishing) { m.Body = []byte(`{"id":"ada@example.com"}`) },
		"email_or_name_missing": func(m *amqp.Publishing) {
			m.Body = []byte(`{"id":"` + m.Headers[schema.HeaderAggregateID].(string) + `","name":"Ada Lovelace"}`)
		},
	}
	var good [][]schema.Event
	for _, spoil := range poison {
		m := message(schematest.Event())
		spoil(&m)
		b.send(t, m)
		good = append(good, customer(2))
		b.publish(t, good[len(good)-1]...)
	}
	w := b.start(t, consume.Config{}, effect.Handlers())

	for _, events := range good {
		b.applied(t, events)
	}
	for _, letter := range b.dead(t, len(poison)) {
		why, _ := letter.Headers[consume.HeaderError].(string)
		require.Contains(t, poison, why)
		delete(poison, why)
		require.EqualValues(t, 1, letter.Headers[consume.HeaderAttempts])
		at, err := time.Parse(schema.TimeFormat, letter.Headers[consume.HeaderFailedAt].(string))
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), at, patience)
		require.Equal(t, "application/json", letter.ContentType)
	}
	require.Empty(t, poison, "each kind has arrived")
	require.NoError(t, w.stop())
	require.Equal(t, 2*len(good), b.count(t, "inbox"), "poison leaves no inbox row, so that it can be sent again")
	b.empty(t, b.queue.Queue)
}

func TestReusedIDIsNeverDroppedInSilence(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.start(t, consume.Config{}, effect.Handlers())
	first := schematest.Event()
	other := schematest.Event(func(e *schema.Event) { e.ID = first.ID })
	b.publish(t, first)
	w.settled(t, "applied", 1)
	b.publish(t, other)

	letter := b.dead(t, 1)[first.ID]
	require.Equal(t, "id_reused", letter.Headers[consume.HeaderError])
	require.Equal(t, other.Payload, letter.Body)
	require.Zero(t, b.profile(t, other.AggregateID).version)
	require.EqualValues(t, 1, b.profile(t, first.AggregateID).version)
}

// failing is a handler that fails so many times before it does what the effect does.
func failing(times int32, failure error) (handlers map[string]consume.Handler, calls *atomic.Int32) {
	calls = &atomic.Int32{}
	handlers = effect.Handlers()
	created := handlers[effect.CustomerCreated]
	handlers[effect.CustomerCreated] = func(ctx context.Context, tx *sql.Tx, event schema.Event) error {
		if calls.Add(1) <= times {
			return errors.Join(created(ctx, tx, event), failure) // what it wrote has to go with the transaction
		}
		return created(ctx, tx, event)
	}
	return handlers, calls
}

func TestFailedEventIsTriedAgainLaterAndKeepsItsPlace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	handlers, _ := failing(1, errors.New("no such thing as ada@example.com"))
	w := b.start(t, consume.Config{GapWait: time.Millisecond, Batch: 1}, handlers) // the failure hits one try
	events := customer(3)
	b.publish(t, events...)

	b.applied(t, events)
	require.GreaterOrEqual(t, w.Stats().Messages["retried"], uint64(1))
	require.Zero(t, w.Stats().Messages["dead"])
	require.Equal(t, 3, b.count(t, "inbox"))
}

func TestEventThatFailsTooOftenIsADeadLetterThatCanBeSentAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	handlers, calls := failing(2, &mysql.MySQLError{Number: 1406, Message: "Data too long: ada@example.com"})
	w := b.start(t, consume.Config{MaxAttempts: 2}, handlers)
	event := schematest.Event(func(e *schema.Event) { e.Headers = map[string]string{"traceparent": "00-1-2-03"} })
	sent := message(event)
	sent.Headers["traceparent"] = event.Headers["traceparent"]
	b.send(t, sent)

	letter := b.dead(t, 1)[event.ID]
	require.EqualValues(t, 2, calls.Load())
	require.Equal(t, "handler_failed: mysql 1406", letter.Headers[consume.HeaderError])
	require.EqualValues(t, 2, letter.Headers[consume.HeaderAttempts])
	require.NotContains(t, letter.Headers, "x-death", "what the broker noted on the way is not carried on")
	for name, value := range sent.Headers {
		require.Equal(t, value, letter.Headers[name], name)
	}
	require.Equal(t, sent.Body, letter.Body)
	require.Equal(t, sent.Type, letter.Type)
	require.Equal(t, sent.AppId, letter.AppId)
	require.Equal(t, sent.Timestamp.Unix(), letter.Timestamp.Unix())
	require.Zero(t, b.count(t, "inbox"))

	b.send(t, sent)
	w.settled(t, "applied", 1)
}

func TestPanicOfAHandlerIsAFailureOfItsMessage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	handlers := map[string]consume.Handler{
		effect.CustomerCreated: func(context.Context, *sql.Tx, schema.Event) error { panic("ada@example.com") },
	}
	b.start(t, consume.Config{MaxAttempts: 1}, handlers)
	event := schematest.Event()
	b.publish(t, event)
	require.Equal(t, "handler_panicked: string", b.dead(t, 1)[event.ID].Headers[consume.HeaderError])
}

func TestErrorThatPassesSpendsNoAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	handlers, calls := failing(3, &mysql.MySQLError{Number: 1213, Message: "Deadlock found"})
	w := b.start(t, consume.Config{MaxAttempts: 1}, handlers)
	events := customer(2)
	b.publish(t, events...)
	b.applied(t, events)
	require.EqualValues(t, 4, calls.Load())
	require.Zero(t, w.Stats().Messages["retried"])
	require.Empty(t, w.Unready())
}

func TestMessageIsKeptWhenItsRetryQueueIsMissing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	handlers, _ := failing(1, errors.New("not yet"))
	w := b.start(t, consume.Config{}, handlers)
	w.ready(t)
	_, err := b.ch.QueueDelete(b.queue.RetryQueue(time.Second), false, false, false)
	require.NoError(t, err)

	// The broker confirms what it returned. Were it taken for handed over, the event would be gone.
	event := schematest.Event()
	b.publish(t, event)
	b.applied(t, []schema.Event{event})
}
