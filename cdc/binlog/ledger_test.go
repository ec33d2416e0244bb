package binlog

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"tailbox/cdc/relay"
)

// group is one transaction of the model: its GTID and how many outbox rows it has.
type group struct {
	gtid gtid
	rows int
}

// TestPlacesAgreeWithANaiveModel reads random transactions, breaks and confirms at random, and compares every place with
// one that is worked out from the list of transactions alone. A second ledger then begins at the place, as a process after a
// crash does, and must agree from there on.
func TestPlacesAgreeWithANaiveModel(t *testing.T) {
	t.Parallel()
	for _, flavor := range []string{mySQL, mariaDB} {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				groups := drawGroups(t, flavor)
				ledger, base := newLedger(), relay.Position{Flavor: flavor, ServerUUID: "u", GTID: true, File: "f", Pos: 4}
				ledger.begin(base)
				_, err := ledger.resume(&server{flavor: flavor, gtid: true, uuid: "u"})
				require.NoError(t, err)
				walk(t, ledger, flavor, groups, 0, 0)
			})
		})
	}
}

// TestFilesOfAnotherServerAreForgotten: after a failover nothing says that this is where the new server's file is.
func TestFilesOfAnotherServerAreForgotten(t *testing.T) {
	t.Parallel()
	l := newLedger()
	l.begin(relay.Position{Flavor: mariaDB, ServerUUID: "old", GTID: true, GTIDSet: "0-1-1", File: "f.000009", Pos: 400})
	_, err := l.resume(&server{flavor: mariaDB, gtid: true, uuid: "old"})
	require.NoError(t, err)
	l.row(0)
	l.ended(gtid{maria: mysql.MariadbGTID{ServerID: 1, SequenceNumber: 2}}, "f.000009", 500, time.Time{}, true)

	from, err := l.resume(&server{flavor: mariaDB, gtid: true, uuid: "new"})
	require.NoError(t, err)
	require.Equal(t, relay.Position{Flavor: mariaDB, ServerUUID: "old", GTID: true, GTIDSet: "0-1-2"}, from, "where it comes from")
	for seq := range uint64(2) {
		at, _, ok := l.confirmed(seq)
		require.True(t, ok)
		require.Equal(t, "new", at.ServerUUID)
		require.Empty(t, at.File)
		require.Zero(t, at.Pos)
	}
	l.ended(gtid{maria: mysql.MariadbGTID{ServerID: 1, SequenceNumber: 3}}, "f.000001", 70, time.Time{}, true)
	at, _, _ := l.confirmed(1)
	require.Equal(t, relay.Position{Flavor: mariaDB, ServerUUID: "new", GTID: true, GTIDSet: "0-1-3", File: "f.000001", Pos: 70}, at)
}

func drawGroups(t *rapid.T, flavor string) (groups []group) {
	next := map[string]int64{}
	for range rapid.IntRange(1, 12).Draw(t, "groups") {
		source := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "source")
		next[source]++
		g := gtid{source: uuid.NewSHA1(uuid.Nil, []byte(source)), first: next[source], last: next[source]}
		if tag := rapid.SampledFrom([]string{"", "", "tag"}).Draw(t, "tag"); tag != "" {
			g.tag = mysql.NewTag(tag)
		}
		if flavor == mariaDB {
			domain := uint32(source[0] - 'a')
			g = gtid{maria: mysql.MariadbGTID{DomainID: domain, ServerID: 1, SequenceNumber: uint64(next[source])}}
		}
		groups = append(groups, group{g, rapid.IntRange(0, 3).Draw(t, "rows")})
	}
	return groups
}

// walk feeds a ledger the groups from the first one on, of which skip rows are behind it already, and checks its places.
func walk(t *rapid.T, l *ledger, flavor string, groups []group, first, skip int) {
	delivered, confirmed := 0, 0
	check := func(read int) { // read groups are read whole
		if n := delivered - confirmed; n > 0 {
			confirmed += rapid.IntRange(0, n).Draw(t, "confirm")
		}
		at, _, ok := l.confirmed(uint64(confirmed))
		require.True(t, ok)
		require.Equal(t, naive(flavor, groups, first, skip, confirmed, read), at)
	}
	for i := first; i < len(groups); i++ {
		g := groups[i]
		l.transaction(g.gtid.String())
		rows := g.rows
		if i == first {
			rows -= skip
		}
		for range rows {
			require.Equal(t, uint64(delivered+1), l.row(0))
			delivered++
			check(i)
			if first == 0 && rapid.IntRange(0, 20).Draw(t, "crash") == 0 {
				crash(t, l, flavor, groups, confirmed)
				return
			}
		}
		l.ended(g.gtid, "f", end64(i), time64(i), true)
		check(i + 1)
	}
}

// crash begins a second ledger where the first one would have been saved.
func crash(t *rapid.T, l *ledger, flavor string, groups []group, confirmed int) {
	at, _, _ := l.confirmed(uint64(confirmed))
	next := newLedger()
	next.begin(at)
	from, err := next.resume(&server{flavor: flavor, gtid: true, uuid: "u"})
	require.NoError(t, err)
	require.Equal(t, at, from)
	first := 0
	for first < len(groups) && end64(first) <= at.Pos {
		first++
	}
	walk(t, next, flavor, groups, first, int(at.SkipRows))
}

func end64(group int) uint64 { return 4 + 100*uint64(group+1) }

func time64(group int) time.Time { return time.Unix(1_800_000_000+int64(group), 0).UTC() }

