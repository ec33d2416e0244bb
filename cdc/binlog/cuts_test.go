package binlog_test

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
	"tailbox/deploy/faults"
	"tailbox/deploy/stack"
	"tailbox/schema"
)

// times is n, or with COUNT unset a tenth of it.
func times(n int) int {
	if os.Getenv("COUNT") == "full" {
		return n
	}
	return n / 10
}

// cuts breaks the link to the server behind byte N, for N swept over transactions of many rows, twice on the way, 300 times in
// all. The reader goes on behind the last row that it delivered; and so does a second one, as a process after a crash does,
// from the place behind any of the confirmed rows. Every other time the transactions are too large to be held.
func (m *matrix) cuts(t *testing.T) {
	c := newCutter(t, m)
	n := times(300)
	for i := range n {
		r := c.reader(i)
		r.Begin(c.place)
		var rows []relay.Row
		confirmed := 0
		// Twice the sweep, a little apart, so that the second cut is behind the first one or before it.
		for _, at := range []int64{c.all * int64(i) / int64(n), rand.Int64N(c.all)} {
			c.proxy.CutAfter(faults.ToClient, at)
			rows = c.read(t, r, rows, at)
			confirmed = c.check(t, r, rows, confirmed, i)
		}
		c.proxy.CutAfter(faults.ToClient, -1)
		rows = c.read(t, r, rows, -1)
		require.Equal(t, c.want, rowIDs(rows), "cut %d", i)
		c.check(t, r, rows, confirmed, i)
	}
}

// cutter has transactions in a binlog behind a place, and a proxy on the way to them.
type cutter struct {
	server *stack.MySQL
	db     *sql.DB
	proxy  *faults.Proxy
	place  relay.Position
	want   []string // the events behind the place
	all    int64    // bytes that it takes to read them
}

func newCutter(t *testing.T, m *matrix) *cutter {
	t.Helper()
	m.exec(t, "DROP DATABASE IF EXISTS m", "CREATE DATABASE m CHARACTER SET utf8mb4", outboxTable, "CREATE TABLE m.other (a INT)", "FLUSH BINARY LOGS")
	c := &cutter{server: m.server}
	var err error
	c.db, err = sql.Open("mysql", m.server.DSN("m"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.db.Close()) })
	c.proxy, err = faults.New(m.server.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.proxy.Close()) })

	r := c.reader(0)
	r.Begin(relay.Position{})
	stream := follow(t, r)
	c.place, _, _ = r.Confirmed(0)
	stream.cancel()
	conn, err := c.db.Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	rows := &rowMaker{}
	// Transactions of two kinds of GTIDs, where there are such.
	one, other, mark := "SET @x = 1", "SET @x = 2", ""
	switch {
	case m.server.Flavor() == stack.FlavorMariaDB:
		one, other, mark = "SET gtid_domain_id=0", "SET gtid_domain_id=7", ",7-"
	case m.enforced:
		one, other, mark = "SET gtid_next='AUTOMATIC'", "SET gtid_next='AUTOMATIC:tailbox'", ":tailbox:"
	}
	for _, statement := range []string{
		other, "INSERT INTO outbox VALUES {a}", one, "INSERT INTO other VALUES (1)", other,
		"BEGIN", "INSERT INTO outbox VALUES {b*12}", "INSERT INTO other VALUES (2)", "INSERT INTO outbox VALUES {c*8}", "COMMIT",
		one, "CREATE TABLE another (a INT)", "BEGIN", "INSERT INTO outbox VALUES {d*3}", "DELETE FROM outbox", "COMMIT", other, "INSERT INTO outbox VALUES {last}",
	} {
		rows.execute(t, conn, statement)
	}

	before := c.proxy.Passed(faults.ToClient)
	r = c.reader(0)
	r.Begin(c.place)
	c.want = rowIDs(c.read(t, r, nil, -1))
	c.all = c.proxy.Passed(faults.ToClient) - before
	require.Len(t, c.want, 1+12+8+3+1)
	end, _, ok := r.Confirmed(uint64(len(c.want) - 1))
	require.True(t, ok)
	require.Contains(t, end.GTIDSet, mark)
	return c
}

func (c *cutter) reader(i int) *binlog.Reader {
	direct, _ := mysql.ParseDSN(c.server.DSN("m")) // of our own making
	server := direct.Clone()
	server.Addr = c.proxy.Addr()
	r := binlog.New(binlog.Config{Server: server, DB: c.db, Start: binlog.StartLatest, Fence: unfenced,
		Outbox: binlog.Table{Schema: "m", Name: "outbox"}, Own: []binlog.Table{{Schema: "m", Name: "relay_checkpoint"}}})
	binlog.AskAt(r, direct)
	if i%2 == 1 {
		binlog.HoldLess(r, 2000)
	}
	return r
}

// read adds to rows what one stream delivers until it is cut or has all.
func (c *cutter) read(t *testing.T, r *binlog.Reader, rows []relay.Row, at int64) []relay.Row {
	t.Helper()
	if len(rows) > 0 && rows[len(rows)-1].Event.ID == "last" {
		return rows
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := r.Stream(ctx, func(row relay.Row) error {
		rows = append(rows, row)
		require.Equal(t, uint64(len(rows)), row.Seq)
		if row.Event.ID == "last" {
			return errEnough
		}
		return nil
	})
	require.NoError(t, ctx.Err(), "cut at %d: %v", at, err)
	halt := (*relay.Halt)(nil)
	require.NotErrorAs(t, err, &halt, "cut at %d", at)
	if at < 0 {
		require.ErrorIs(t, err, errEnough)
	}
	return rows
}

// check confirms some more rows, and holds the place behind them against the whole: what is behind it is what is not confirmed.
func (c *cutter) check(t *testing.T, r *binlog.Reader, rows []relay.Row, confirmed, i int) int {
	t.Helper()
	require.Equal(t, c.want[:len(rows)], rowIDs(rows), "nothing is lost, sent twice or invented")
	confirmed += rand.IntN(len(rows) - confirmed + 1)
	place, _, ok := r.Confirmed(uint64(confirmed))
	require.True(t, ok)
	next := c.reader(i)
	next.Begin(place)
	c.proxy.CutAfter(faults.ToClient, -1)
	if confirmed < len(c.want) {
		require.Equal(t, c.want[confirmed:], rowIDs(c.read(t, next, nil, -1)), "%d rows are confirmed at %+v", confirmed, place)
	}
	return confirmed
}

func rowIDs(rows []relay.Row) []string {
	events := make([]schema.Event, 0, len(rows))
	for _, row := range rows {
		events = append(events, row.Event)
	}
	return slices.Clip(eventIDs(events))
}
