package binlog_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
)

// TestAMoveGetsPastWhatHaltedTheRelay whatever names the place behind it: looking for it, the relay has no outbox to care for.
func TestAMoveGetsPastWhatHaltedTheRelay(t *testing.T) {
	t.Parallel()
	for name, b := range withAndWithoutGTIDs(t) {
		place := b.confirmed(3)
		conn, err := b.db.Conn(t.Context())
		require.NoError(t, err)
		for _, statement := range []string{
			"SET GLOBAL log_bin_trust_function_creators = ON", "CREATE TABLE other (a INT)",
			"CREATE FUNCTION f() RETURNS INT DETERMINISTIC MODIFIES SQL DATA BEGIN INSERT INTO other VALUES (1); RETURN 1; END",
			"SET binlog_format = STATEMENT", "DO f()", "SET binlog_format = ROW",
		} {
			_, err := conn.ExecContext(t.Context(), statement)
			require.NoError(t, err, statement)
		}
		require.NoError(t, conn.Close())
		require.Equal(t, relay.NotRowLogged, b.halted(place).Reason)

		end := b.moment(b.isMySQL(), time.Time{})
		for _, target := range []binlog.Target{{File: end.file, Pos: end.pos}, {Time: time.Now().Add(time.Hour)}} {
			to, err := b.reader(binlog.StartLatest).Locate(t.Context(), target)
			require.NoError(t, err, "%s: %+v", name, target)
			require.Zero(t, b.behind(to, b.marker()))
		}
	}
}
