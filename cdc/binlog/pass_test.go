package binlog

import (
	"strings"
	"testing"

	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/stretchr/testify/require"
)

func TestRowsArePassedWhereTheStatementNamesAnotherTable(t *testing.T) {
	t.Parallel()
	m := tableMaps{outbox: map[uint64]bool{}, isOutbox: func(e *replication.TableMapEvent) bool { return string(e.Schema)+"."+string(e.Table) == "m.outbox" }}
	header, long := strings.Repeat("\x00", replication.EventHeaderSize), strings.Repeat("t", 255)
	table := func(number, name string) *replication.TableMapEvent {
		return m.other([]byte(header + number + "\x00\x00\x01m\x00" + string(rune(len(name))) + name + "\x00columns"))
	}
	rows := func(number string, flags byte) bool {
		return m.passes([]byte(header + number + string(flags) + "\x00images"))
	}
	const outbox, other = "\x01\x00\x00\x00\x00\x00", "\x01\x00\x00\x00\x01\x00" // the same but for the fifth byte

	require.False(t, rows(other, 0), "no table has the number yet")
	require.Nil(t, table(outbox, "outbox"))
	named := table(other, "orders")
	require.Equal(t, []string{"m", "orders"}, []string{string(named.Schema), string(named.Table)})
	require.False(t, rows(outbox, 0))
	require.True(t, rows(other, 0))
	require.True(t, rows(other, statementEnd))
	require.False(t, rows(other, 0), "another statement")

	require.NotNil(t, table(outbox, "orders"), "numbers come again")
	require.True(t, rows(outbox, 0))
	require.Nil(t, table(outbox, "outbox"))
	require.False(t, rows(outbox, 0))

	whole := header + other + "\x00\x00\x01m\x00\xff" + long + "\x00"
	require.Equal(t, long, string(m.other([]byte(whole)).Table))
	for end := len(header); end < len(whole); end++ {
		require.Nil(t, m.other([]byte(whole[:end])), "cut at %d", end)
	}
	for end := len(header); end < len(header)+tableHeader; end++ {
		require.False(t, m.passes([]byte(whole[:end])), "cut at %d", end)
	}
}
