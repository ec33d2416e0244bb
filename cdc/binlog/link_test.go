package binlog_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
	"tailbox/deploy/faults"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

// Times of a link in these tests, shorter than the defaults. A busy server has to answer each question within the second.
const (
	quickHeartbeat = 500 * time.Millisecond
	quickTimeout   = 2 * time.Second
)

// remote is a reader behind a proxy, as a user of its own, so that its threads on the server can be told from others'.
type remote struct {
	*bundle
	proxy  *faults.Proxy
	server *mysql.Config
	reader *binlog.Reader
	user   string
	addr   string // of the server itself
}

func (b *bundle) remote(change ...func(*binlog.Config)) *remote {
	b.t.Helper()
	server, err := mysql.ParseDSN(b.dsn)
	require.NoError(b.t, err)
	r := &remote{bundle: b, server: server, addr: server.Addr, user: "r" + strings.ReplaceAll(schema.NewID(), "-", "")[:20]}
	r.proxy, err = faults.New(server.Addr)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { require.NoError(b.t, r.proxy.Close()) })
	account := fmt.Sprintf("'%s'@'%%'", r.user)
	b.exec("CREATE USER " + account + " IDENTIFIED BY 'Secret-1'")
	b.t.Cleanup(func() { _, _ = b.db.Exec("DROP USER " + account) })
	b.exec("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO " + account)
	b.exec("GRANT SELECT ON outbox TO " + account)
	server.User, server.Passwd, server.Addr = r.user, "Secret-1", r.proxy.Addr()
	cfg := binlog.Config{
		Server: server, DB: b.db, Start: binlog.StartLatest, Fence: unfenced, Heartbeat: quickHeartbeat, ReadTimeout: quickTimeout, Recheck: quickHeartbeat,
		Outbox: binlog.Table{Schema: server.DBName, Name: "outbox"},
	}
	for _, f := range change {
		f(&cfg)
	}
	r.reader = binlog.New(cfg)
	r.reader.Begin(relay.Position{})
	return r
}

// stream streams in the background until it ends, for a minute at most, and gives its rows' ids and its end.
func (r *remote) stream(ctx context.Context) (rows chan string, ended chan error) {
	rows, ended = make(chan string, 100), make(chan error, 1)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	r.t.Cleanup(cancel)
	go func() {
		ended <- r.reader.Stream(ctx, func(row relay.Row) error {
			rows <- row.Event.ID
			return nil
		})
	}()
	return rows, ended
}

func (r *remote) connected() {
	r.t.Helper()
	require.Eventually(r.t, r.reader.Connected, 30*time.Second, time.Millisecond)
}

// delivers commits an event and waits for it.
func (r *remote) delivers(rows chan string) {
	r.t.Helper()
	id := r.marker()
	select {
	case got := <-rows:
		require.Equal(r.t, id, got)
	case <-time.After(30 * time.Second):
		require.Fail(r.t, "the row does not come")
	}
}

// threads are the dump threads that the user has on the server.
func (r *remote) threads() (n int) {
	r.t.Helper()
	rows, err := r.db.QueryContext(r.t.Context(), "SHOW PROCESSLIST")
	require.NoError(r.t, err)
	defer rows.Close()
	columns, err := rows.Columns()
	require.NoError(r.t, err)
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		require.NoError(r.t, rows.Scan(into...))
		if values[1].String == r.user && strings.HasPrefix(values[4].String, "Binlog Dump") {
			n++
		}
	}
	require.NoError(r.t, rows.Err())
	return n
}

