package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/go-sql-driver/mysql"

	"tailbox/deploy/ops"
)

// wrap says what was being done, and marks what is the database's fault rather than the request's.
func wrap(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case Unavailable(err) && !errors.Is(err, ErrUnavailable):
		return fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, err)
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
}

// Unavailable tells whether an error means that the database cannot be used just now: not reached, out of time, overloaded,
// read-only, not set up, or lost on the way. The same request may succeed later.
func Unavailable(err error) bool {
	if code := ops.MySQLCode(err); code != 0 {
		return refusesAll(code)
	}
	for _, lost := range []error{
		ErrUnavailable, context.DeadlineExceeded, context.Canceled, driver.ErrBadConn, sql.ErrConnDone, sql.ErrTxDone,
		mysql.ErrInvalidConn, mysql.ErrMalformPkt, mysql.ErrPktSync, mysql.ErrBusyBuffer, io.EOF, io.ErrUnexpectedEOF,
		errRaced,
	} {
		if errors.Is(err, lost) {
			return true
		}
	}
	_, network := errors.AsType[net.Error](err)
	return network
}

// refusesAll lists the server's errors that do not come from the request.
func refusesAll(code uint16) bool {
	switch code {
	case 1040, 1129, 1203, 1226: // too many connections, host blocked, limits of the account
	case 1044, 1045, 1049, 1142, 1146: // rights, database or table missing: the server is not set up
	case 1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161: // shutdown, lost network
	case 1317, 1927, 3169, 4031: // query or session killed
	case 1290, 1792, 1836, 3100: // read-only after a failover, or refused by replication
	case 1021, 1026, 1030, 1114, 1180, 1181: // disk full or failing, commit or rollback refused
	case codeLockWait, codeDeadlock, codeLostInCommit: // tried often enough
	default:
		return false
	}
	return true
}
