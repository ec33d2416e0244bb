package quarantine_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/audit"
	"tailbox/cdc/quarantine"
	"tailbox/cdc/relay"
	"tailbox/cdc/relay/relaytest"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

func TestMain(m *testing.M) { schematest.Main(m) }

// bundle is a quarantine of a relay that leads in epoch 7, in front of a broker that does what it is told.
type bundle struct {
	t      *testing.T
	db     *sql.DB
	store  *quarantine.Store
	audit  *audit.Log
	broker *broker

	mu     sync.Mutex
	epoch  uint64            // that the relay believes in; 0: it does not lead
	outbox map[string][]byte // payloads that the outbox table has
}

func setup(t *testing.T) *bundle {
	t.Helper()
	db := schematest.Open(t, schematest.DB(t))
	b := &bundle{t: t, db: db, audit: audit.New(db, "default"), broker: &broker{Broker: relaytest.NewBroker()}, epoch: 7, outbox: map[string][]byte{}}
	b.exec("INSERT INTO relay_checkpoint (relay, holder, epoch) VALUES ('default', 'test', 7), ('other', 'test', 7)")
	b.store = b.of("default")
	return b
}

func (b *bundle) of(name string) *quarantine.Store {
	return quarantine.New(b.db, name, quarantine.Config{
		Publisher: b.broker, Audit: b.audit,
		Leading: func() (uint64, bool) {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.epoch, b.epoch > 0
		},
		Payload: func(_ context.Context, id string) ([]byte, bool, error) {
			payload, found := b.outbox[id]
			return payload, found, nil
		},
	})
}

func (b *bundle) lead(epoch uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.epoch = epoch
}

func (b *bundle) exec(query string, args ...any) {
	b.t.Helper()
	_, err := b.db.ExecContext(b.t.Context(), query, args...)
	require.NoError(b.t, err)
}

var errTooLong = errors.New("the type has 300 bytes, AMQP allows 255")

// add puts an event into quarantine and returns its id there.
func (b *bundle) add(row relay.Row) uint64 {
	b.t.Helper()
	require.NoError(b.t, b.store.Add(b.t.Context(), 7, row, errTooLong))
	entries, total := b.list()
	require.NotEmpty(b.t, entries)
	require.Len(b.t, entries, total)
	return entries[len(entries)-1].ID
}

func (b *bundle) list() ([]quarantine.Entry, int) {
	b.t.Helper()
	entries, total, err := b.store.List(b.t.Context(), 100, 0)
	require.NoError(b.t, err)
	return entries, total
}

func row(change ...func(*schema.Event)) relay.Row {
	return relay.Row{Seq: 4711, Event: schematest.Event(change...), Position: "binlog.000001:4", CommittedAt: time.Now().UTC().Truncate(time.Microsecond)}
}

var ada = audit.Entry{Actor: "ada", Why: "it was mended"}

// broker is the fake broker that also keeps the rows it was given, and can say of each that it is poison.
type broker struct {
	*relaytest.Broker
	mu     sync.Mutex
	rows   []relay.Row
	poison error
	onOpen func()
}

func (p *broker) Open(ctx context.Context) (relay.Session, error) {
	session, err := p.Broker.Open(ctx)
	if p.onOpen != nil {
		p.onOpen()
	}
	return &watched{Session: session, broker: p}, err
}

func (p *broker) given() []relay.Row {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rows
}

type watched struct {
	relay.Session
	broker *broker
}

func (s *watched) Publish(rows []relay.Row) {
	s.broker.mu.Lock()
	s.broker.rows = append(s.broker.rows, rows...)
	s.broker.mu.Unlock()
	if s.broker.poison == nil {
		s.Session.Publish(rows)
	}
}

func (s *watched) Outcomes() <-chan relay.Outcome {
	if s.broker.poison == nil {
		return s.Session.Outcomes()
	}
	said := make(chan relay.Outcome, 2)
	said <- relay.Outcome{Kind: relay.Blocked}
	said <- relay.Outcome{Kind: relay.Poison, Seq: 1, Err: s.broker.poison}
	return said
}
