package binlog_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

// moment is a place between two transactions of the history, as the server itself names it.
type moment struct {
	file string
	pos  uint64
	set  string
	at   time.Time // between the commit before and the one behind
	rows int       // of the outbox that are behind the moment
}

// chronicle commits transactions with 0 to 4 outbox rows each over several files, and tells the moments between them.
func (b *bundle) chronicle(mysql bool) []moment {
	b.t.Helper()
	conn, err := b.db.Conn(b.t.Context())
	require.NoError(b.t, err)
	defer func() { require.NoError(b.t, conn.Close()) }()
	exec := func(query string, args ...any) {
		_, err := conn.ExecContext(b.t.Context(), query, args...)
		require.NoError(b.t, err, query)
	}
	exec("CREATE TABLE other (a INT)")
	exec("FLUSH BINARY LOGS")
	clock := time.Now().UTC().Truncate(time.Second).Add(-time.Hour)
	var moments []moment
	for i := range 16 {
		moments = append(moments, b.moment(mysql, clock))
		clock = clock.Add(time.Minute)
		if !mysql { // MariaDB's binlog has whole seconds, and takes the session's word for them
			exec("SET timestamp = ?", clock.Unix())
		}
		if mysql && i == 7 && b.has("gtid_mode", "ON") {
			exec("SET gtid_next = 'AUTOMATIC:blue'")
		}
		exec("BEGIN")
		exec("INSERT INTO other VALUES (?)", i)
		for range i % 5 {
			require.NoError(b.t, schema.Insert(b.t.Context(), conn, schematest.Event()))
		}
		exec("COMMIT")
		if mysql {
			exec("SET gtid_next = 'AUTOMATIC'")
		}
		if i%4 == 3 {
			exec("FLUSH BINARY LOGS")
		}
	}
	exec("SET timestamp = DEFAULT")
	moments = append(moments, b.moment(mysql, clock))
	behind := 0
	for i := len(moments) - 2; i >= 0; i-- {
		behind += i % 5
		moments[i].rows = behind
	}
	return moments
}

// moment asks the server where it is.
func (b *bundle) moment(mysql bool, clock time.Time) (m moment) {
	b.t.Helper()
	rows, err := b.db.QueryContext(b.t.Context(), "SHOW BINARY LOGS")
	require.NoError(b.t, err)
	defer rows.Close()
	for rows.Next() {
		into := []any{&m.file, &m.pos}
		if mysql {
			into = append(into, new(string))
		}
		require.NoError(b.t, rows.Scan(into...))
	}
	require.NoError(b.t, rows.Err())
	query := "SELECT @@GLOBAL.gtid_binlog_pos"
	if mysql {
		query = "SELECT REPLACE(@@GLOBAL.gtid_executed, '\n', '')"
	}
	require.NoError(b.t, b.db.QueryRowContext(b.t.Context(), query).Scan(&m.set))
	m.at = clock.Add(30 * time.Second)
	if mysql {
		require.NoError(b.t, b.db.QueryRowContext(b.t.Context(), "SELECT UTC_TIMESTAMP(6)").Scan(&m.at))
	}
	return m
}

func (b *bundle) has(variable, value string) bool {
	b.t.Helper()
	var got string
	require.NoError(b.t, b.db.QueryRowContext(b.t.Context(), "SELECT @@GLOBAL."+variable).Scan(&got))
	return got == value
}

func (b *bundle) isMySQL() bool {
	b.t.Helper()
	var version string
	require.NoError(b.t, b.db.QueryRowContext(b.t.Context(), "SELECT VERSION()").Scan(&version))
	return !strings.Contains(strings.ToLower(version), "mariadb")
}

// behind is how many rows a reader delivers that begins at a place, up to a marker.
func (b *bundle) behind(place relay.Position, marker string) int {
	b.t.Helper()
	r := b.reader(binlog.StartLatest)
	r.Begin(place)
	return len(b.read(r, marker, 0)) - 1
}