// naive works a place out: behind the groups whose rows are all confirmed and which are read whole, and the rows of the next.
func naive(flavor string, groups []group, first, skip, confirmed, read int) relay.Position {
	at := relay.Position{Flavor: flavor, ServerUUID: "u", GTID: true, File: "f", Pos: 4}
	left := confirmed + skip
	passed := 0
	for passed < read && (passed < first || groups[passed].rows <= left) {
		if passed >= first {
			left -= groups[passed].rows
		}
		at.Pos, at.CommittedAt = end64(passed), time64(passed)
		passed++
	}
	set := mysql.NewMysqlGTIDSet()
	domains := map[uint32]string{}
	for _, g := range groups[:passed] {
		if flavor == mariaDB {
			domains[g.gtid.maria.DomainID] = g.gtid.maria.String()
		} else {
			set.AddGTIDWithTag(g.gtid.source, g.gtid.tag, g.gtid.first)
		}
	}
	at.GTIDSet = set.String()
	if flavor == mariaDB {
		var list []string
		for domain := range uint32(2) {
			if text := domains[domain]; text != "" {
				list = append(list, text)
			}
		}
		at.GTIDSet = strings.Join(list, ",")
	}
	if left > 0 {
		at.SkipRows, at.SkipGTID = uint64(left), groups[passed].gtid.String()
	}
	return at
}

func TestAMillionTransactionsWithoutRowsCostOneEntry(t *testing.T) {
	t.Parallel()
	l := newLedger()
	l.begin(relay.Position{Flavor: mySQL, GTID: true, GTIDSet: "00000000-0000-0000-0000-00000000000a:1", File: "f", Pos: 4})
	_, err := l.resume(&server{flavor: mySQL, gtid: true, uuid: "u"})
	require.NoError(t, err)
	source := uuid.MustParse("00000000-0000-0000-0000-00000000000a")
	l.transaction("")
	l.row(0) // one row that stays unconfirmed
	for n := range int64(1_000_000) {
		l.ended(gtid{source: source, first: n + 2, last: n + 2}, "f", uint64(n+5), time.Time{}, true)
	}
	require.Len(t, l.ends, 1)
	require.Len(t, l.ends[0].gtids, 1)
	at, passed, ok := l.confirmed(1)
	require.True(t, ok)
	require.Equal(t, fmt.Sprintf("%s:1-1000001", source), at.GTIDSet)
	require.Equal(t, uint64(1_000_000), passed)
}

// TestRowsBehindAPlaceBelongToTheirTransactionAlone: after a failover another transaction may come first than the one that was
// partly confirmed. Its rows are not skipped in its stead.
func TestRowsBehindAPlaceBelongToTheirTransactionAlone(t *testing.T) {
	t.Parallel()
	const source = "00000000-0000-0000-0000-00000000000a"
	l := newLedger()
	l.begin(relay.Position{Flavor: mySQL, GTID: true, GTIDSet: source + ":1-10", File: "f", Pos: 4, SkipRows: 3, SkipGTID: source + ":11"})
	_, err := l.resume(&server{flavor: mySQL, gtid: true})
	require.NoError(t, err)

	l.transaction(source + ":12")
	l.row(0)
	at, _, _ := l.confirmed(1)
	require.Equal(t, source+":1-10", at.GTIDSet)
	require.Equal(t, uint64(1), at.SkipRows)
	require.Equal(t, source+":12", at.SkipGTID)

	// The stream breaks inside it, and yet another comes first.
	l.row(0)
	l.transaction(source + ":13")
	l.row(0)
	at, _, _ = l.confirmed(1)
	require.Equal(t, source+":12", at.SkipGTID, "one row of that transaction is confirmed")
	require.Equal(t, uint64(1), at.SkipRows)
	at, _, _ = l.confirmed(2)
	require.Zero(t, at.SkipRows, "between two transactions")
	require.Equal(t, source+":1-10", at.GTIDSet)
	at, _, _ = l.confirmed(3)
	require.Equal(t, source+":13", at.SkipGTID)
	require.Equal(t, uint64(1), at.SkipRows)
}

// TestAPlaceKnowsWhenWhatIsBeforeItWasCommitted: what a repair goes by. A transaction that is read and not confirmed does not
// count, and neither does a change of files, which has no time.
func TestAPlaceKnowsWhenWhatIsBeforeItWasCommitted(t *testing.T) {
	t.Parallel()
	const source = "00000000-0000-0000-0000-00000000000a"
	began := time64(0)
	l := newLedger()
	l.begin(relay.Position{Flavor: mySQL, GTID: true, GTIDSet: source + ":1", File: "f", Pos: 4, CommittedAt: began, Late: time.Minute})
	_, err := l.resume(&server{flavor: mySQL, gtid: true})
	require.NoError(t, err)
	check := func(confirmed uint64, at time.Time, late time.Duration) {
		t.Helper()
		place, _, ok := l.confirmed(confirmed)
		require.True(t, ok)
		require.Equal(t, at, place.CommittedAt)
		require.Equal(t, late, place.Late)
	}
	id := func(n int64) gtid { return gtid{source: uuid.MustParse(source), first: n, last: n} }
	check(0, began, time.Minute)
	l.transaction(source + ":2")
	l.row(time.Second)
	l.row(time.Hour)
	l.ended(id(2), "f", 100, time64(1), true)
	check(0, began, time.Hour)
	check(1, began, time.Hour)
	l.ended(id(3), "f", 200, time64(2), true)
	l.rotated("g")
	check(1, began, time.Hour)
	check(2, time64(2), time.Hour)
	l.ended(id(4), "g", 300, time64(1), true) // by a clock that was set back
	check(2, time64(1), time.Hour)
}
