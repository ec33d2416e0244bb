package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

func TestMain(m *testing.M) { schematest.Main(m) }

// process is an api that runs inside of the test.
type process struct {
	t      *testing.T
	url    string
	client *http.Client
	stop   context.CancelFunc
	done   chan error
}

func settings(dsn string, change ...func(*Config)) Config {
	cfg := Config{
		Common:   ops.Common{HTTPAddr: "127.0.0.1:0", LogLevel: "error", LogFormat: "json", ShutdownTimeout: 10 * time.Second},
		MySQLDSN: ops.Secret(dsn),
	}
	for _, c := range change {
		c(&cfg)
	}
	return cfg
}

func migrating(c *Config) { c.Migrate = true }

func start(t *testing.T, cfg Config) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := &process{t: t, stop: cancel, done: make(chan error, 1), client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	bound := make(chan net.Addr, 1)
	go func() { p.done <- run(ctx, cfg, func(addr net.Addr) { bound <- addr }) }()
	select {
	case addr := <-bound:
		p.url = "http://" + addr.String()
	case err := <-p.done:
		require.FailNow(t, "the api did not start", "%v", err)
	}
	t.Cleanup(func() {
		p.stop()
		require.NoError(t, <-p.done)
	})
	return p
}

func (p *process) do(method, path, body string, headers ...string) (status int, header http.Header, text string, err error) {
	r, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, "", err
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := p.client.Do(r)
	if err != nil {
		return 0, nil, "", err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, string(content), err
}

func (p *process) get(path string) (int, string) {
	p.t.Helper()
	status, _, body, err := p.do("GET", path, "")
	require.NoError(p.t, err)
	return status, body
}

// becomes waits until /readyz answers with the status and this text.
func (p *process) becomes(status int, text string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		got, _, body, err := p.do("GET", "/readyz", "")
		return err == nil && got == status && strings.Contains(body, text)
	}, 30*time.Second, 20*time.Millisecond)
}

const ada = `{"email":"ada@example.com","name":"Ada Lovelace"}`

func TestServesBeforeTheDatabaseAnswers(t *testing.T) {
	t.Parallel()
	p := start(t, settings("root@tcp("+nobody+")/tailbox"))
	p.becomes(http.StatusServiceUnavailable, "the database does not answer")
	status, _ := p.get("/healthz")
	require.Equal(t, http.StatusOK, status)
	status, header, body, err := p.do("POST", "/customers", ada)
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Equal(t, "1", header.Get("Retry-After"))
	require.NotContains(t, body, "127.0.0.1")
}

func TestMigratesAndServes(t *testing.T) {
	t.Parallel()
	p := start(t, settings(schematest.EmptyDB(t), migrating))
	p.becomes(http.StatusOK, "")
	status, header, body, err := p.do("POST", "/customers", ada)
	require.NoError(t, err)
	require.Equal(t, http.StatusCreated, status, body)
	status, again := p.get(header.Get("Location"))
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, body, again)
}

func TestMigratesWithTheOwnersDSN(t *testing.T) {
	t.Parallel()
	dsn := schematest.EmptyDB(t)
	p := start(t, settings(with(t, dsn, func(c *mysql.Config) { c.User = "nobody" }), migrating, func(c *Config) { c.MigrateDSN = ops.Secret(dsn) }))
	p.becomes(http.StatusServiceUnavailable, "the database refuses") // the tables are there, but its own user is not
	require.NoError(t, tables(t, dsn))
}

func TestSettingsThatTheServerRefusesEndTheStart(t *testing.T) {
	t.Parallel()
	dsn := schematest.EmptyDB(t)
	wrongUser, wrongDatabase := with(t, dsn, func(c *mysql.Config) { c.User = "nobody" }), with(t, dsn, func(c *mysql.Config) { c.DBName = "nowhere" })
	for _, c := range []struct {
		cfg      Config
		variable string
	}{
		{settings(wrongUser, migrating), "MYSQL_DSN"},
		{settings(wrongDatabase, migrating), "MYSQL_DSN"},
		{settings(dsn, migrating, func(c *Config) { c.MigrateDSN = ops.Secret(wrongUser) }), "MIGRATE_DSN"},
	} {
		err := run(t.Context(), c.cfg, nil)
		require.ErrorIs(t, err, ops.ErrBadConfig)
		require.ErrorContains(t, err, c.variable)
	}
}

