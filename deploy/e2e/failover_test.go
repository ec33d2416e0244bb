package e2e_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/faults"
	"tailbox/deploy/mysql"
	"tailbox/deploy/services"
	"tailbox/deploy/stack"
	"tailbox/schema/schematest"
)

// failover is a world whose services know one name, which leads to one of two servers that replicate.
type failover struct {
	*world
	name    *faults.Proxy
	servers [2]*stack.MySQL
	root    [2]*sql.DB // without a database
	primary int
}

// replicating are options that let either server be the other's replica. MySQL has them by default.
func replicating(flavor string) []string {
	if flavor == stack.FlavorMariaDB {
		return []string{"--log-slave-updates=ON"}
	}
	return nil
}

func setupFailover(t *testing.T) *failover {
	t.Helper()
	set, err := stack.SetFromEnv()
	require.NoError(t, err)
	flavor := stack.FlavorMariaDB
	if set == stack.Newest {
		flavor = stack.FlavorMySQL
	}
	f := &failover{world: setup(t, option{noStart: true, mysql: replicating(flavor)})}
	require.Equal(t, flavor, f.stack.MySQL.Flavor())
	dir, err := os.MkdirTemp("", "tailbox-e2e-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	second, err := stack.NewMySQL(t.Context(), stack.Config{Dir: dir, Set: set, Log: os.Stderr, MySQLOptions: replicating(flavor)})
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = second.Kill() // the data is thrown away
		require.NoError(t, second.Stop(context.Background()))
	})
	require.NoError(t, second.Start(t.Context()))
	f.servers = [2]*stack.MySQL{f.stack.MySQL, second}
	for i, server := range f.servers {
		f.root[i] = schematest.Open(t, server.DSN(""))
	}
	f.name, err = faults.New(f.stack.MySQL.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.name.Close()) })

	// A copy of the first server: it runs the first one's whole binlog.
	f.reset(1)
	f.follow(1)
	for _, s := range []struct {
		name string
		to   **services.Service
	}{{"api", &f.api}, {"worker", &f.worker}, {"cdc", &f.cdc}} {
		cfg := f.config(s.name, s.name, "LOG_LEVEL=info")
		cfg.MySQLAddr = f.name.Addr()
		*s.to = services.New(cfg)
	}
	f.start(f.api, f.worker, f.cdc)
	return f
}

func (f *failover) mysql() bool { return f.servers[0].Flavor() == stack.FlavorMySQL }

func (f *failover) on(i int, statements ...string) {
	f.t.Helper()
	for _, statement := range statements {
		_, err := f.root[i].ExecContext(f.t.Context(), statement)
		require.NoError(f.t, err, statement)
	}
}

func (f *failover) text(i int, query string) (text string) {
	f.t.Helper()
	require.NoError(f.t, f.root[i].QueryRowContext(f.t.Context(), query).Scan(&text))
	return text
}

// reset makes a server forget that it ever did anything.
func (f *failover) reset(i int) {
	f.t.Helper()
	if f.mysql() {
		f.on(i, "RESET BINARY LOGS AND GTIDS")
		return
	}
	f.on(i, "RESET MASTER", "SET GLOBAL gtid_slave_pos = ''")
}

// follow makes a server the other's replica, from where it is.
func (f *failover) follow(i int) {
	f.t.Helper()
	source := f.servers[1-i]
	if f.mysql() {
		f.on(i, "SET GLOBAL super_read_only = ON", fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d, SOURCE_USER='root', "+
			"SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, SOURCE_CONNECT_RETRY=1", source.Port()), "START REPLICA")
		return
	}
	f.on(i, "SET GLOBAL read_only = ON", fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=%d, MASTER_USER='root', "+
		"MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1", source.Port()), "START SLAVE")
}

// promote makes the replica the primary when it has all that the primary has, and the primary a replica that is not connected.
func (f *failover) promote() {
	f.t.Helper()
	old, next := f.primary, 1-f.primary
	if f.mysql() {
		f.on(old, "SET GLOBAL super_read_only = ON")
		f.caughtUp(next)
		f.on(next, "STOP REPLICA", "RESET REPLICA ALL", "SET GLOBAL super_read_only = OFF", "SET GLOBAL read_only = OFF")
	} else {
		f.on(old, "SET GLOBAL read_only = ON")
		f.caughtUp(next)
		f.on(next, "STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = OFF")
		f.on(old, "SET GLOBAL gtid_slave_pos = '"+f.text(old, "SELECT @@GLOBAL.gtid_binlog_pos")+"'")
	}
	f.primary = next
	f.name.Target(f.servers[next].Addr())
	require.NoError(f.t, f.db.Close())
	var err error
	f.db, err = sql.Open("mysql", f.servers[next].DSN(mysql.Database))
	require.NoError(f.t, err)
}

