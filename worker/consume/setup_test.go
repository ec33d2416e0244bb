package consume_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/schema/topology"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

const patience = 60 * time.Second

// bundle is a database and a vhost of the test's own, with the queues declared.
type bundle struct {
	db    *sql.DB
	url   string
	queue topology.Consumer
	ch    *amqp.Channel // the test's own, in confirm mode
}

func setup(t *testing.T) *bundle {
	t.Helper()
	dsn, err := ops.ParseDSN("MYSQL_DSN", ops.Secret(schematest.DB(t)), ops.TLSFiles{})
	require.NoError(t, err)
	dsn.InterpolateParams = true
	db, err := ops.OpenMySQL(dsn, 12)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })

	b := &bundle{db: db, url: schematest.Vhost(t), queue: topology.Customers(topology.CustomersQueue)}
	b.reconnect(t)
	require.NoError(t, b.queue.Declare(b.ch))
	return b
}

// reconnect gives the test a connection of its own.
func (b *bundle) reconnect(t *testing.T) {
	t.Helper()
	conn, err := amqp.Dial(b.url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() }) // it may have been closed from the broker's side
	b.ch, err = conn.Channel()
	require.NoError(t, err)
	require.NoError(t, b.ch.Confirm(false))
}

// message is an event as the relay publishes it.
func message(e schema.Event) amqp.Publishing {
	return amqp.Publishing{
		Headers: amqp.Table{
			schema.HeaderAggregateType:    e.AggregateType,
			schema.HeaderAggregateID:      e.AggregateID,
			schema.HeaderAggregateVersion: int64(e.AggregateVersion),
			schema.HeaderCreatedAt:        e.CreatedAt.Format(schema.TimeFormat),
			schema.HeaderSourcePosition:   "binlog.000001:4",
		},
		ContentType: "application/json", DeliveryMode: amqp.Persistent, AppId: "tailbox",
		MessageId: e.ID, Type: e.Type, Timestamp: e.CreatedAt, Body: e.Payload,
	}
}

func (b *bundle) publish(t *testing.T, events ...schema.Event) {
	t.Helper()
	messages := make([]amqp.Publishing, len(events))
	for i, e := range events {
		messages[i] = message(e)
	}
	b.send(t, messages...)
}

// send returns after the broker has confirmed all messages.
func (b *bundle) send(t *testing.T, messages ...amqp.Publishing) {
	t.Helper()
	confirms := make([]*amqp.DeferredConfirmation, len(messages))
	for i, m := range messages {
		var err error
		confirms[i], err = b.ch.PublishWithDeferredConfirm(b.queue.Exchange, "customer."+m.Type, true, false, m)
		require.NoError(t, err)
	}
	for _, confirm := range confirms {
		require.True(t, confirm.Wait())
	}
}

// customer is the first events of one customer: created, then updated.
func customer(events int) []schema.Event {
	first := schematest.Event()
	all := []schema.Event{first}
	for version := 2; version <= events; version++ {
		all = append(all, schematest.Event(func(e *schema.Event) {
			e.AggregateID, e.AggregateVersion, e.Type = first.AggregateID, uint64(version), effect.CustomerUpdated
		}))
	}
	return all
}

func shuffled(events []schema.Event, seed uint64) []schema.Event {
	mixed := append([]schema.Event(nil), events...)
	rand.New(rand.NewPCG(seed, seed)).Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
	return mixed
}

// running is a worker that runs until it is stopped, at the latest when the test ends.
type running struct {
	*consume.Worker
	stop func() error
}

func (b *bundle) start(t *testing.T, cfg consume.Config, handlers map[string]consume.Handler) running {
	t.Helper()
	worker, err := consume.New(b.db, ops.Secret(b.url), b.queue, handlers, cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	stopped, result := false, error(nil)
	stop := func() error {
		if cancel(); !stopped {
			stopped, result = true, <-ended
		}
		return result
	}
	t.Cleanup(func() { _ = stop() }) // a test that cares has asked for the error before
	return running{worker, stop}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	require.Eventually(t, holds, patience, 10*time.Millisecond, what)
}

// settled waits until a worker has settled so many messages with an outcome.
func (r running) settled(t *testing.T, outcome string, count int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d messages %s", count, outcome), func() bool {
		return r.Stats().Messages[outcome] >= uint64(count)
	})
}

func (r running) ready(t *testing.T) {
	t.Helper()
	eventually(t, "ready", func() bool { return len(r.Unready()) == 0 })
}

type profile struct {
	version, applied uint64
	status, lastID   string
}

func (b *bundle) profile(t *testing.T, id string) profile {
	t.Helper()
	var p profile
	err := b.db.QueryRowContext(t.Context(),
		"SELECT version, events_applied, status, last_event_id FROM customer_profiles WHERE customer_id = ?", id).
		Scan(&p.version, &p.applied, &p.status, &p.lastID)
	if !errors.Is(err, sql.ErrNoRows) {
		require.NoError(t, err)
	}
	return p
}

// applied waits until a customer's events are all applied, and requires that each was applied once.
func (b *bundle) applied(t *testing.T, events []schema.Event) {
	t.Helper()
	want := uint64(len(events))
	eventually(t, "all events of a customer applied", func() bool {
		return b.profile(t, events[0].AggregateID).version == want
	})
	got := b.profile(t, events[0].AggregateID)
	require.Equal(t, want, got.applied, "each event is applied once")
	require.Equal(t, events[len(events)-1].ID, got.lastID)
}

func (b *bundle) database(t *testing.T) string {
	t.Helper()
	var name string
	require.NoError(t, b.db.QueryRowContext(t.Context(), "SELECT DATABASE()").Scan(&name))
	return name
}

func (b *bundle) count(t *testing.T, table string) int {
	t.Helper()
	var n int
	require.NoError(t, b.db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n))
	return n
}

// dead takes so many messages from the dead-letter queue, by message id.
func (b *bundle) dead(t *testing.T, count int) map[string]amqp.Delivery {
	t.Helper()
	letters := map[string]amqp.Delivery{}
	eventually(t, "dead letters", func() bool {
		d, ok, err := b.ch.Get(b.queue.DeadQueue(), true)
		require.NoError(t, err)
		if ok {
			letters[d.MessageId] = d
		}
		return len(letters) == count
	})
	return letters
}

// put sends messages to a queue as they came from another one.
func (b *bundle) put(t *testing.T, queue string, messages ...amqp.Delivery) {
	t.Helper()
	for _, d := range messages {
		confirm, err := b.ch.PublishWithDeferredConfirm("", queue, true, false, amqp.Publishing{
			Headers: d.Headers, ContentType: d.ContentType, DeliveryMode: amqp.Persistent, MessageId: d.MessageId, Type: d.Type,
			Timestamp: d.Timestamp, AppId: d.AppId, Body: d.Body,
		})
		require.NoError(t, err)
		require.True(t, confirm.Wait())
	}
}

// empty requires that a queue has no message ready.
func (b *bundle) empty(t *testing.T, queue string) {
	t.Helper()
	eventually(t, queue+" is empty", func() bool {
		q, err := b.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		require.NoError(t, err)
		return q.Messages == 0
	})
}

// cut closes all connections to the bundle's vhost from the broker's side.
func (b *bundle) cut(t *testing.T) {
	t.Helper()
	uri, err := url.Parse(b.url)
	require.NoError(t, err)
	_, err = schematest.Servers(t).Rabbit.Ctl(t.Context(), "close_all_connections", "--vhost", strings.TrimPrefix(uri.Path, "/"), "test")
	require.NoError(t, err)
}