func (b *bundle) refuses(target binlog.Target, words ...string) {
	b.t.Helper()
	_, err := b.reader(binlog.StartLatest).Locate(b.t.Context(), target)
	var refused *binlog.TargetError
	require.ErrorAs(b.t, err, &refused)
	for _, word := range words {
		require.ErrorContains(b.t, err, word)
	}
}

// past is a server with a history. It runs with GTIDs or, where it can do without, by file and offset.
type past struct {
	*bundle
	gtid    bool
	moments []moment
	last    string // id of the event that ends it
}

// TestPlacesInTheBinlog shares a server between its parts, of which the last purges.
func TestPlacesInTheBinlog(t *testing.T) {
	t.Parallel()
	const many = "--max-connections=2000" // a reader that has left counts as a connection until the server finds out
	gtid := &past{bundle: private(t, many), gtid: true}
	all := []*past{gtid}
	if gtid.isMySQL() {
		all = append(all, &past{bundle: private(t, many, "--gtid-mode=OFF")})
	}
	for _, p := range all {
		p.moments = p.chronicle(p.isMySQL())
		p.last = p.marker()
		for _, part := range []struct {
			name string
			test func(*testing.T, *past)
		}{
			{"every target leads to the rows behind it", everyTarget},
			{"a target inside a transaction is refused with its bounds", insideATransaction},
			{"a move is measured in both directions", bothDirections},
			{"targets that the server cannot serve are refused", unservable},
		} {
			t.Run(fmt.Sprintf("gtid=%t/%s", p.gtid, part.name), func(t *testing.T) {
				part.test(t, &past{bundle: &bundle{t: t, db: p.db, dsn: p.dsn}, gtid: p.gtid, moments: p.moments, last: p.last})
			})
		}
	}
}

func everyTarget(t *testing.T, b *past) {
	moments, last := b.moments, b.last
	for i, m := range moments {
		targets := []binlog.Target{{File: m.file, Pos: m.pos}, {Time: m.at}}
		if b.gtid {
			targets = append(targets, binlog.Target{GTIDSet: m.set})
		} else {
			b.refuses(binlog.Target{GTIDSet: "x"}, "no GTIDs")
		}
		if !b.isMySQL() && i < len(moments)-1 { // half a second into the one of the next commit, which may have been later in it
			targets = append(targets, binlog.Target{Time: m.at.Add(30*time.Second + 500*time.Millisecond)})
		}
		for _, target := range targets {
			place, err := b.reader(binlog.StartLatest).Locate(t.Context(), target)
			require.NoError(t, err, "%+v", target)
			require.Equal(t, m.rows, b.behind(place, last), "moment %d: %+v gave %+v", i, target, place)
			require.Equal(t, b.gtid, place.GTID)
			if b.gtid && target.File != "" && i > 0 {
				require.Equal(t, m.set, place.GTIDSet, "the set at %s:%d", m.file, m.pos)
			}
		}
	}
}

func insideATransaction(t *testing.T, b *past) {
	moments := b.moments
	r := b.reader(binlog.StartLatest)
	for i, m := range moments[:len(moments)-1] {
		next := moments[i+1]
		if next.file != m.file {
			continue // the end of the transaction is not where the next moment is
		}
		_, err := r.Locate(t.Context(), binlog.Target{File: m.file, Pos: (m.pos + next.pos) / 2})
		require.Error(t, err)
		var inside, begin, end uint64
		_, err = fmt.Sscanf(err.Error(), "offset %d lies inside a transaction of "+m.file+", which reaches from %d to %d:", &inside, &begin, &end)
		require.NoError(t, err)
		require.LessOrEqual(t, end, next.pos, "MariaDB writes a note of its own between the two now and then")
		b.refuses(binlog.Target{File: m.file, Pos: begin + 1}, fmt.Sprintf("from %d to %d", begin, end))
		b.refuses(binlog.Target{File: m.file, Pos: end - 1}, fmt.Sprintf("from %d to %d", begin, end))
		place, err := r.Locate(t.Context(), binlog.Target{File: m.file, Pos: begin})
		require.NoError(t, err)
		require.Equal(t, m.rows, b.behind(place, b.last))
	}
}

