package e2e_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"tailbox/deploy/mysql"
	"tailbox/deploy/services"
	"tailbox/deploy/stack"
	"tailbox/schema"
	"tailbox/schema/topology"
)

var binaries string // folder with api, cdc and worker

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp(os.Getenv("GOTMPDIR"), "tailbox-bin-") // memory may not be allowed to hold programs
		if err == nil {
			defer os.RemoveAll(dir)
			binaries = dir
			err = services.Build(context.Background(), filepath.Join("..", ".."), dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := m.Run()
		http.DefaultClient.CloseIdleConnections()
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		return code
	}())
}

// full tells whether the counts of the issue are run, or a tenth of them: COUNT=full.
func full() bool { return os.Getenv("COUNT") == "full" }

// count is n, or with COUNT unset a tenth of it, at least two.
func count(n int) int {
	if full() {
		return n
	}
	return max(2, n/10)
}

// world is servers and services of one test, which it may hurt.
type world struct {
	t      *testing.T
	stack  *stack.Stack
	vhost  string
	db     *sql.DB // as root
	api    *services.Service
	cdc    *services.Service
	worker *services.Service
	probes int // events besides those of a load
	mu     sync.Mutex
	logs   map[string]*bytes.Buffer
}

// option changes a world before it is built.
type option struct {
	mysql   []string
	cdcEnv  []string
	env     []string // of all services
	tls     *stack.TLS
	disk    int // of the database, in MiB; 0 for the one that all share
	noStart bool
}

// setup builds a world whose services run and are ready.
func setup(t *testing.T, opts ...option) *world {
	t.Helper()
	var o option
	if len(opts) > 0 {
		o = opts[0]
	}
	w := &world{t: t, vhost: "/", logs: map[string]*bytes.Buffer{}}
	set, err := stack.SetFromEnv()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "tailbox-e2e-") // in TMPDIR, which `make` puts into memory; t.TempDir prefers GOTMPDIR
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	if o.disk > 0 {
		w.mount(filepath.Join(dir, "mysql"), o.disk)
	}
	w.stack, err = stack.New(t.Context(), stack.Config{Dir: dir, Set: set, Log: os.Stderr, MySQLOptions: o.mysql, TLS: o.tls})
	require.NoError(t, err)
	t.Cleanup(w.stop)
	require.NoError(t, w.stack.Start(t.Context()))
	require.NoError(t, services.Prepare(t.Context(), w.stack.MySQL))
	w.db, err = sql.Open("mysql", w.stack.MySQL.DSN(mysql.Database))
	require.NoError(t, err)

	w.api = w.service("api", o.env...)
	w.worker = w.service("worker", append([]string{"LOG_LEVEL=warn"}, o.env...)...)
	w.cdc = w.service("cdc", append(o.cdcEnv, o.env...)...)
	if !o.noStart {
		w.start(w.api, w.worker, w.cdc)
	}
	return w
}

func (w *world) service(name string, env ...string) *services.Service {
	w.t.Helper()
	return services.New(w.config(name, name, env...))
}

// config is that of an instance of a service; its log is kept under the label.
func (w *world) config(name, label string, env ...string) services.Config {
	w.t.Helper()
	addr, err := services.FreeAddr(w.t.Context())
	require.NoError(w.t, err)
	w.logs[label] = &bytes.Buffer{}
	return services.Config{Name: name, Bin: binaries, Stack: w.stack, Addr: addr, Env: env, Output: w.log(label)}
}

// start starts services and waits until they are ready.
func (w *world) start(list ...*services.Service) {
	w.t.Helper()
	for _, s := range list {
		require.NoError(w.t, s.Start())
	}
	w.ready(list...)
}

func (w *world) ready(list ...*services.Service) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for _, s := range list {
		require.NoError(w.t, s.Ready(ctx))
	}
}

// logWriter keeps what a service printed.
type logWriter struct {
	w    *world
	name string
}

func (w *world) log(name string) io.Writer { return logWriter{w, name} }

func (l logWriter) Write(p []byte) (int, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.w.logs[l.name].Write(p)
}

// printed is what a service has printed so far.
func (w *world) printed(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.logs[name].String()
}

func (w *world) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for _, s := range []*services.Service{w.api, w.cdc, w.worker} {
		if s != nil && s.Process() != nil {
			_ = s.Process().Resume()
			_ = s.Process().Stop(ctx)
		}
	}
	if w.db != nil {
		_ = w.db.Close()
	}
	_ = w.stack.Kill() // the data is thrown away: nothing is gained by a polite stop; a test may have stopped one itself
	if err := w.stack.Stop(ctx); err != nil {
		w.t.Error(err)
	}
	w.tell()
}

