package schema

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/go-sql-driver/mysql"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

//go:embed sql/*.sql
var migrations embed.FS

// ErrMigrateLocked is returned by Migrate when another process held the migration lock for all of lockWait. Nothing was
// changed; find the process that migrates (SELECT IS_USED_LOCK(...) names its connection) and start again.
var ErrMigrateLocked = errors.New("another process is migrating this database")

const lockWait = 20 * time.Second // less than the services' pools wait for an answer

// Migrate brings the tables of the DSN's database to this version and returns how many migrations it applied or found done. Two
// processes that start at once are safe: the second waits for the first and finds nothing to do. The pool has to
// allow two connections.
func Migrate(ctx context.Context, db *sql.DB) (applied int, err error) {
	files, err := fs.Sub(migrations, "sql")
	if err != nil {
		return 0, fmt.Errorf("open embedded migrations: %w", err)
	}
	// The lock is ours, not goose's session locker: that one is taken only after goose has looked for what is pending, and a
	// look at a version table that another process is just making fails.
	unlock, err := lock(ctx, db)
	if err != nil {
		return 0, err
	}
	defer unlock()
	provider, err := goose.NewProvider(goose.DialectMySQL, db, files)
	if err != nil {
		return 0, fmt.Errorf("prepare migrations: %w", err)
	}
	for {
		results, err := provider.Up(ctx)
		applied += len(results)
		partial, failed := errors.AsType[*goose.PartialError](err)
		if failed {
			applied += len(partial.Applied)
		}
		switch {
		case err == nil:
			return applied, nil
		case !failed || !isDone(err):
			return applied, fmt.Errorf("migrate: %w", err)
		}
		if err := record(ctx, db, partial.Failed.Source.Version); err != nil {
			return applied, err
		}
		applied++
	}
}

// isDone tells whether a migration failed because it was done before: its process was killed during the statement, which the
// server finished, and nobody recorded it. A file has one statement, which is done as a whole or not at all.
func isDone(err error) bool {
	refused, ok := errors.AsType[*mysql.MySQLError](err)
	return ok && slices.Contains([]uint16{tableExists, columnExists, keyExists, nothingToDrop}, refused.Number)
}

// What the server says to a statement that was done before.
const (
	tableExists   = 1050
	columnExists  = 1060
	keyExists     = 1061
	nothingToDrop = 1091
)

// record notes that a migration was applied.
func record(ctx context.Context, db *sql.DB, version int64) error {
	store, err := database.NewStore(goose.DialectMySQL, goose.DefaultTablename)
	if err == nil {
		err = store.Insert(ctx, db, database.InsertRequest{Version: version})
	}
	if err != nil {
		return fmt.Errorf("record migration %d: %w", version, err)
	}
	return nil
}

// MigrateWaiting is Migrate for a service that may start before its database: it tries again until the server answers and no
// other process migrates. What the server itself refuses (a login, a right, a statement) is returned at once. retrying is
// called before each wait.
func MigrateWaiting(ctx context.Context, db *sql.DB, retrying func(err error, wait time.Duration)) (applied int, err error) {
	waits := backoff.NewExponentialBackOff()
	waits.MaxInterval = migrateMost
	attempt := func() (int, error) {
		applied, err := Migrate(ctx, db)
		if _, refused := errors.AsType[*mysql.MySQLError](err); refused {
			return applied, backoff.Permanent(err)
		}
		return applied, err
	}
	return backoff.Retry(ctx, attempt, backoff.WithBackOff(waits), backoff.WithMaxElapsedTime(0), backoff.WithNotify(retrying))
}

const migrateMost = 5 * time.Second // between two tries

// lock takes MySQL's GET_LOCK on a connection of its own, and unlock closes that connection. The server frees the lock when the
// connection ends, whatever ends it, so a killed migration never leaves one behind.
func lock(ctx context.Context, db *sql.DB) (unlock func(), err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to migrate: %w", err)
	}
	unlock = func() {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // so that it is closed, and not kept in the pool
		_ = conn.Close()
	}
	name, err := lockName(ctx, conn)
	if err != nil {
		unlock()
		return nil, err
	}
	var got sql.NullInt64
	err = conn.QueryRowContext(ctx, "SELECT GET_LOCK(?, ?)", name, int(lockWait.Seconds())).Scan(&got)
	if err == nil && got.Int64 != 1 {
		err = ErrMigrateLocked
	}
	if err != nil {
		unlock()
		return nil, fmt.Errorf("take the migration lock: %w", err)
	}
	return unlock, nil
}

// lockName is one name per database: GET_LOCK's names are server-wide and have at most 64 characters.
func lockName(ctx context.Context, conn *sql.Conn) (string, error) {
	var database sql.NullString
	if err := conn.QueryRowContext(ctx, "SELECT DATABASE()").Scan(&database); err != nil {
		return "", fmt.Errorf("ask for the database's name: %w", err)
	}
	if !database.Valid {
		return "", errors.New("MYSQL_DSN names no database: write it as user:password@tcp(host:3306)/database")
	}
	sum := sha256.Sum256([]byte(database.String))
	return "tailbox_migrate_" + hex.EncodeToString(sum[:16]), nil
}
