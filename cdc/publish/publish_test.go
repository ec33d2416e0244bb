package publish_test

import (
	"context"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/publish"
	"tailbox/cdc/relay"
	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/schema/topology"
)

func TestMain(m *testing.M) { schematest.Main(m) }

// bundle is a vhost with a publisher to it, and a channel of the test's own.
type bundle struct {
	t    *testing.T
	url  string
	name string // of the publisher's connections
	pub  *publish.Publisher
	ch   *amqp.Channel
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{t: t, url: schematest.Vhost(t)}
	b.name = "publish test " + b.url[strings.LastIndex(b.url, "/"):]
	b.configure(publish.Config{})
	conn, err := amqp.Dial(b.url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	b.ch, err = conn.Channel()
	require.NoError(t, err)
	return b
}

// configure makes the publisher anew.
func (b *bundle) configure(cfg publish.Config) {
	b.t.Helper()
	var err error
	cfg.Name, cfg.Window = b.name, 100
	if cfg.URL == "" {
		cfg.URL = ops.Secret(b.url)
	}
	if _, fixed := cfg.Exchange.Fixed(); fixed {
		cfg.Exchange = template(b.t, topology.Exchange)
	}
	cfg.RoutingKey = template(b.t, "{aggregate_type}.{type}")
	b.pub, err = publish.New(cfg)
	require.NoError(b.t, err)
}

func template(t *testing.T, text string) publish.Template {
	t.Helper()
	made, err := publish.ParseTemplate(text)
	require.NoError(t, err)
	return made
}

func (b *bundle) open() relay.Session {
	b.t.Helper()
	s, err := b.pub.Open(b.t.Context())
	require.NoError(b.t, err)
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = s.Close(ctx)
	})
	return s
}

// rows are n events, from seq on.
func rows(seq uint64, n int, change ...func(*schema.Event)) []relay.Row {
	var list []relay.Row
	for i := range n {
		list = append(list, relay.Row{Seq: seq + uint64(i), Event: schematest.Event(change...), Position: "binlog.000001:4"})
	}
	return list
}

// outcome is the next one, within a bound.
func (b *bundle) outcome(s relay.Session) relay.Outcome {
	b.t.Helper()
	select {
	case o, ok := <-s.Outcomes():
		require.True(b.t, ok, "the session ended")
		return o
	case <-time.After(20 * time.Second):
		b.t.Fatal("no outcome")
	}
	return relay.Outcome{}
}

// confirmed waits until all up to seq are confirmed.
func (b *bundle) confirmed(s relay.Session, seq uint64) {
	b.t.Helper()
	for {
		o := b.outcome(s)
		require.Equal(b.t, relay.Confirmed, o.Kind)
		if o.Seq == seq {
			return
		}
	}
}

// unknown waits until the session has ended without another outcome.
func (b *bundle) unknown(s relay.Session) {
	b.t.Helper()
	select {
	case o, ok := <-s.Outcomes():
		require.False(b.t, ok, "outcome %v", o)
	case <-time.After(20 * time.Second):
		b.t.Fatal("the session does not end")
	}
}

func TestAConfirmedEventIsInTheQueueWithTheContractsProperties(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, topology.Customers("customers").Declare(b.ch))
	s := b.open()
	batch := rows(1, 60, func(e *schema.Event) {
		e.AggregateVersion = 7
		e.Payload = []byte(`{ "a" : 1.0 }`)
		e.Headers = map[string]string{"traceparent": "00-a-b-01"}
	})
	s.Publish(batch[:20])
	s.Publish(batch[20:])
	b.confirmed(s, 60)

	messages, err := b.ch.ConsumeWithContext(t.Context(), "customers", "", true, false, false, false, nil)
	require.NoError(t, err)
	for _, row := range batch {
		m, e := <-messages, row.Event
		require.Equal(t, "customer.CustomerCreated", m.RoutingKey)
		require.Equal(t, e.ID, m.MessageId)
		require.Equal(t, e.Type, m.Type)
		require.Equal(t, e.CreatedAt.Truncate(time.Second), m.Timestamp.UTC())
		require.Equal(t, "application/json", m.ContentType)
		require.Equal(t, amqp.Persistent, m.DeliveryMode)
		require.Equal(t, "tailbox", m.AppId)
		require.Equal(t, string(e.Payload), string(m.Body))
		require.Equal(t, e.AggregateType, m.Headers["aggregate_type"])
		require.Equal(t, e.AggregateID, m.Headers["aggregate_id"])
		require.Equal(t, int64(7), m.Headers["aggregate_version"])
		require.Equal(t, e.CreatedAt.Format("2006-01-02T15:04:05.000000Z"), m.Headers["created_at"])
		require.Equal(t, "binlog.000001:4", m.Headers["source_position"])
		require.Equal(t, "00-a-b-01", m.Headers["traceparent"])
	}
}

