package store_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"tailbox/api/handler/handlertest"
	"tailbox/api/store"
	"tailbox/deploy/ops"
	"tailbox/schema/schematest"
)

func TestOnlyTheDatabasesFaultsAreUnavailable(t *testing.T) {
	t.Parallel()
	for _, err := range []error{
		driver.ErrBadConn, sql.ErrConnDone, sql.ErrTxDone, mysql.ErrInvalidConn, io.ErrUnexpectedEOF, context.DeadlineExceeded,
		&net.OpError{Op: "dial", Err: errors.New("refused")}, store.ErrUnavailable,
		&mysql.MySQLError{Number: 1021}, &mysql.MySQLError{Number: 1030}, &mysql.MySQLError{Number: 1040}, &mysql.MySQLError{Number: 1213}, &mysql.MySQLError{Number: 1290}, &mysql.MySQLError{Number: 1146},
	} {
		require.True(t, store.Unavailable(fmt.Errorf("wrapped: %w", err)), err)
	}
	for _, err := range []error{
		nil, errors.New("other"), store.ErrNotFound, store.ErrStale, store.ErrRunning, store.ErrKeyReused, sql.ErrNoRows,
		&mysql.MySQLError{Number: 1062}, &mysql.MySQLError{Number: 1064}, &mysql.MySQLError{Number: 1406},
	} {
		require.False(t, store.Unavailable(err), err)
	}
}

func TestDatabaseThatIsNotThereIsUnavailable(t *testing.T) {
	t.Parallel()
	s := open(t, "root@tcp(127.0.0.1:1)/nothing")
	c := handlertest.Customer()

	_, err := s.Get(t.Context(), c.ID)
	require.ErrorIs(t, err, store.ErrUnavailable)
	_, err = s.List(t.Context(), "", 1)
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorIs(t, s.Create(t.Context(), c, nil), store.ErrUnavailable)
	_, err = s.CreateOnce(t.Context(), c, nil, handlertest.Once("key", c))
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorIs(t, s.Check(t.Context()), store.ErrUnavailable)
}

func TestCheckNamesTheTablesThatAreMissing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.store.Check(t.Context()))
	_, err := b.direct.ExecContext(t.Context(), "DROP TABLE outbox")
	require.NoError(t, err)
	missing, ok := errors.AsType[*store.TablesMissingError](b.store.Check(t.Context()))
	require.True(t, ok)
	require.Equal(t, []string{"outbox"}, missing.Tables)

	missing, ok = errors.AsType[*store.TablesMissingError](open(t, schematest.EmptyDB(t)).Check(t.Context()))
	require.True(t, ok)
	require.Equal(t, []string{"customers", "idempotency_keys", "outbox"}, missing.Tables)
}

func TestDSNThatCannotBeReadIsBadConfig(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{"", "x", "root:s3cret/db", "root@tcp(localhost)/"} {
		_, err := store.Open(ops.Secret(dsn), ops.TLSFiles{})
		require.ErrorIs(t, err, ops.ErrBadConfig)
		require.NotContains(t, err.Error(), "s3cret")
	}
}
