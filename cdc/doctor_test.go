package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
	"tailbox/cdc/checkpoint"
	"tailbox/cdc/relay"
	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/schema/topology"
)

func TestMain(m *testing.M) { schematest.Main(m) }

// patient is a database and a vhost that the doctor looks at.
type patient struct {
	t        *testing.T
	dsn, url string
	db       *sql.DB
}

func setup(t *testing.T) *patient {
	t.Helper()
	p := &patient{t: t, dsn: schematest.DB(t), url: schematest.Vhost(t)}
	p.db = schematest.Open(t, p.dsn)
	p.declare(func(ch *amqp.Channel) error { return topology.DeclareExchange(ch, topology.Exchange) })
	return p
}

func (p *patient) exec(query string, args ...any) {
	p.t.Helper()
	_, err := p.db.ExecContext(p.t.Context(), query, args...)
	require.NoError(p.t, err)
}

func (p *patient) declare(what func(*amqp.Channel) error) {
	p.t.Helper()
	conn, err := amqp.Dial(p.url)
	require.NoError(p.t, err)
	ch, err := conn.Channel()
	require.NoError(p.t, err)
	require.NoError(p.t, what(ch))
	require.NoError(p.t, conn.Close())
}

// doctor runs the command and gives the checks that are not ok, by name.
func (p *patient) doctor(args ...string) (unwell map[string]relay.Check, err error) {
	p.t.Helper()
	var out bytes.Buffer
	err = command(p.t.Context(), append([]string{"doctor", "--json", "--mysql-dsn=" + p.dsn, "--amqp-url=" + p.url}, args...), &out)
	var document struct {
		OK     bool
		Checks []relay.Check
	}
	require.NoError(p.t, json.Unmarshal(out.Bytes(), &document), out.String())
	require.NotEmpty(p.t, document.Checks)
	require.Equal(p.t, err == nil, document.OK)
	unwell = map[string]relay.Check{}
	for _, c := range document.Checks {
		if c.Level != relay.CheckOK {
			unwell[c.Name] = c
		}
	}
	return unwell, err
}

// fails runs the command and wants one failed check with these words in it.
func (p *patient) fails(name, found, mend string, args ...string) {
	p.t.Helper()
	unwell, err := p.doctor(args...)
	require.ErrorIs(p.t, err, errUnwell)
	require.Len(p.t, unwell, 1)
	c := unwell[name]
	require.Equal(p.t, relay.CheckFail, c.Level, "%+v", unwell)
	require.Contains(p.t, c.Found, found)
	require.Contains(p.t, c.Mend, mend)
}

func TestDoctorIsContentWithWhatWorks(t *testing.T) {
	t.Parallel()
	p := setup(t)
	unwell, err := p.doctor()
	require.NoError(t, err)
	require.Empty(t, unwell)

	var out bytes.Buffer
	require.NoError(t, command(t.Context(), []string{"doctor", "--mysql-dsn=" + p.dsn, "--amqp-url=" + p.url}, &out))
	for line := range strings.Lines(out.String()) {
		require.Regexp(t, "^ok  ", line)
	}
	for _, name := range []string{"source", "binlog_format", "binlog_expire_logs_seconds", "server_id", "outbox table", "dump", "table relay_checkpoint", "checkpoint", "broker", "exchange"} {
		require.Contains(t, out.String(), "  "+name+"  ")
	}
}

func TestDoctorNamesColumnsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.exec("ALTER TABLE outbox MODIFY type ENUM('CustomerCreated', 'CustomerUpdated') NOT NULL")
	p.fails("outbox column type", "is enum", "MODIFY type")
	p.exec("ALTER TABLE outbox MODIFY type VARCHAR(64) CHARACTER SET latin1 NOT NULL")
	p.fails("outbox column type", "is in latin1", "CONVERT TO CHARACTER SET utf8mb4")
	p.exec("ALTER TABLE outbox DROP COLUMN type")
	p.fails("outbox table", "lacks the column type", "OUTBOX_TABLE")
	p.exec("CREATE TABLE plain (id CHAR(36), aggregatetype VARCHAR(9), aggregateid VARCHAR(9), type VARCHAR(9), payload JSON) ENGINE=MyISAM")
	p.fails("outbox table", "MyISAM", "ENGINE=InnoDB", "--outbox-table=plain")
	p.fails("outbox table", "does not exist", "MIGRATE=true", "--outbox-table=nothing")
}

func TestDoctorNamesMissingRights(t *testing.T) {
	t.Parallel()
	p := setup(t)
	user := "u" + strings.ReplaceAll(schema.NewID(), "-", "")[:20]
	account := fmt.Sprintf("'%s'@'%%'", user)
	p.exec("CREATE USER " + account + " IDENTIFIED BY 'Secret-1'")
	t.Cleanup(func() { _, _ = p.db.Exec("DROP USER " + account) })
	server, err := mysql.ParseDSN(p.dsn)
	require.NoError(t, err)
	server.User, server.Passwd = user, "wrong"
	p.dsn = server.FormatDSN()
	p.fails("login", "refuses the login", "MYSQL_DSN")
	server.Passwd = "Secret-1"
	p.dsn = server.FormatDSN()
	p.fails("login", "refuses the login", "MYSQL_DSN") // no right to the database

	// Each grant mends what was named, and shows what is missing next.
	p.exec("GRANT SELECT, DELETE ON outbox TO " + account)
	p.fails("rights", "may not read the binlog", "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.*")
	p.exec("GRANT REPLICATION CLIENT ON *.* TO " + account)
	p.fails("dump", "as a replica", "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.*")
	p.exec("GRANT REPLICATION SLAVE ON *.* TO " + account)
	for _, table := range []string{"relay_member", "relay_quarantine", "relay_audit"} {
		p.exec("GRANT SELECT, INSERT, UPDATE, DELETE ON " + table + " TO " + account)
	}
	p.fails("table relay_checkpoint", "does not exist, or", "GRANT SELECT, INSERT, UPDATE ON relay_checkpoint")
	p.exec("GRANT SELECT ON relay_checkpoint TO " + account)
	p.fails("table relay_checkpoint", "may not INSERT, UPDATE", "GRANT INSERT, UPDATE ON relay_checkpoint")
	p.exec("GRANT UPDATE ON relay_checkpoint TO " + account)
	p.fails("table relay_checkpoint", "may not INSERT", "GRANT INSERT ON relay_checkpoint")
	p.exec("GRANT INSERT ON relay_checkpoint TO " + account)
	unwell, err := p.doctor()
	require.NoError(t, err)
	require.Empty(t, unwell)
}