func TestAnEventThatReachesNoQueueIsReturnedNeverConfirmed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, topology.Customers("customers").Declare(b.ch))
	s := b.open()
	var batch []relay.Row
	for seq := range uint64(90) { // every third is unroutable
		kind := "customer"
		if seq%3 == 2 {
			kind = "nobody"
		}
		batch = append(batch, rows(seq+1, 1, func(e *schema.Event) { e.AggregateType = kind })...)
	}
	s.Publish(batch)
	through := uint64(0)
	for seq := uint64(3); seq <= 90; seq += 3 {
		o := b.outcome(s)
		for o.Kind == relay.Confirmed {
			require.Greater(t, o.Seq, through)
			require.Less(t, o.Seq, seq, "row %d is unroutable", seq)
			through = o.Seq
			o = b.outcome(s)
		}
		require.Equal(t, relay.Outcome{Kind: relay.Returned, Seq: seq}, o)
		require.Equal(t, seq-1, through)
	}
}

func TestAParkedEventIsConfirmedInTheUnroutedQueueWithItsRoutingKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.configure(publish.Config{Park: true})
	s := b.open()
	batch := rows(1, 2)
	s.Publish(batch)
	require.Equal(t, relay.Returned, b.outcome(s).Kind)
	require.Equal(t, relay.Returned, b.outcome(s).Kind)
	batch[0].Parked, batch[1].Parked = true, true
	s.Publish(batch)
	b.confirmed(s, 2)
	for _, row := range batch {
		m, ok, err := b.ch.Get(topology.Unrouted, true)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, row.Event.ID, m.MessageId)
		require.Equal(t, "customer.CustomerCreated", m.RoutingKey)
	}
}

func TestADeletedExchangeEndsTheSessionAndTheNextDeclaresIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.open()
	require.NoError(t, b.ch.ExchangeDelete(topology.Exchange, false, false))
	s.Publish(rows(1, 3))
	for o := range s.Outcomes() {
		require.NotEqual(t, relay.Confirmed, o.Kind)
	}
	var missing *relay.TopologyError
	require.ErrorAs(t, s.Err(), &missing)

	require.NoError(t, topology.Customers("customers").Declare(b.ch))
	s = b.open()
	s.Publish(rows(1, 3))
	b.confirmed(s, 3)
}

func TestAnExchangeOfAnotherTypeIsUsedAsItIs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.ch.ExchangeDeclare(topology.Exchange, "fanout", true, false, false, false, nil))
	_, err := b.ch.QueueDeclare("all", true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
	require.NoError(t, err)
	require.NoError(t, b.ch.QueueBind("all", "", topology.Exchange, false, nil))
	s := b.open()
	s.Publish(rows(1, 3))
	b.confirmed(s, 3)
}

func TestAConnectionThatTheBrokerClosesEndsTheSession(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.open()
	vhost := b.url[strings.LastIndex(b.url, "/")+1:]
	_, err := schematest.Servers(t).Rabbit.Ctl(t.Context(), "close_all_connections", "--vhost", vhost, "the test says so")
	require.NoError(t, err)
	for range s.Outcomes() {
		t.Error("nothing was published")
	}
	require.ErrorContains(t, s.Err(), "320")
}

func TestAnEventThatCannotBeAMessageIsPoisonAndTheRestGoesOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, topology.Customers("customers").Declare(b.ch))
	s := b.open()
	batch := append(rows(1, 2), rows(3, 1, func(e *schema.Event) { e.Type = strings.Repeat("x", 250) })...)
	s.Publish(append(batch, rows(4, 2)...))
	b.confirmed(s, 2)
	o := b.outcome(s)
	require.Equal(t, relay.Poison, o.Kind)
	require.Equal(t, uint64(3), o.Seq)
	require.ErrorContains(t, o.Err, "the routing key has 259 bytes, AMQP allows 255")
	b.confirmed(s, 5)
}