func unservable(t *testing.T, b *past) {
	mysql, moments := b.isMySQL(), b.moments
	end := moments[len(moments)-1]
	b.refuses(binlog.Target{File: "binlog.999999", Pos: 4}, "no binlog file", "binlog.000001 to "+end.file)
	b.refuses(binlog.Target{File: "it's", Pos: 4}, "no binlog file")
	b.refuses(binlog.Target{File: end.file, Pos: 3}, "from 4 to")
	b.refuses(binlog.Target{File: end.file, Pos: 1 << 40}, "from 4 to")
	place, err := b.reader(binlog.StartLatest).Locate(t.Context(), binlog.Target{Time: time.Now().Add(-24 * time.Hour)})
	require.NoError(t, err, "nothing was purged, so all that was committed since is there")
	require.Equal(t, []any{"binlog.000001", uint64(4)}, []any{place.File, place.Pos})

	r := b.reader(binlog.StartLatest)
	gone, err := r.Locate(t.Context(), binlog.Target{File: moments[2].file, Pos: moments[2].pos})
	require.NoError(t, err)
	place, err = r.Locate(t.Context(), binlog.Target{File: moments[12].file, Pos: moments[12].pos})
	require.NoError(t, err)
	require.Eventually(t, func() bool { // a file that a stream is still being read from is passed over
		b.exec(fmt.Sprintf("PURGE BINARY LOGS TO '%s'", moments[9].file))
		return b.binlogs()[0] == moments[9].file
	}, 30*time.Second, 50*time.Millisecond, "the files to be gone")
	d, err := r.Compare(t.Context(), gone, place, time.Minute)
	require.NoError(t, err)
	require.Equal(t, binlog.Difference{Skipped: binlog.Count{AtLeast: true}}, d, "from a place that was purged nothing can be counted")
	b.refuses(binlog.Target{File: moments[2].file, Pos: moments[2].pos}, "no binlog file")
	b.refuses(binlog.Target{Time: moments[2].at}, "has purged", "the earliest time left is", "snapshot")
	if !b.gtid {
		return
	}
	b.refuses(binlog.Target{GTIDSet: moments[2].set}, "has purged", "the earliest place left is")
	b.refuses(binlog.Target{GTIDSet: ""}, "has purged")
	for _, set := range []string{"nonsense", "0-1", "3e11fa47-71ca-11e1-9e33-c80aa9429562:x", "'"} {
		b.refuses(binlog.Target{GTIDSet: set}, "the GTID set is not one of")
	}
	foreign := end.set + ",77-7-7"
	if mysql {
		foreign = end.set + ",3e11fa47-71ca-11e1-9e33-c80aa9429562:1"
	}
	b.refuses(binlog.Target{GTIDSet: foreign}, "transactions that the server has not")
	if !mysql { // the right domain and number, of a server that never wrote it
		domain, number := end.set[:strings.Index(end.set, "-")], end.set[strings.LastIndex(end.set, "-"):]
		b.refuses(binlog.Target{GTIDSet: domain + "-4711" + number}, "cannot stream from there")
	}
}

