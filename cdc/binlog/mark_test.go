package binlog

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/relay"
)

// TestAMarkIsPassedByPlacesOfItsOwnServerAndTermAlone: file and offset of another server, or of another history of the same,
// look alike and say nothing.
func TestAMarkIsPassedByPlacesOfItsOwnServerAndTermAlone(t *testing.T) {
	t.Parallel()
	l := newLedger()
	l.begin(relay.Position{Flavor: mariaDB, ServerUUID: "a", GTID: true, File: "f.000001", Pos: 100})
	_, err := l.resume(&server{flavor: mariaDB, gtid: true, uuid: "a"})
	require.NoError(t, err)
	mark := Mark{server: "a", file: "f.000001", pos: 300, term: l.term}
	passed := func(place relay.Position) bool {
		t.Helper()
		passed, err := l.passed(place, mark)
		require.NoError(t, err)
		return passed
	}
	saved := func() relay.Position {
		at, _, ok := l.confirmed(1)
		require.True(t, ok)
		return at
	}

	require.False(t, passed(saved()))
	l.ended(gtid{}, "f.000001", 200, time.Time{}, true)
	foreign := saved()
	require.False(t, passed(foreign), "not all up to the mark was read")
	l.ended(gtid{}, "f.000001", 300, time.Time{}, false)
	require.True(t, passed(foreign), "the rest is the relay's own")
	require.False(t, passed(relay.Position{ServerUUID: "a", File: "f.000001", Pos: 199}))
	require.False(t, passed(relay.Position{ServerUUID: "b", File: "f.000009", Pos: 900}), "another server's")
	l.row(0)
	l.ended(gtid{}, "f.000001", 400, time.Time{}, true)
	require.False(t, passed(foreign), "something else came, before the mark as far as can be told")
	require.True(t, passed(saved()))

	l.moved("b")
	_, err = l.passed(saved(), mark)
	require.ErrorIs(t, err, ErrMarkLost, "after a failover")
	l.moved("a")
	_, _ = l.leave()
	_, err = l.passed(relay.Position{ServerUUID: "a", File: "f.000002", Pos: 4}, mark)
	require.ErrorIs(t, err, ErrMarkLost, "after a gap")
}
