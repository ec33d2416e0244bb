package binlog_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
)

// TestTheTableComesFromTheServerThatWasAsked: when the address leads to another server from the fence on, that one's table is not
// sent as if it had all that is before the place.
func TestTheTableComesFromTheServerThatWasAsked(t *testing.T) {
	t.Parallel()
	b, other := private(t), private(t)
	b.commit(3)
	other.commit(2)
	server, err := mysql.ParseDSN(other.dsn)
	require.NoError(t, err)
	var r *remote
	r = b.remote(func(cfg *binlog.Config) {
		cfg.Start, cfg.Recheck = binlog.StartSnapshot, time.Hour
		cfg.Fence = func(context.Context) error {
			r.proxy.Target(server.Addr)
			return nil
		}
	})
	other.exec(fmt.Sprintf("CREATE USER '%s'@'%%' IDENTIFIED BY 'Secret-1'", r.user))
	other.exec(fmt.Sprintf("GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '%s'@'%%'", r.user))
	rows, ended := r.stream(t.Context())
	err = <-ended
	require.Empty(t, rows)
	require.ErrorContains(t, err, "answered for the outbox table")
}
