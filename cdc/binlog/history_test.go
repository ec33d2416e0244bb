package binlog

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/relay"
)

func TestDomainsAreComparedByTheServerThatLogged(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		place, logged string
		want          extent
	}{
		{"", "", everything},
		{"", "0-1-5", everything},
		{"0-1-5", "0-1-5", everything},
		{"0-1-5", "0-2-9,0-1-7", everything}, // after a failover
		{"0-1-5", "0-2-9", nothing},          // the number alone does not tell
		{"0-1-5", "", nothing},
		{"0-1-5", "0-1-4,0-2-9", something},
		{"0-1-5,1-1-3", "0-1-5", something},
		{"0-1-5,1-1-3", "0-1-5, 1-1-3", everything},
	} {
		got, err := compareDomains(c.place, c.logged)
		require.NoError(t, err)
		require.Equal(t, c.want, got, "%s on %s", c.place, c.logged)
	}
	for _, bad := range []string{"x", "0-1", "0-1-x", "uuid:1-5"} {
		_, err := compareDomains(bad, "0-1-5")
		require.Error(t, err, bad)
	}
}

func TestAnotherServerWithTheSameNumberIsToldApart(t *testing.T) {
	t.Parallel()
	s := &server{uuid: "new", variables: map[string]string{"server_id": "1"}}
	for _, c := range []struct {
		server, set string
		want        bool
	}{
		{"old", "0-1-5", true},
		{"old", "0-1-5,1-1-7", true},
		{"old", "0-2-5", false},       // a failover
		{"old", "0-1-5,1-2-7", false}, // a failover
		{"old", "0-11-5", false},
		{"old", "", false},
		{"new", "0-1-5", false},
		{"", "0-1-5", false},
		{"server_id-1", "0-1-5", false}, // of a release that had no other identity
	} {
		require.Equal(t, c.want, s.took(relay.Position{ServerUUID: c.server, GTIDSet: c.set}), "%s %s", c.server, c.set)
	}
}

func TestFilesAreOrderedByTheirNumbers(t *testing.T) {
	t.Parallel()
	require.True(t, after("binlog.000010", "binlog.000009"))
	require.True(t, after("binlog.1000000", "binlog.999999"))
	require.False(t, after("binlog.000009", "binlog.000009"))
	require.False(t, after("binlog.000008", "binlog.000009"))
	require.False(t, after("other.000010", "binlog.000009"))
	require.False(t, after("binlog", "other"))
}

func TestAPlaceKnowsItsFileFromAnotherOneOfThatName(t *testing.T) {
	t.Parallel()
	made := time64(0)
	l := newLedger()
	l.begin(relay.Position{Flavor: mySQL, ServerUUID: "u", GTID: true, File: "f", Pos: 4})
	_, err := l.resume(&server{flavor: mySQL, gtid: true, uuid: "u"})
	require.NoError(t, err)
	check := func(file string, want time.Time) {
		t.Helper()
		place, _, _ := l.confirmed(0)
		require.Equal(t, file, place.File)
		require.Equal(t, want, place.FileMade)
	}
	check("f", time.Time{})
	require.True(t, l.opened("f", made), "it was not known yet")
	check("f", made)
	l.ended(gtid{}, "f", 100, time64(1), true)
	check("f", made)
	l.rotated("g")
	check("g", time.Time{})
	require.True(t, l.opened("g", time64(2)))
	check("g", time64(2))

	require.True(t, l.opened("g", time64(2)), "the stream begins again")
	require.False(t, l.opened("g", time64(3)), "in another file of that name")
	l.moved("v")
	check("", time.Time{})
	require.True(t, l.opened("g", time64(4)), "another server's")
}
