package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"tailbox/deploy/ops"
)

// Answer is what the first request with a key was told, and every repeat is told again.
type Answer struct {
	Status   int
	Location string
	Body     []byte
}

// Once is a request that carries an Idempotency-Key.
type Once struct {
	// Key is printable ASCII, 1 to 255 characters, as the client sent it.
	Key string
	// RequestHash tells a repeat from another request that came with the same key.
	RequestHash [sha256.Size]byte
	// Answer is remembered if this request turns out to be the first.
	Answer Answer
}

// CreateOnce is Create for a request with a key. The first such request creates the customer and gets its own answer
// back; each later one changes nothing and gets the answer of the first, also when the first was answered by a process
// that died before the client heard of it. ErrRunning while the first has not ended, ErrKeyReused when the requests
// differ.
func (s *Store) CreateOnce(ctx context.Context, c Customer, headers map[string]string, once Once) (Answer, error) {
	answer, err := s.createOnce(ctx, c, headers, once)
	return answer, wrap("create customer once", err)
}

func (s *Store) createOnce(ctx context.Context, c Customer, headers map[string]string, once Once) (Answer, error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = conn.Close() }()

	// The server frees the lock when this connection ends, whatever ends it, but only after it rolled back.
	first, err := take(ctx, conn, once.Key)
	defer release(ctx, conn)
	if err != nil {
		return Answer{}, err
	}
	if !first {
		answer, err := recall(ctx, conn, once)
		if errors.Is(err, sql.ErrNoRows) {
			return Answer{}, ErrRunning
		}
		return answer, err
	}

	var answer Answer
	err = transact(ctx, conn, func(ctx context.Context, tx *sql.Tx) error {
		if answer, err = recall(ctx, tx, once); !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		answer = once.Answer
		if err := insert(ctx, tx, c, headers); err != nil {
			return err
		}
		return remember(ctx, tx, once)
	})
	return answer, err
}

// take asks for the key's named lock without waiting. Such names are shared by the whole server and have at most 64
// characters, hence the database's name and the hash.
func take(ctx context.Context, conn *sql.Conn, key string) (bool, error) {
	var got sql.NullInt64
	err := conn.QueryRowContext(ctx,
		"SELECT GET_LOCK(CONCAT('tailbox_key_', LEFT(SHA2(CONCAT(DATABASE(), CHAR(0), ?), 256), 40)), 0)", key).Scan(&got)
	if err != nil {
		return false, fmt.Errorf("take the key's lock: %w", err)
	}
	return got.Int64 == 1, nil
}

const releaseTimeout = 2 * time.Second

// release frees the lock, also when the request was given up. A connection that might still hold it is thrown away
// instead of going back to the pool, where it would keep the key "running" for ever.
func release(ctx context.Context, conn *sql.Conn) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if _, err := conn.ExecContext(bounded, "DO RELEASE_ALL_LOCKS()"); err != nil {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // tells the pool to close it
	}
}

// recall returns the answer that was given before under this key, sql.ErrNoRows when there is none.
func recall(ctx context.Context, on interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}, once Once) (Answer, error) {
	var answer Answer
	var hash []byte
	err := on.QueryRowContext(ctx, "SELECT request_hash, status, location, body FROM idempotency_keys WHERE idempotency_key = ?", once.Key).
		Scan(&hash, &answer.Status, &answer.Location, &answer.Body)
	if err != nil {
		return Answer{}, err
	}
	if !bytes.Equal(hash, once.RequestHash[:]) {
		return Answer{}, ErrKeyReused
	}
	return answer, nil
}

// remember writes the answer in the transaction of its effect.
//
// Invariant: one key, one customer. The named lock only answers a concurrent repeat at once; what holds when it is lost,
// as in a failover, is this table's primary key.
func remember(ctx context.Context, tx *sql.Tx, once Once) error {
	_, err := tx.ExecContext(ctx,
		"INSERT INTO idempotency_keys (idempotency_key, request_hash, status, location, body, created_at) VALUES (?, UNHEX(?), ?, ?, ?, ?)",
		once.Key, hex.EncodeToString(once.RequestHash[:]), // a statement stays readable text, for the server's process list and logs
		once.Answer.Status, once.Answer.Location, once.Answer.Body, time.Now().UTC())
	if ops.MySQLCode(err) == codeDuplicateEntry {
		return errRaced
	}
	return err
}

const pruneBatch = 1000

// Prune forgets the keys that were used before the time given, in batches that lock little, and tells how many.
func (s *Store) Prune(ctx context.Context, before time.Time) (int64, error) {
	var pruned int64
	for {
		result, err := s.db.ExecContext(ctx,
			"DELETE FROM idempotency_keys WHERE created_at < ? ORDER BY created_at LIMIT ?", before.UTC(), pruneBatch)
		if err != nil {
			return pruned, wrap("prune keys", err)
		}
		n, err := result.RowsAffected()
		if pruned += n; err != nil || n < pruneBatch {
			return pruned, wrap("prune keys", err)
		}
	}
}
