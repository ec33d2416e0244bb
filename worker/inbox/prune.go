package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// MinRetention is the shortest time for which rows may be kept: below it, everyday redeliveries would find their rows gone.
const MinRetention = 24 * time.Hour

// Slack is how far the clocks of the events' writers and of the database may be apart.
const Slack = time.Hour

// mysqlTime is a DATETIME(6) as text, which no session's time zone and no driver's setting can shift.
const mysqlTime = "2006-01-02 15:04:05.000000"

const mysqlTimeFormat = "%Y-%m-%d %H:%i:%s.%f"

// Prune deletes the oldest rows of a consumer, at most about limit of them, all written more than the retention ago by the
// database's clock, and tells whether there are more. It takes locks on these rows alone, for the time of one statement. Any
// number of processes may prune at once.
//
// Invariant: a row is gone only together with a horizon that is not before it.
func Prune(ctx context.Context, db *sql.DB, consumer string, retention time.Duration, limit int) (pruned int, more bool, err error) {
	upTo, found, err := oldest(ctx, db, consumer, retention, limit)
	if err != nil || found == 0 {
		return 0, false, err
	}
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted}) // locks no gaps, so that inserts pass
	if err != nil {
		return 0, false, fmt.Errorf("begin to prune: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing to do after a commit

	// First the horizon, whose row lets one process at a time prune: two that delete the same rows could deadlock.
	_, err = tx.ExecContext(ctx, `INSERT INTO inbox_horizon (consumer, pruned_before) VALUES (?, ?)
		ON DUPLICATE KEY UPDATE pruned_before = GREATEST(pruned_before, CAST(? AS DATETIME(6)))`, consumer, upTo, upTo)
	if err != nil {
		return 0, false, fmt.Errorf("move the inbox's horizon: %w", err)
	}
	result, err := tx.ExecContext(ctx, // in this form, a delete can be told its index
		"DELETE i FROM inbox i FORCE INDEX (age) WHERE consumer = ? AND processed_at <= CAST(? AS DATETIME(6))", consumer, upTo)
	if err != nil {
		return 0, false, fmt.Errorf("delete from inbox: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return 0, false, fmt.Errorf("commit pruning: %w", err)
	}
	rows, err := result.RowsAffected()
	return int(rows), found == limit, err
}

// oldest counts the oldest rows beyond the retention, at most limit, and tells when the newest of them was written.
func oldest(ctx context.Context, db *sql.DB, consumer string, retention time.Duration, limit int) (upTo string, found int, err error) {
	var newest sql.NullString
	err = db.QueryRowContext(ctx, `SELECT COUNT(*), DATE_FORMAT(MAX(at), ?) FROM
		(SELECT processed_at at FROM inbox FORCE INDEX (age)
		WHERE consumer = ? AND processed_at < UTC_TIMESTAMP(6) - INTERVAL ? SECOND ORDER BY processed_at LIMIT ?) oldest`,
		mysqlTimeFormat, consumer, int64(retention/time.Second), limit).Scan(&found, &newest)
	if err != nil {
		return "", 0, fmt.Errorf("look for old inbox rows: %w", err)
	}
	return newest.String, found, nil
}

// Newest tells when the consumer's newest row was written, as text that differs when another one is; "never" when there is none.
func Newest(ctx context.Context, db *sql.DB, consumer string) (string, error) {
	var at string
	err := db.QueryRowContext(ctx, "SELECT COALESCE(DATE_FORMAT(MAX(processed_at), ?), 'never') FROM inbox WHERE consumer = ?", mysqlTimeFormat, consumer).Scan(&at)
	if err != nil {
		return "", fmt.Errorf("look for the newest inbox row: %w", err)
	}
	return at, nil
}

// Horizon is the time before which a message may have been created, applied, and its row pruned; zero when nothing was pruned.
// A message that was created later and has no row has not been applied. Ask for it after Record has found no row, in the same
// transaction, which has to be READ COMMITTED: a row whose deletion Record waited for is before the horizon.
func Horizon(ctx context.Context, tx *sql.Tx, consumer string) (time.Time, error) {
	var text string
	err := tx.QueryRowContext(ctx, "SELECT DATE_FORMAT(pruned_before, ?) FROM inbox_horizon WHERE consumer = ?", mysqlTimeFormat, consumer).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read the inbox's horizon: %w", err)
	}
	pruned, err := time.Parse(mysqlTime, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the inbox's horizon: %w", err)
	}
	return pruned.Add(Slack), nil
}
