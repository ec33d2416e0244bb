package consume

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/go-sql-driver/mysql"

	"tailbox/deploy/ops"
)

// passing are the server's errors that go away without anybody touching the message.
var passing = []uint16{
	1205,                               // lock wait timeout
	1213,                               // deadlock
	1020,                               // MariaDB: the record has changed since it was last read
	1040,                               // too many connections
	1203,                               // the user has too many connections
	1226,                               // the user has used up a resource
	1053,                               // shutdown in progress
	1317,                               // the query was interrupted
	1927,                               // MariaDB: the connection was killed
	1080,                               // the connection was forced to close
	1152, 1158, 1159, 1160, 1161, 1184, // the connection broke
	2006, 2013, // the server has gone away, the connection was lost
	1290, 1792, 1836, // the server, the transaction or the table is read-only: a failover, or maintenance
	1021, 1114, // the disk, or the table, is full
	1047, 3100, 3101, // Galera or group replication: not ready, or the commit was rolled back
}

// refusing are the server's errors that somebody has to mend at the server: login, rights, or tables that are not there.
var refusing = []uint16{
	1044, 1045, 1698, // access denied
	1142, 1143, // a right is missing
	1049, 1146, 1054, // the database, the table or the column does not exist: not migrated yet
}

// Transient tells whether an error of the database says nothing about the message, so that trying again later, without
// counting it, is right: lost connections, deadlocks, a server that is down, read-only, or not set up yet.
func Transient(err error) bool {
	code := ops.MySQLCode(err)
	return lostConnection(err) || slices.Contains(passing, code) || slices.Contains(refusing, code)
}

func lostConnection(err error) bool {
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, sql.ErrConnDone)
}

// refusedByDatabase tells whether only somebody at the database can mend it, so that asking often is no use.
func refusedByDatabase(err error) bool { return slices.Contains(refusing, ops.MySQLCode(err)) }

// errDatabaseSlow is why a try that ran out of time is not counted.
var errDatabaseSlow = errors.New("the try ran out of time while the database did not answer")

// describe names an error without its text, which may quote the row: the server's number, what the network said, else the
// innermost type.
func describe(err error) string {
	if network, ok := errors.AsType[*net.OpError](err); ok {
		return network.Error()
	}
	if code := ops.MySQLCode(err); code != 0 {
		return fmt.Sprintf("mysql %d", code)
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return fmt.Sprintf("%T", err)
		}
		err = inner
	}
}
