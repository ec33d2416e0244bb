// Package store owns the tables customers and idempotency_keys and every statement on them. Its caller owns the pool of
// connections and the validity of what it hands in.
//
// What it promises, whatever is killed and whenever: a change of a customer, its outbox row and the answer remembered for
// its Idempotency-Key are committed together or not at all; the versions of one customer rise by one with each event; and
// a repeat with the same key never makes a second customer.
package store

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"tailbox/deploy/ops"
)

// Errors that a caller branches on. Every method may return ErrUnavailable.
var (
	// ErrNotFound: there is no customer with this id.
	ErrNotFound = errors.New("no such customer")
	// ErrStale: the customer has another version than the one the caller expected. Nothing was changed.
	ErrStale = errors.New("the customer has another version")
	// ErrRunning: another request with the same key has not ended yet. Ask again a little later.
	ErrRunning = errors.New("a request with this key is running")
	// ErrKeyReused: the key was used before, with another request. The caller needs a fresh key.
	ErrKeyReused = errors.New("the key was used for another request")
	// ErrUnavailable: the database did not answer, or refused for a reason that is not the request's. A change may or may
	// not have been committed when the connection was lost in its commit.
	ErrUnavailable = errors.New("the database is not available")
)

// Customer is one row of customers. Times are in UTC with microseconds.
type Customer struct {
	ID        string // UUIDv7 in its 36-character form
	Email     string
	Name      string
	Version   uint64 // 1 when created, raised by one with each change
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Change names the new values of a customer; nil leaves a value as it is.
type Change struct {
	Email *string
	Name  *string
}

// Store reads and changes customers. It is safe for concurrent use.
type Store struct {
	db *sql.DB
}

// New returns a store over a pool, best one that Open made. The caller closes the pool.
func New(db *sql.DB) *Store { return &Store{db: db} }

// Waits that the server itself ends, so that a request which was given up leaves neither locks nor a connection behind.
const (
	rowLockSeconds   = "3"
	tableLockSeconds = "5"
)

// answerTimeout is how long the database may take to answer, unless the DSN says otherwise. A commit is waited for so long, however
// late in a request it comes: a database whose disk is full answers none, and the client is to hear of it. Semi-synchronous
// replication answers within 10 seconds by default, whatever its replicas do.
const answerTimeout = 12 * time.Second

// maxConns bounds the connections of one process, far below the server's default of 151. A session that was given up stays with the
// server for as long as that is at its commit.
const maxConns = 32

// Open returns a pool for New; nothing is dialled yet. A DSN that cannot be read is an error that wraps
// ops.ErrBadConfig.
func Open(dsn ops.Secret, files ops.TLSFiles) (*sql.DB, error) {
	cfg, err := ops.ParseDSNWithin(answerTimeout, "MYSQL_DSN", dsn, files)
	if err != nil {
		return nil, err
	}
	if cfg.Params == nil {
		cfg.Params = make(map[string]string)
	}
	cfg.Params["innodb_lock_wait_timeout"] = rowLockSeconds
	cfg.Params["lock_wait_timeout"] = tableLockSeconds // the server's default is a year
	cfg.InterpolateParams = true                       // one round trip per statement, instead of two
	db, err := ops.OpenMySQL(cfg, maxConns)
	if err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	return db, nil
}