func bothDirections(t *testing.T, b *past) {
	moments := b.moments
	r := b.reader(binlog.StartLatest)
	var places []relay.Position
	for _, m := range moments {
		place, err := r.Locate(t.Context(), binlog.Target{File: m.file, Pos: m.pos})
		require.NoError(t, err)
		places = append(places, place)
	}
	check := func(from, to relay.Position, again, skipped int) {
		t.Helper()
		d, err := r.Compare(t.Context(), from, to, time.Minute)
		require.NoError(t, err)
		require.Equal(t, binlog.Difference{Again: binlog.Count{Rows: uint64(again)}, Skipped: binlog.Count{Rows: uint64(skipped)}}, d,
			"from %+v to %+v", from, to)
	}
	for _, pair := range [][2]int{{3, 3}, {3, 4}, {4, 3}, {0, 16}, {16, 0}, {5, 12}, {12, 5}} {
		from, to := moments[pair[0]], moments[pair[1]]
		check(places[pair[0]], places[pair[1]], max(0, to.rows-from.rows), max(0, from.rows-to.rows))
	}

	// From inside the transaction of four rows that follows moment 4, of which two are confirmed.
	begun := b.reader(binlog.StartLatest)
	begun.Begin(places[4])
	b.read(begun, "", 4)
	inside, _, ok := begun.Confirmed(2)
	require.True(t, ok)
	require.Equal(t, uint64(2), inside.SkipRows)
	check(inside, places[4], 2, 0)
	check(inside, places[2], 2+moments[2].rows-moments[4].rows, 0)
	check(inside, places[5], 0, 2)
	check(inside, places[7], 0, 2+moments[5].rows-moments[7].rows)
	check(places[4], inside, 0, 2)
	check(inside, inside, 0, 0)

	// When there is no time to count, it says so.
	d, err := r.Compare(t.Context(), places[16], places[0], time.Nanosecond)
	require.NoError(t, err)
	require.True(t, d.Again.AtLeast)
	require.False(t, d.Skipped.AtLeast, "there is nothing between the two, which needs no counting")

	// A snapshot sends what the table holds. A place of another server tells nothing.
	b.exec("DELETE FROM outbox ORDER BY id LIMIT 3")
	d, err = r.Compare(t.Context(), places[9], relay.Position{Snapshot: true}, time.Minute)
	require.NoError(t, err)
	require.Equal(t, binlog.Difference{Again: binlog.Count{Rows: uint64(moments[0].rows + 1 - 3)}}, d)
	elsewhere := places[9]
	elsewhere.Flavor = "another"
	d, err = r.Compare(t.Context(), elsewhere, places[9], time.Minute)
	require.NoError(t, err)
	require.True(t, d.Again.AtLeast && d.Skipped.AtLeast)
}

func TestASnapshotIsTakenWhereverTheRelayWouldStart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	want := b.commit(3)
	r := b.reader(binlog.StartLatest)
	place, err := r.Locate(t.Context(), binlog.Target{Snapshot: true})
	require.NoError(t, err)
	r.Begin(place)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var rows []relay.Row
	last := ""
	err = r.Stream(ctx, func(row relay.Row) error {
		rows = append(rows, row)
		switch {
		case len(rows) == len(want):
			last = b.marker()
		case row.Event.ID == last:
			return errEnough
		}
		return nil
	})
	require.ErrorIs(t, err, errEnough)
	require.ElementsMatch(t, append(want, last), ids(rows))
	saved, _, ok := r.Confirmed(rows[len(rows)-1].Seq)
	require.True(t, ok)
	require.False(t, saved.Snapshot, "from then on there is a place")
}

func TestThePayloadOfAnEventIsReadFromTheTable(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec("ALTER TABLE outbox RENAME COLUMN aggregate_type TO aggregatetype, RENAME COLUMN aggregate_id TO aggregateid")
	e := schematest.Event()
	b.exec("INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, aggregate_version, created_at) VALUES (?, 'c', '1', 'T', ?, 1, NOW(6))",
		e.ID, e.Payload)
	payload, found, err := b.reader(binlog.StartLatest).Payload(t.Context(), e.ID)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, e.Payload, payload)
	_, found, err = b.reader(binlog.StartLatest).Payload(t.Context(), schema.NewID())
	require.NoError(t, err)
	require.False(t, found)
}
