package stack_test

import (
	"bytes"
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"tailbox/deploy/stack"
)

// testWriter sends the package's lines for people to the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// config is for a stack of its own with the set that SERVERS names.
func config(t *testing.T, dir string) stack.Config {
	t.Helper()
	set, err := stack.SetFromEnv()
	require.NoError(t, err)
	return stack.Config{Dir: dir, Set: set, Log: testWriter{t}}
}

// start starts a stack in a folder and stops it when the test ends.
func start(t *testing.T, cfg stack.Config) *stack.Stack {
	t.Helper()
	s, err := stack.New(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { throwAway(t, s.MySQL.Server, s.Rabbit.Server) })
	begin := time.Now()
	require.NoError(t, s.Start(t.Context()))
	t.Logf("%s %s and rabbitmq %s are ready after %v", s.MySQL.Flavor(), s.MySQL.Version(), s.Rabbit.Version(), time.Since(begin))
	return s
}

// throwAway ends servers the quick way.
func throwAway(t *testing.T, servers ...*stack.Server) {
	t.Helper()
	for _, s := range servers {
		if err := s.Kill(); err != nil {
			require.ErrorIs(t, err, stack.ErrNotRunning)
		}
		require.NoError(t, s.Stop(context.Background()))
	}
}

// open opens the database, made if it is missing.
func open(t *testing.T, m *stack.MySQL) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", m.DSN(""))
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	for _, statement := range []string{"CREATE DATABASE IF NOT EXISTS probe", "CREATE TABLE IF NOT EXISTS probe.t (id INT PRIMARY KEY)"} {
		_, err = db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	return db
}

func rows(t *testing.T, m *stack.MySQL) int {
	t.Helper()
	n := 0
	require.NoError(t, open(t, m).QueryRowContext(t.Context(), "SELECT COUNT(*) FROM probe.t").Scan(&n))
	return n
}

func insert(t *testing.T, m *stack.MySQL, id int) {
	t.Helper()
	_, err := open(t, m).ExecContext(t.Context(), "INSERT INTO probe.t VALUES (?)", id)
	require.NoError(t, err)
}

const queue = "probe"

// channel opens a channel and declares the quorum queue.
func channel(t *testing.T, r *stack.RabbitMQ, vhost string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(r.URL(vhost))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	require.NoError(t, err)
	_, err = ch.QueueDeclare(queue, true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
	require.NoError(t, err)
	return ch
}

// publish publishes a message to the quorum queue and waits until the broker has confirmed it.
func publish(t *testing.T, r *stack.RabbitMQ, vhost, body string) {
	t.Helper()
	ch := channel(t, r, vhost)
	require.NoError(t, ch.Confirm(false))
	confirm, err := ch.PublishWithDeferredConfirm("", queue, true, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(body)})
	require.NoError(t, err)
	acked, err := confirm.WaitContext(t.Context())
	require.NoError(t, err)
	require.True(t, acked, "the broker refused the message")
}

// messages takes all messages out of the quorum queue and puts them back.
func messages(t *testing.T, r *stack.RabbitMQ, vhost string) []string {
	t.Helper()
	ch := channel(t, r, vhost)
	var bodies []string
	for {
		d, ok, err := ch.Get(queue, false)
		require.NoError(t, err)
		if !ok {
			break
		}
		bodies = append(bodies, string(d.Body))
	}
	require.NoError(t, ch.Nack(0, true, true))
	return bodies
}

// queueIsRegistered waits until the broker has the quorum queue in its register on disk, which it writes up to half a
// second after the declaration; RabbitMQ 3.10 cannot use a queue that it lost from there.
func queueIsRegistered(t *testing.T, dir string) {
	t.Helper()
	require.Eventually(t, func() bool {
		files, err := filepath.Glob(filepath.Join(dir, "rabbitmq/data/*/quorum/*/names.dets"))
		require.NoError(t, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			if bytes.Contains(text, []byte(queue)) {
				return true
			}
		}
		return false
	}, 10*time.Second, 10*time.Millisecond)
}