// TestHeadersFillOneFrameAndNoMore: an event with headers just below the limit is a message, one with more is poison and costs no
// session.
func TestHeadersFillOneFrameAndNoMore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, topology.Customers("customers").Declare(b.ch))
	s := b.open()
	for seq, size := range []int{100_000, 131_072 - 600, 131_072, 1_000_000} {
		batch := rows(uint64(seq+1), 1, func(e *schema.Event) { e.Headers = map[string]string{"note": strings.Repeat("x", size)} })
		s.Publish(batch)
		if size < 131_072 {
			b.confirmed(s, uint64(seq+1))
			continue
		}
		o := b.outcome(s)
		require.Equal(t, relay.Poison, o.Kind)
		require.ErrorContains(t, o.Err, "frame_max is 131072")
	}
	s.Publish(rows(5, 1))
	b.confirmed(s, 5)
}

func TestTheExchangeMayBeMadeForEachEvent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.configure(publish.Config{Exchange: template(t, "events.{aggregate_type}")})
	for _, kind := range []string{"customer", "order"} {
		require.NoError(t, b.ch.ExchangeDeclare("events."+kind, "fanout", true, false, false, false, nil))
		_, err := b.ch.QueueDeclare(kind, true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
		require.NoError(t, err)
		require.NoError(t, b.ch.QueueBind(kind, "", "events."+kind, false, nil))
	}
	s := b.open()
	batch := append(rows(1, 1), rows(2, 1, func(e *schema.Event) { e.AggregateType = "order" })...)
	s.Publish(batch)
	b.confirmed(s, 2)
	for i, queue := range []string{"customer", "order"} {
		m, ok, err := b.ch.Get(queue, true)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, batch[i].Event.ID, m.MessageId)
	}
}

func TestACloudEventHasItsAttributesAsHeaders(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.configure(publish.Config{Format: publish.Format{CloudEvents: true, Source: "/tailbox/default"}, Park: true})
	s := b.open()
	batch := rows(1, 1)
	batch[0].Parked = true // straight to a queue that can be looked into
	s.Publish(batch)
	b.confirmed(s, 1)
	m, ok, err := b.ch.Get(topology.Unrouted, true)
	require.NoError(t, err)
	require.True(t, ok)
	e := batch[0].Event
	require.Equal(t, "application/json", m.ContentType)
	for name, want := range map[string]string{
		"specversion": "1.0", "id": e.ID, "source": "/tailbox/default/customer", "type": "CustomerCreated", "subject": e.AggregateID,
		"time": e.CreatedAt.Format(schema.TimeFormat),
	} {
		require.Equal(t, want, m.Headers["cloudEvents_"+name], name)
	}
	require.Equal(t, string(e.Payload), string(m.Body))
}

func TestATemplateTakesEveryFieldAndRefusesOthers(t *testing.T) {
	t.Parallel()
	e := schematest.Event(func(e *schema.Event) { e.Headers = map[string]string{"tenant": "acme"} })
	made := template(t, "{header.tenant}/{aggregate_type}.{type}.{aggregate_version}.{id}.{aggregate_id}.{created_at}{header.none}")
	require.Equal(t, "acme/customer.CustomerCreated.1."+e.ID+"."+e.AggregateID+"."+e.CreatedAt.Format(schema.TimeFormat), made.For(&e))
	for _, text := range []string{"", "{nobody}", "{type", "{header.}", strings.Repeat("x", 256)} {
		_, err := publish.ParseTemplate(text)
		require.Error(t, err, text)
	}
}

func TestOpenTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	b := setup(t)
	wrong, err := publish.New(publish.Config{
		URL: ops.Secret(strings.Replace(b.url, "guest:guest", "guest:wrong", 1)), Exchange: template(t, "x"), RoutingKey: template(t, "{type}")})
	require.NoError(t, err)
	_, err = wrong.Open(t.Context())
	require.ErrorContains(t, err, "403")
	require.NotContains(t, err.Error(), "wrong")

	_, err = publish.New(publish.Config{URL: "http://x"})
	require.ErrorContains(t, err, "AMQP_URL: it begins with neither amqp:// nor amqps://")
}
