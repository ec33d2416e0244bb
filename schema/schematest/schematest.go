// Package schematest is the kit for tests that need the real servers: a fresh database with the tables in it, a fresh
// vhost, and events to put into them. It starts private servers when the first test asks, once per test process, or uses
// the ones that TAILBOX_STACK names, which `make test` starts once for all packages.
//
// It is for tests alone, and the one part of schema that imports deploy/stack.
package schematest

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"tailbox/deploy/stack"
	"tailbox/schema"
)

// Main runs a package's tests: call it from TestMain. It fails the run when a goroutine is left behind, stops the servers
// that were started, and exits.
func Main(m *testing.M) {
	code := m.Run()
	shared.stop()
	if code == 0 {
		// Servers that another process started are watched for as long as this one lives.
		if err := goleak.Find(goleak.IgnoreAnyFunction("tailbox/deploy/stack.adopt.func1")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// Servers are the database and the broker that the tests of this process share. A test that hurts a server starts its own.
func Servers(t testing.TB) *stack.Stack {
	t.Helper()
	s, err := shared.get()
	require.NoError(t, err, "the tests need MySQL or MariaDB, and RabbitMQ; `make test` starts them")
	return s
}

// DB is the DSN, as root, of a fresh database that has all tables. It is dropped at the end of the test.
func DB(t testing.TB) string {
	t.Helper()
	dsn := EmptyDB(t)
	db := Open(t, dsn)
	_, err := schema.Migrate(t.Context(), db)
	require.NoError(t, err)
	return dsn
}

// EmptyDB is the DSN, as root, of a fresh database without tables. It is dropped at the end of the test.
func EmptyDB(t testing.TB) string {
	t.Helper()
	servers := Servers(t)
	root := Open(t, servers.MySQL.DSN(""))
	name := uniqueName(t)
	_, err := root.ExecContext(t.Context(), "CREATE DATABASE "+name)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := root.ExecContext(ctx, "DROP DATABASE IF EXISTS "+name)
		require.NoError(t, err)
	})
	return servers.MySQL.DSN(name)
}

// Open is a pool that is closed at the end of the test.
func Open(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// Vhost is the URL of a fresh vhost, deleted at the end of the test.
func Vhost(t testing.TB) string {
	t.Helper()
	broker := Servers(t).Rabbit
	name := uniqueName(t)
	require.NoError(t, broker.CreateVhost(t.Context(), name))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, broker.DeleteVhost(ctx, name))
	})
	return broker.URL(name)
}

// Event is a valid event of its own aggregate, changed by the given functions.
func Event(change ...func(*schema.Event)) schema.Event {
	id := schema.NewID()
	e := schema.Event{
		ID:               schema.NewID(),
		AggregateType:    "customer",
		AggregateID:      id,
		AggregateVersion: 1,
		Type:             "CustomerCreated",
		CreatedAt:        time.Now().UTC().Truncate(time.Microsecond),
	}
	for _, f := range change {
		f(&e)
	}
	if e.Payload == nil {
		at := e.CreatedAt.Format(schema.TimeFormat)
		e.Payload = fmt.Appendf(nil, `{"id":%q,"name":"Ada Lovelace","email":"ada@example.com","version":%d,"created_at":%q,"updated_at":%q}`,
			e.AggregateID, e.AggregateVersion, at, at)
	}
	return e
}

func uniqueName(t testing.TB) string {
	t.Helper()
	return "t_" + strings.ReplaceAll(schema.NewID(), "-", "")
}

var shared servers

// servers starts them once and stops what it started.
type servers struct {
	once    sync.Once
	stack   *stack.Stack
	dir     string
	started bool
	err     error
}

func (s *servers) get() (*stack.Stack, error) {
	s.once.Do(func() { s.err = s.find() })
	return s.stack, s.err
}

func (s *servers) find() (err error) {
	if dir := os.Getenv("TAILBOX_STACK"); dir != "" {
		s.stack, err = stack.Attach(dir)
		return err
	}
	set, err := stack.SetFromEnv()
	if err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "tailbox-test-"); err != nil {
		return err
	}
	s.started = true
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if s.stack, err = stack.New(ctx, stack.Config{Dir: s.dir, Set: set, Log: os.Stderr}); err != nil {
		return err
	}
	return s.stack.Start(ctx)
}

func (s *servers) stop() {
	if !s.started {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if s.stack != nil {
		_ = s.stack.Kill() // the data is thrown away: nothing is gained by a polite stop
		_ = s.stack.Stop(ctx)
	}
	_ = os.RemoveAll(s.dir) // a temporary folder
}