// processes lists the processes on this machine that have the folder in their environment or arguments.
func processes(t *testing.T, dir string) []string {
	t.Helper()
	folders, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	var found []string
	for _, p := range folders {
		line, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		env, _ := os.ReadFile(filepath.Join(p, "environ"))
		if strings.Contains(string(line)+string(env), dir) {
			found = append(found, filepath.Base(p)+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

func TestStackServesAndLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	s := start(t, config(t, dir))

	insert(t, s.MySQL, 1)
	require.Equal(t, 1, rows(t, s.MySQL))
	publish(t, s.Rabbit, "/", "hello")
	require.Equal(t, []string{"hello"}, messages(t, s.Rabbit, "/"))
	require.NotEmpty(t, processes(t, dir), "this test would not see processes")

	begin := time.Now()
	require.NoError(t, s.Stop(t.Context()))
	t.Logf("stopped after %v", time.Since(begin))
	require.Empty(t, processes(t, dir))
	require.NoError(t, s.Stop(t.Context()), "a second stop")

	// The same folder again, as another run of the program would do it.
	s = start(t, config(t, dir))
	require.Equal(t, 1, rows(t, s.MySQL))
	require.Equal(t, []string{"hello"}, messages(t, s.Rabbit, "/"))
}

func TestDatabaseIsASourceForTheRelay(t *testing.T) {
	cfg := config(t, t.TempDir())
	cfg.MySQLOptions = []string{"--max-connections=77"}
	m, err := stack.NewMySQL(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { throwAway(t, m.Server) })
	require.NoError(t, m.Start(t.Context()))

	want := map[string]string{
		"log_bin": "ON", "binlog_format": "ROW", "binlog_row_image": "FULL", "binlog_row_metadata": "FULL",
		"sync_binlog": "1", "innodb_flush_log_at_trx_commit": "1", "max_connections": "77", "character_set_server": "utf8mb4",
	}
	if m.Flavor() == stack.FlavorMySQL {
		want["gtid_mode"] = "ON"
	}
	db := open(t, m)
	for name, value := range want {
		var got string
		require.NoError(t, db.QueryRowContext(t.Context(), "SHOW VARIABLES WHERE Variable_name = '"+name+"'").Scan(&name, &got))
		require.Equal(t, value, got, name)
	}
	require.NotContains(t, m.Version(), " ")
}

func TestServersSurviveKill(t *testing.T) {
	dir := t.TempDir()
	s := start(t, config(t, dir))
	insert(t, s.MySQL, 1)
	publish(t, s.Rabbit, "/", "kept")
	queueIsRegistered(t, dir)
	addr := s.MySQL.Addr() + s.Rabbit.Addr()

	for _, server := range []*stack.Server{s.MySQL.Server, s.Rabbit.Server} {
		done, begin := server.Done(), time.Now()
		require.NoError(t, server.Kill())
		killed := time.Since(begin)
		<-done
		begin = time.Now()
		require.NoError(t, server.Start(t.Context()))
		t.Logf("killed in %v, started again in %v", killed, time.Since(begin))
	}
	require.Equal(t, addr, s.MySQL.Addr()+s.Rabbit.Addr(), "addresses must not change")
	require.Equal(t, 1, rows(t, s.MySQL))
	require.Equal(t, []string{"kept"}, messages(t, s.Rabbit, "/"))
}

func TestCrashedBrokerLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	r, err := stack.NewRabbitMQ(t.Context(), config(t, dir))
	require.NoError(t, err)
	t.Cleanup(func() { throwAway(t, r.Server) })
	require.NoError(t, r.Start(t.Context()))

	done := r.Done()
	require.NoError(t, syscall.Kill(r.Pid(), syscall.SIGKILL), "not by the package")
	<-done
	require.NoError(t, r.Start(t.Context()))
	require.NoError(t, r.Kill())
	require.Empty(t, processes(t, dir))
}

func TestStartErrorHasTheLog(t *testing.T) {
	cfg := config(t, t.TempDir())
	cfg.MySQLOptions = []string{"--no-such-option"}
	m, err := stack.NewMySQL(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { throwAway(t, m.Server) })
	require.ErrorContains(t, m.Start(t.Context()), "no-such-option")
}

func TestStaleSocketLockIsNoObstacle(t *testing.T) {
	dir := t.TempDir()
	m, err := stack.NewMySQL(t.Context(), config(t, dir))
	require.NoError(t, err)
	t.Cleanup(func() { throwAway(t, m.Server) })
	require.NoError(t, m.Start(t.Context()))
	require.NoError(t, m.Kill())

	// The pid of the killed server has been given to another program, this one.
	lock := filepath.Join(dir, "mysql", "data", "mysql.sock.lock")
	require.NoError(t, os.WriteFile(lock, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600))
	require.NoError(t, m.Start(t.Context()))
}

func TestPausedServersAnswerNobody(t *testing.T) {
	s := start(t, config(t, t.TempDir()))
	db := open(t, s.MySQL)

	require.NoError(t, s.MySQL.Pause())
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.Error(t, db.PingContext(ctx))
	require.NoError(t, s.MySQL.Resume())
	require.NoError(t, db.PingContext(t.Context()))

	require.NoError(t, s.Rabbit.Pause())
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := s.Rabbit.API(ctx, "GET", "/vhosts", nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, s.Rabbit.Resume())
	_, err = s.Rabbit.API(t.Context(), "GET", "/vhosts", nil)
	require.NoError(t, err)

	// A paused server can be stopped.
	require.NoError(t, s.MySQL.Pause())
	require.NoError(t, s.MySQL.Stop(t.Context()))
}

func TestStacksStandSideBySide(t *testing.T) {
	a, b := start(t, config(t, t.TempDir())), start(t, config(t, t.TempDir()))
	insert(t, a.MySQL, 1)
	require.Zero(t, rows(t, b.MySQL))
	publish(t, a.Rabbit, "/", "only a")
	require.Empty(t, messages(t, b.Rabbit, "/"))
}

func TestBrokerIsAdministered(t *testing.T) {
	cfg := config(t, t.TempDir())
	r, err := stack.NewRabbitMQ(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { throwAway(t, r.Server) })
	require.NoError(t, r.Start(t.Context()))

	begin := time.Now()
	require.NoError(t, r.CreateVhost(t.Context(), "a/b"))
	t.Logf("vhost made in %v", time.Since(begin))
	publish(t, r, "a/b", "x")
	begin = time.Now()
	out, err := r.Ctl(t.Context(), "list_vhosts")
	require.NoError(t, err)
	require.Contains(t, out, "a/b")
	t.Logf("rabbitmqctl took %v", time.Since(begin))
	conn, err := amqp.Dial(r.URL("a/b"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.Eventually(t, func() bool {
		require.NoError(t, r.CloseConnections(t.Context()))
		return conn.IsClosed()
	}, 10*time.Second, 20*time.Millisecond)

	begin = time.Now()
	require.NoError(t, r.DeleteVhost(t.Context(), "a/b"))
	t.Logf("vhost deleted in %v", time.Since(begin))
	require.Error(t, r.DeleteVhost(t.Context(), "a/b"))
}

func TestFolderHasOneStack(t *testing.T) {
	dir := t.TempDir()
	cfg := config(t, dir)
	m, err := stack.NewMySQL(t.Context(), cfg)
	require.NoError(t, err)
	_, err = stack.NewMySQL(t.Context(), cfg)
	require.ErrorIs(t, err, stack.ErrRunning)
	require.NoError(t, m.Stop(t.Context()))
}