func TestSaysThatTablesAreMissingUntilTheyAreThere(t *testing.T) {
	t.Parallel()
	dsn := schematest.EmptyDB(t)
	p := start(t, settings(dsn))
	p.becomes(http.StatusServiceUnavailable, "tables are missing: customers, idempotency_keys, outbox")
	_, err := schema.Migrate(t.Context(), schematest.Open(t, dsn))
	require.NoError(t, err)
	p.becomes(http.StatusOK, "")
}

func TestMigrationWaitsForTheDatabaseUntilItIsStopped(t *testing.T) {
	t.Parallel()
	p := start(t, settings("root@tcp("+nobody+")/tailbox", migrating))
	p.becomes(http.StatusServiceUnavailable, "the tables are being migrated")
}

func TestOneKeyMakesOneCustomerOverHTTP(t *testing.T) {
	t.Parallel()
	const requests = 50
	dsn := schematest.DB(t)
	p := start(t, settings(dsn))
	type answer struct {
		status         int
		location, body string
		err            error
	}
	answers := make([]answer, requests)
	send := func(a *answer) {
		var header http.Header
		a.status, header, a.body, a.err = p.do("POST", "/customers", ada, "Idempotency-Key", "one")
		if a.err == nil {
			a.location = header.Get("Location")
		}
	}
	var wait sync.WaitGroup
	for i := range answers {
		wait.Go(func() { send(&answers[i]) })
	}
	wait.Wait()

	var first answer
	send(&first)
	require.Equal(t, http.StatusCreated, first.status, first.body)
	for _, a := range answers {
		require.NoError(t, a.err)
		if a.status != http.StatusConflict {
			require.Equal(t, first, a)
		}
	}
	var customers, events int
	require.NoError(t, schematest.Open(t, dsn).QueryRowContext(t.Context(),
		"SELECT (SELECT COUNT(*) FROM customers), (SELECT COUNT(*) FROM outbox)").Scan(&customers, &events))
	require.Equal(t, []int{1, 1}, []int{customers, events})
}

func TestStopLetsRunningRequestsFinish(t *testing.T) {
	t.Parallel()
	dsn := schematest.DB(t)
	db := schematest.Open(t, dsn)
	p := start(t, settings(dsn))
	barrier, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer func() { _ = barrier.Close() }()
	_, err = barrier.ExecContext(t.Context(), "LOCK TABLES outbox READ")
	require.NoError(t, err)

	created := make(chan error, 1)
	go func() {
		status, _, body, err := p.do("POST", "/customers", ada)
		if err == nil && status != http.StatusCreated {
			err = fmt.Errorf("status %d: %s", status, body)
		}
		created <- err
	}()
	require.Eventually(t, func() bool {
		var one int
		return db.QueryRowContext(t.Context(), "SELECT 1 FROM information_schema.processlist WHERE db = DATABASE() AND info LIKE 'INSERT INTO outbox%' "+
			"AND state LIKE 'Waiting%'").Scan(&one) == nil
	}, time.Minute, 10*time.Millisecond)
	p.stop()
	_, err = barrier.ExecContext(t.Context(), "UNLOCK TABLES")
	require.NoError(t, err)
	require.NoError(t, <-created)
}

// nobody is an address where nobody listens.
const nobody = "127.0.0.1:1"

// with is the DSN with a change.
func with(t *testing.T, dsn string, change func(*mysql.Config)) string {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	require.NoError(t, err)
	change(cfg)
	return cfg.FormatDSN()
}

func tables(t *testing.T, dsn string) error {
	t.Helper()
	_, err := schematest.Open(t, dsn).ExecContext(t.Context(), "SELECT 1 FROM customers, idempotency_keys, outbox LIMIT 0")
	return err
}
