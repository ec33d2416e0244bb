package schema

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/go-sql-driver/mysql"
	"github.com/pressly/goose/v3"
)

//go:embed sql/*.sql
var migrations embed.FS

// ErrMigrateLocked is returned by Migrate when another process held the migration lock for all of lockWait. Nothing was
// changed; find the process that migrates (SELECT IS_USED_LOCK(...) names its connection) and start again.
var ErrMigrateLocked = errors.New("another process is migrating this database")

const lockWait = 2 * time.Minute

// Migrate brings the tables of the DSN's database to this version and returns how many migrations it applied. Two
// processes that start at once are safe: the second waits for the first and finds nothing to do.
func Migrate(ctx context.Context, db *sql.DB) (applied int, err error) {
	files, err := fs.Sub(migrations, "sql")
	if err != nil {
		return 0, fmt.Errorf("open embedded migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectMySQL, db, files, goose.WithSessionLocker(namedLock{}))
	if err != nil {
		return 0, fmt.Errorf("prepare migrations: %w", err)
	}
	if _, err := lockName(ctx, db); err != nil {
		return 0, err
	}
	results, err := provider.Up(ctx)
	if err != nil {
		return len(results), fmt.Errorf("migrate: %w", err)
	}
	return len(results), nil
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

// namedLock is MySQL's GET_LOCK on the migrating connection: the server frees it when that connection ends, whatever
// ends it, so a killed migration never leaves a lock behind.
type namedLock struct{}

func (namedLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	name, err := lockName(ctx, conn)
	if err != nil {
		return err
	}
	var got sql.NullInt64
	if err := conn.QueryRowContext(ctx, "SELECT GET_LOCK(?, ?)", name, int(lockWait.Seconds())).Scan(&got); err != nil {
		return fmt.Errorf("take the migration lock: %w", err)
	}
	if got.Int64 != 1 {
		return ErrMigrateLocked
	}
	return nil
}

func (namedLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	name, err := lockName(ctx, conn)
	if err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, "DO RELEASE_LOCK(?)", name); err != nil {
		return fmt.Errorf("release the migration lock: %w", err)
	}
	return nil
}

// lockName is one name per database: GET_LOCK's names are server-wide and have at most 64 characters.
func lockName(ctx context.Context, db interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}) (string, error) {
	var database sql.NullString
	if err := db.QueryRowContext(ctx, "SELECT DATABASE()").Scan(&database); err != nil {
		return "", fmt.Errorf("ask for the database's name: %w", err)
	}
	if !database.Valid {
		return "", errors.New("MYSQL_DSN names no database: write it as user:password@tcp(host:3306)/database")
	}
	sum := sha256.Sum256([]byte(database.String))
	return "tailbox_migrate_" + hex.EncodeToString(sum[:16]), nil
}