func TestDoctorReadsTheCheckpoint(t *testing.T) {
	t.Parallel()
	p := setup(t)
	store := checkpoint.New(p.db, "default", "test", time.Minute)
	seen, err := store.Look(t.Context())
	require.NoError(t, err)
	lease, _, err := store.Acquire(t.Context(), seen)
	require.NoError(t, err)
	epoch, place := lease.Epoch, p.end()
	require.NoError(t, store.Save(t.Context(), epoch, place, ""))
	unwell, err := p.doctor()
	require.NoError(t, err)
	require.Empty(t, unwell)

	ahead := place
	if place.Flavor == "mysql" {
		ahead.GTIDSet += ",aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa:1-7"
	} else {
		ahead.GTIDSet += ",77-7-7"
	}
	require.NoError(t, store.Save(t.Context(), epoch, ahead, ""))
	p.fails("checkpoint", "the server", "")
	place.GTID, place.ServerUUID = false, "another"
	require.NoError(t, store.Save(t.Context(), epoch, place, ""))
	p.fails("checkpoint", "point MYSQL_DSN at the right server", "")
	p.exec("UPDATE relay_checkpoint SET crc32 = crc32 + 1")
	p.fails("checkpoint", "checksum", "")

	require.NoError(t, store.Announce(t.Context(), 1, "streaming"))
	p.exec("DELETE FROM relay_checkpoint")
	p.fails("checkpoint", "is gone although this relay has run before", "")
}

// end is the place of the server's end.
func (p *patient) end() relay.Position {
	p.t.Helper()
	server, err := mysql.ParseDSN(p.dsn)
	require.NoError(p.t, err)
	reader := binlog.New(binlog.Config{Server: server, DB: p.db, Start: binlog.StartLatest})
	ctx, cancel := context.WithCancel(p.t.Context())
	defer cancel()
	surveyor := binlog.NewSurveyor(reader, time.Second)
	done := make(chan error, 1)
	go func() { done <- surveyor.Run(ctx) }()
	require.Eventually(p.t, func() bool { return !surveyor.Last().At.IsZero() }, 10*time.Second, time.Millisecond)
	cancel()
	require.NoError(p.t, <-done)
	last := surveyor.Last()
	file, pos := last.End()
	return relay.Position{Flavor: last.Flavor, ServerUUID: last.UUID, GTID: last.GTID, GTIDSet: last.GTIDSet, File: file, Pos: pos}
}

func TestDoctorLooksAtTheBroker(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.declare(func(ch *amqp.Channel) error { return ch.ExchangeDelete(topology.Exchange, false, false) })
	unwell, err := p.doctor("--on-unroutable=park")
	require.NoError(t, err, "the relay will declare them")
	for _, name := range []string{"exchange", "unrouted exchange", "unrouted queue"} {
		require.Equal(t, relay.CheckWarn, unwell[name].Level, "%+v", unwell)
		require.Contains(t, unwell[name].Found, "does not exist")
	}
	unwell, err = p.doctor("--on-unroutable=park")
	require.NoError(t, err)
	require.Len(t, unwell, 3, "the doctor declares nothing")

	p.declare(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(topology.Unrouted, true, false, false, false, amqp.Table{"x-max-length": int64(5)})
		return errors.Join(err, topology.DeclareExchange(ch, topology.Exchange))
	})
	unwell, err = p.doctor("--on-unroutable=park")
	require.ErrorIs(t, err, errUnwell)
	require.Contains(t, unwell["unrouted queue"].Found, `queue "outbox.unrouted" has x-max-length 5 and needs none`)
	require.Contains(t, unwell["unrouted queue"].Mend, "delete it")
	p.declare(func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(topology.Unrouted, false, false, false)
		return err
	})
	conn, err := amqp.Dial(p.url)
	require.NoError(t, err)
	require.NoError(t, errors.Join(topology.EnsureUnrouted(conn), conn.Close()))
	unwell, err = p.doctor("--on-unroutable=park")
	require.NoError(t, err)
	require.Empty(t, unwell)

	p.url = strings.Replace(p.url, "guest:guest", "guest:Secret-2", 1)
	p.fails("broker", "403", "AMQP_URL")
	require.NotContains(t, fmt.Sprint(p.doctor()), "Secret-2")
	p.url = "amqp://guest:guest@127.0.0.1:1/"
	p.fails("broker", "refused", "AMQP_URL")
}

func TestDoctorTellsAServerThatIsAway(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.dsn = "root@tcp(127.0.0.1:1)/db"
	p.fails("source", "out of reach", "")
}
