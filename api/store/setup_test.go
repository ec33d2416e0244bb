package store_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/api/handler"
	"tailbox/api/handler/handlertest"
	"tailbox/api/store"
	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

func TestMain(m *testing.M) { schematest.Main(m) }

func TestStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	handlertest.Contract(t, func(t *testing.T) handler.Customers { return setup(t).store })
}

// bundle is a store over a database of its own, and a second way into that database.
type bundle struct {
	t      *testing.T
	dsn    string
	store  *store.Store
	direct *sql.DB
}

func setup(t *testing.T) *bundle {
	t.Helper()
	dsn := schematest.DB(t)
	return &bundle{t: t, dsn: dsn, store: open(t, dsn), direct: schematest.Open(t, dsn)}
}

func open(t *testing.T, dsn string) *store.Store {
	t.Helper()
	pool, err := store.Open(ops.Secret(dsn), ops.TLSFiles{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pool.Close()) })
	return store.New(pool)
}

// created makes a customer.
func (b *bundle) created() store.Customer {
	b.t.Helper()
	c := handlertest.Customer()
	require.NoError(b.t, b.store.Create(b.t.Context(), c, nil))
	return c
}

func (b *bundle) rename(id, name string) error {
	_, err := b.store.Update(b.t.Context(), id, store.Change{Name: &name}, nil, nil)
	return err
}

// events reads the outbox in the order of commit, as far as one aggregate is concerned, and validates each row.
func (b *bundle) events() []schema.Event {
	b.t.Helper()
	rows, err := b.direct.QueryContext(b.t.Context(), "SELECT id, aggregate_type, aggregate_id, aggregate_version, type, payload, headers, created_at "+
		"FROM outbox ORDER BY aggregate_id, aggregate_version")
	require.NoError(b.t, err)
	defer func() { _ = rows.Close() }()
	var events []schema.Event
	for rows.Next() {
		var e schema.Event
		var headers sql.NullString
		require.NoError(b.t, rows.Scan(&e.ID, &e.AggregateType, &e.AggregateID, &e.AggregateVersion, &e.Type, &e.Payload, &headers, &e.CreatedAt))
		if headers.Valid {
			require.NoError(b.t, json.Unmarshal([]byte(headers.String), &e.Headers))
		}
		require.NoError(b.t, e.Validate())
		events = append(events, e)
	}
	require.NoError(b.t, rows.Err())
	return events
}

func (b *bundle) count(table string) (n int) {
	b.t.Helper()
	require.NoError(b.t, b.direct.QueryRowContext(b.t.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n))
	return n
}

// holds asserts how many customers, events and keys there are.
func (b *bundle) holds(customers, events, keys int) {
	b.t.Helper()
	require.Equal(b.t, []int{customers, events, keys}, []int{b.count("customers"), b.count("outbox"), b.count("idempotency_keys")},
		"customers, events, keys")
}

// barrier lets nobody write into a table until it is lifted, so that a transaction stops at a chosen statement.
type barrier struct {
	*bundle
	conn  *sql.Conn
	table string
}

func (b *bundle) barrier(table string) *barrier {
	b.t.Helper()
	conn, err := b.direct.Conn(b.t.Context())
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = conn.Close() })
	_, err = conn.ExecContext(b.t.Context(), "LOCK TABLES "+table+" READ")
	require.NoError(b.t, err)
	return &barrier{bundle: b, conn: conn, table: table}
}

func (b *barrier) lift() {
	b.t.Helper()
	_, err := b.conn.ExecContext(b.t.Context(), "UNLOCK TABLES")
	require.NoError(b.t, err)
}

// waiting returns the connection that stands before the barrier, once there is one.
func (b *barrier) waiting() (connection int64) {
	b.t.Helper()
	b.eventually(func(ctx context.Context) bool {
		return b.direct.QueryRowContext(ctx, "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND info LIKE ? "+
			"AND state LIKE 'Waiting%'", "INSERT INTO "+b.table+"%").Scan(&connection) == nil
	})
	return connection
}

func (b *bundle) kill(connection int64) {
	b.t.Helper()
	_, err := b.direct.ExecContext(b.t.Context(), fmt.Sprintf("KILL %d", connection))
	require.NoError(b.t, err)
}

// eventually asks until the answer is yes. Each question is a round trip to the server, which is pause enough.
func (b *bundle) eventually(yes func(ctx context.Context) bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	for !yes(ctx) {
		require.NoError(b.t, ctx.Err(), "waited too long")
	}
}