// tell shows what the services printed, if the test has failed.
func (w *world) tell() {
	if !w.t.Failed() {
		return
	}
	for name := range w.logs {
		text := w.printed(name)
		w.t.Logf("--- the end of the log of %s:\n%s", name, text[max(0, len(text)-6000):])
	}
}

// post creates a customer; it reports what it can of a request whose answer was lost.
func (w *world) post(ctx context.Context, i int) (id string, err error) {
	body := fmt.Sprintf(`{"email":"c%d@example.com","name":"Customer %d"}`, i, i)
	var c struct {
		ID string `json:"id"`
	}
	err = w.call(ctx, http.MethodPost, w.api.URL("/customers"), body, http.StatusCreated, &c)
	return c.ID, err
}

func (w *world) patch(ctx context.Context, id string, i int) error {
	return w.call(ctx, http.MethodPatch, w.api.URL("/customers/"+id), fmt.Sprintf(`{"name":"Changed %d"}`, i), http.StatusOK, nil)
}

var client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableKeepAlives: false}}

func (w *world) call(ctx context.Context, method, url, body string, want int, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != want {
		return fmt.Errorf("%s %s: %d %s", method, url, answer.StatusCode, text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

// position is the relay's own word of where it stands.
type position struct {
	State  string
	Reason string
	Source struct {
		ServerUUID string `json:"server_uuid"`
	}
	Checkpoint struct {
		EventID  string `json:"event_id"`
		SkipRows int    `json:"skip_rows"`
	}
	Lag struct {
		InFlight int `json:"in_flight"`
		Bytes    int
	}
	Totals struct{ Read, Published, Confirmed, Returned, Reconnects int }
}

func (w *world) position() (p position) {
	w.t.Helper()
	require.NoError(w.t, w.call(w.t.Context(), http.MethodGet, w.cdc.URL("/position"), "", http.StatusOK, &p))
	return p
}

func (w *world) number(query string, args ...any) (n int) {
	w.t.Helper()
	require.NoError(w.t, w.db.QueryRowContext(w.t.Context(), query, args...).Scan(&n))
	return n
}

// waitFor waits until the condition holds. It asks on the test's own goroutine, so that a condition may fail the test.
func (w *world) waitFor(what string, within time.Duration, holds func() bool) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); !holds(); <-tick.C {
		require.Less(w.t, time.Since(began), within, "waited in vain for %s", what)
	}
}

// settled waits until every outbox row is in the inbox.
func (w *world) settled(within time.Duration) {
	w.t.Helper()
	w.waitFor("every outbox row in the inbox", within, func() bool {
		return w.number(`SELECT COUNT(*) FROM outbox o LEFT JOIN inbox i ON i.consumer = 'customers' AND i.message_id = o.id
			WHERE i.message_id IS NULL`) == 0
	})
}

// everythingOnce checks what must hold in the end, whatever was killed: each outbox row is in the inbox, once and nothing
// else is; each customer's read model has had each of its events once; nothing is in the dead-letter queue.
func (w *world) everythingOnce(events int) {
	w.t.Helper()
	w.settled(2 * time.Minute)
	require.Equal(w.t, events, w.number("SELECT COUNT(*) FROM outbox"), "outbox rows")
	require.Equal(w.t, events, w.number("SELECT COUNT(*) FROM inbox"), "inbox rows: as many as outbox rows, each of which is there, so none was invented")
	// With the ids in the profiles' own collation: their index would not be used otherwise.
	require.Zero(w.t, w.number(`SELECT COUNT(*) FROM (SELECT CONVERT(aggregate_id USING ascii) COLLATE ascii_bin id, COUNT(*) n FROM outbox GROUP BY aggregate_id) o
		LEFT JOIN customer_profiles p ON p.customer_id = o.id AND p.version = o.n AND p.events_applied = o.n
		WHERE p.customer_id IS NULL`), "customers whose read model has not had each event once")
	require.Zero(w.t, w.messages(topology.Customers(topology.CustomersQueue).DeadQueue()), "dead letters")
}

// messages is how many messages a queue holds.
func (w *world) messages(queue string) int {
	w.t.Helper()
	ch := w.channel()
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	require.NoError(w.t, err)
	return q.Messages
}

// checkpointed is the id of the last event that the stored checkpoint has passed, read from the table, not from the relay.
func (w *world) checkpointed() (eventID string) {
	w.t.Helper()
	var id sql.NullString
	err := w.db.QueryRowContext(w.t.Context(), "SELECT event_id FROM relay_checkpoint WHERE relay = 'default'").Scan(&id)
	if err == sql.ErrNoRows {
		return ""
	}
	require.NoError(w.t, err)
	return id.String
}

func insert(ctx context.Context, db *sql.DB, commit bool, events ...schema.Event) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if err := schema.Insert(ctx, tx, events...); err != nil || !commit {
		return err
	}
	return tx.Commit()
}