// TestAHalfOpenLinkIsNoticed on a server where nothing else happens, so that heartbeats are all that is heard. The proxy
// swallows what one side says, and does not close.
func TestAHalfOpenLinkIsNoticed(t *testing.T) {
	t.Parallel()
	r := private(t).remote()
	rows, ended := r.stream(t.Context())
	r.connected()
	r.delivers(rows)

	// Idle is not dead.
	select {
	case err := <-ended:
		require.NoError(t, err, "a false alarm")
	case <-time.After(3 * quickTimeout):
	}

	// What the relay says does not matter to a stream. What the server says does.
	r.proxy.Swallow(faults.ToServer, true)
	select {
	case err := <-ended:
		require.NoError(t, err, "a false alarm")
	case <-time.After(3 * quickTimeout):
	}
	r.delivers(rows)
	r.proxy.Swallow(faults.ToServer, false)

	began := time.Now()
	r.proxy.Swallow(faults.ToClient, true)
	require.ErrorContains(t, <-ended, "nothing came from the server for 2s")
	took := time.Since(began)
	require.Less(t, took, 4*quickTimeout)
	require.Greater(t, took, quickTimeout-2*quickHeartbeat)
	require.False(t, r.reader.Connected())
	id := r.marker()

	// A link that is dead in either direction is noticed while a stream begins, too.
	for _, d := range []faults.Direction{faults.ToClient, faults.ToServer} {
		r.proxy.Swallow(d, true)
		began := time.Now()
		_, ended = r.stream(t.Context())
		require.Error(t, <-ended)
		require.Less(t, time.Since(began), 5*quickTimeout)
		r.proxy.Swallow(d, false)
	}

	ctx, cancel := context.WithCancel(t.Context())
	rows, ended = r.stream(ctx)
	select {
	case got := <-rows:
		require.Equal(t, id, got, "nothing is lost")
	case err := <-ended:
		require.NoError(t, err)
	}
	r.delivers(rows)
	cancel()
	<-ended
}

// TestDumpThreadsDoNotPileUp: a server does not learn that a dead link is dead, so each reconnect would leave a thread.
func TestDumpThreadsDoNotPileUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.remote()
	for round := range 6 {
		rows, ended := r.stream(t.Context())
		r.connected()
		r.delivers(rows)
		require.Eventually(t, func() bool { return r.threads() <= 2 }, 30*time.Second, 10*time.Millisecond, "the others were told to end")
		r.proxy.Swallow(faults.ToServer, true)
		r.proxy.Swallow(faults.ToClient, true)
		require.ErrorContains(t, <-ended, "nothing came from the server")
		require.Eventually(t, func() bool { return r.proxy.Orphans() > round }, 30*time.Second, time.Millisecond)
		r.proxy.Swallow(faults.ToServer, false)
		r.proxy.Swallow(faults.ToClient, false)
	}
	require.Positive(t, r.threads(), "the server did not learn of the end")
}

// TestTheDumpComesFromTheServerThatWasAsked: behind one address, another server may answer the second time.
func TestTheDumpComesFromTheServerThatWasAsked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other := ownServer(t)
	r := b.remote()
	root := schematest.Open(t, other.DSN(""))
	_, err := root.ExecContext(t.Context(), "CREATE DATABASE "+r.server.DBName)
	require.NoError(t, err)
	_, err = root.ExecContext(t.Context(), fmt.Sprintf("CREATE USER '%s'@'%%' IDENTIFIED BY 'Secret-1'", r.user))
	require.NoError(t, err)
	_, err = root.ExecContext(t.Context(), fmt.Sprintf("GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '%s'@'%%'", r.user))
	require.NoError(t, err)

	// The questions' connection is the first of a stream; the dump is the next.
	rows, ended := r.stream(t.Context())
	r.connected()
	r.delivers(rows)
	r.proxy.Reset()
	require.Error(t, <-ended)
	before := r.proxy.Connections()
	go func() {
		tick := time.NewTicker(50 * time.Microsecond)
		defer tick.Stop()
		for range tick.C {
			if r.proxy.Connections() > before || t.Context().Err() != nil {
				r.proxy.Target(other.Addr())
				return
			}
		}
	}()
	_, ended = r.stream(t.Context())
	require.ErrorContains(t, <-ended, "answered as the source")

	// The name moves on while the stream goes on: nobody cuts it, and the old server has nothing more to say.
	r.proxy.Target(r.addr)
	rows, ended = r.stream(t.Context())
	r.connected()
	r.delivers(rows)
	r.proxy.Target(other.Addr())
	require.ErrorContains(t, <-ended, "answers now")
}