// caughtUp waits until the replica has what the primary has.
func (f *failover) caughtUp(replica int) {
	f.t.Helper()
	var done int
	if f.mysql() {
		set := f.text(1-replica, "SELECT @@GLOBAL.gtid_executed")
		require.NoError(f.t, f.root[replica].QueryRowContext(f.t.Context(), "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, 60)", set).Scan(&done))
	} else {
		set := f.text(1-replica, "SELECT @@GLOBAL.gtid_binlog_pos")
		require.NoError(f.t, f.root[replica].QueryRowContext(f.t.Context(), "SELECT MASTER_GTID_WAIT(?, 60)", set).Scan(&done))
	}
	require.Zero(f.t, done, "the replica has caught up")
}

// TestThePromotedReplicaIsReadOnByGTID: the name leads to the replica, once with the old connections cut and once, as with a
// name in DNS, with the old server and the connections to it alive. Then to a replica that has lost what was published.
func TestThePromotedReplicaIsReadOnByGTID(t *testing.T) {
	t.Parallel()
	f := setupFailover(t)
	audit := f.audit("#")
	l := f.load(4, count(1000))
	f.waitFor("events to flow", time.Minute, func() bool { return f.position().Totals.Confirmed > 20 })

	f.promote()
	f.name.Reset()
	f.flows()
	f.waitFor("the position to tell the new server", 10*time.Second, func() bool { return f.position().Source.ServerUUID == f.serverUUID() })

	// Back, and this time the replica has a transaction of its own, and nobody cuts a connection.
	f.follow(1 - f.primary)
	f.on(1-f.primary, "SET GLOBAL read_only = OFF", "CREATE DATABASE errant")
	f.promote()
	f.flows()

	accepted := l.stop()
	f.ready(f.api, f.cdc, f.worker)
	events := f.number("SELECT COUNT(*) FROM outbox")
	require.GreaterOrEqual(t, events, accepted, "what was accepted is there")
	f.everythingOnce(events)
	f.firstDeliveriesFollowVersions(audit.settled())
	require.Equal(t, -1, f.cdc.Process().ExitCode(), "the relay was never restarted")
	require.GreaterOrEqual(t, f.position().Totals.Reconnects, 2, "and says that it moved")

	// The replica has stopped before the last events, which were published.
	f.follow(1 - f.primary)
	f.caughtUp(1 - f.primary)
	stop := "STOP SLAVE"
	if f.mysql() {
		stop = "STOP REPLICA"
	}
	f.on(1-f.primary, stop)
	require.NoError(t, insert(t.Context(), f.db, true, schematest.Event()))
	f.everythingOnceOn(events + 1)
	f.primary = 1 - f.primary
	f.on(f.primary, "SET GLOBAL read_only = OFF")
	f.name.Target(f.servers[f.primary].Addr())
	f.name.Reset()
	f.waitFor("the relay to halt", 20*time.Second, func() bool { return f.position().State == "halted" })
	require.Equal(t, "source_behind", f.position().Reason)
	err := f.call(t.Context(), "GET", f.cdc.URL("/readyz"), "", 200, nil)
	require.ErrorContains(t, err, "source_behind")
}

// everythingOnceOn waits for the events to be applied.
func (f *failover) everythingOnceOn(events int) {
	f.t.Helper()
	f.waitFor("the last event to be applied", time.Minute, func() bool { return f.number("SELECT COUNT(*) FROM inbox") == events })
	f.waitFor("its place to be saved", time.Minute, func() bool { return f.position().Lag.Bytes == 0 && f.position().Lag.InFlight == 0 })
}

// flows waits until events that are committed from now on are confirmed.
func (f *failover) flows() {
	f.t.Helper()
	e := schematest.Event()
	require.NoError(f.t, insert(f.t.Context(), f.db, true, e))
	f.waitFor("an event of the new primary to be applied", time.Minute, func() bool {
		return f.number("SELECT COUNT(*) FROM inbox WHERE message_id = ?", e.ID) == 1
	})
}

func (f *failover) serverUUID() string {
	f.t.Helper()
	if f.mysql() {
		return f.text(f.primary, "SELECT @@GLOBAL.server_uuid")
	}
	return f.text(f.primary, "SELECT @@GLOBAL.server_uid")
}