// TestAPlaceIsNotTakenToAnUnrelatedServer: without GTIDs no place is; with them a history that has none of it is another one.
func TestAPlaceIsNotTakenToAnUnrelatedServer(t *testing.T) {
	t.Parallel()
	b, want := private(t), relay.HistoryReset
	if schematest.Servers(t).MySQL.Flavor() == "mysql" {
		b, want = private(t, "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"), relay.SourceChanged
	}
	r := b.remote(func(cfg *binlog.Config) { cfg.OnGap = binlog.GapHalt })
	rows, ended := r.stream(t.Context())
	r.connected()
	r.delivers(rows)

	other := private(t, "--loose-gtid-mode=OFF", "--loose-enforce-gtid-consistency=OFF")
	account := fmt.Sprintf("'%s'@'%%'", r.user)
	other.exec("CREATE USER " + account + " IDENTIFIED BY 'Secret-1'")
	other.exec("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO " + account)
	other.exec("GRANT SELECT ON outbox TO " + account)
	for range 20 { // so that it has a file and an offset as the first one has
		other.commit(10)
	}
	server, err := mysql.ParseDSN(other.dsn)
	require.NoError(t, err)
	r.proxy.Target(server.Addr)
	r.proxy.Reset()
	require.Error(t, <-ended)
	began := time.Now()
	_, ended = r.stream(t.Context())
	halt := (*relay.Halt)(nil)
	require.ErrorAs(t, <-ended, &halt)
	require.Equal(t, want, halt.Reason)
	require.Less(t, time.Since(began), 10*time.Second)
}

// TestTheDumpIsEncryptedAsTheQuestionsAre: tls=preferred encrypts where the server can. One that can is told to demand it.
func TestTheDumpIsEncryptedAsTheQuestionsAre(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.remote(func(cfg *binlog.Config) {
		preferred, err := mysql.ParseDSN(cfg.Server.FormatDSN() + "&tls=preferred")
		require.NoError(t, err)
		cfg.Server = preferred
		db := schematest.Open(t, preferred.FormatDSN())
		var name, cipher string
		require.NoError(t, db.QueryRow("SHOW SESSION STATUS LIKE 'Ssl_cipher'").Scan(&name, &cipher))
		if cipher != "" {
			b.exec(fmt.Sprintf("ALTER USER '%s'@'%%' REQUIRE SSL", cfg.Server.User))
		}
		require.Equal(t, schematest.Servers(t).MySQL.Flavor() == "mysql", cipher != "", "MySQL makes itself a certificate, MariaDB 10.11 does not")
	})
	ctx, cancel := context.WithCancel(t.Context())
	rows, ended := r.stream(ctx)
	require.Eventually(t, func() bool { return r.reader.Connected() || len(ended) > 0 }, 30*time.Second, time.Millisecond)
	r.delivers(rows)
	cancel()
	<-ended
}

func TestAServerIDOfAnotherReplicaIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	fixed := func(name string) func(*binlog.Config) {
		return func(cfg *binlog.Config) { cfg.ServerID, cfg.Name = 4711, name }
	}
	first, second := b.remote(fixed("first")), b.remote(fixed("second"))
	if _, err := b.db.Exec(fmt.Sprintf("GRANT REPLICATION MASTER ADMIN ON *.* TO '%s'@'%%'", second.user)); err != nil {
		require.ErrorContains(t, err, "1064", "MySQL knows no such right, and needs none")
	}
	ctx, cancel := context.WithCancel(t.Context())
	rows, ended := first.stream(ctx)
	first.connected()
	first.delivers(rows)

	_, refused := second.stream(t.Context())
	clash := &binlog.ServerIDError{}
	require.ErrorAs(t, <-refused, &clash)
	require.Equal(t, &binlog.ServerIDError{ServerID: 4711, Other: `the replica "first"`}, clash)
	require.ErrorContains(t, clash, "give each instance a SERVER_ID of its own")
	checks, err := second.reader.Checks(t.Context())
	require.NoError(t, err)
	at := slices.IndexFunc(checks, func(c relay.Check) bool { return c.Name == "server_id" })
	require.Equal(t, relay.CheckFail, checks[at].Level)
	require.Contains(t, checks[at].Found, `the replica "first"`)

	// One that reconnects is not its own rival, and one that has ended is none.
	first.proxy.Reset()
	require.Error(t, <-ended)
	rows, ended = first.stream(ctx)
	first.connected()
	first.delivers(rows)
	cancel()
	<-ended
	ctx, cancel = context.WithCancel(t.Context())
	for tries := 0; ; tries++ {
		rows, ended = second.stream(ctx)
		require.Eventually(t, func() bool { return second.reader.Connected() || len(ended) > 0 }, 30*time.Second, time.Millisecond)
		if len(ended) == 0 {
			break
		}
		require.ErrorAs(t, <-ended, &clash)
		require.Less(t, tries, 100, "the other is gone")
		pause(t, 100*time.Millisecond)
	}
	second.delivers(rows)
	cancel()
	<-ended
}

// pause is the rhythm of trying again; no condition is waited for.
func pause(t *testing.T, d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}
