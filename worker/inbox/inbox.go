// Package inbox owns the table `inbox`: which messages each consumer has applied. Its caller owns the transaction and
// makes the message's effect in the same one.
//
// What holds after a crash: a message is in the inbox exactly when its effect is in the database, because both were
// committed by one transaction. A message that is delivered again finds its row and is not applied a second time.
package inbox

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"tailbox/deploy/ops"
)

// MaxConsumer is the size of a consumer's name in characters, as the table has it.
const MaxConsumer = 64

// ErrIDReused is returned by Record when the message id was applied before with another payload: the id does not identify
// the event, so that neither applying nor skipping the message would be safe. The operator finds out who gave one id to
// two events (a restored or truncated outbox is the usual cause) and publishes the event again under a fresh id.
var ErrIDReused = errors.New("the message id was applied before with another payload")

// duplicateKey is MySQL's ER_DUP_ENTRY. InnoDB takes back only the statement, the transaction goes on.
const duplicateKey = 1062

// Hash is what the inbox remembers of a payload: its SHA-256.
func Hash(payload []byte) [sha256.Size]byte { return sha256.Sum256(payload) }

// Entry is what RecordNew notes of one message.
type Entry struct {
	MessageID string
	Hash      [sha256.Size]byte
}

// RecordNew notes in the caller's transaction, with one statement, that the consumer applies these messages. It tells false,
// and notes none of them, when any was applied before or is among them twice; Record then tells which.
func RecordNew(ctx context.Context, tx *sql.Tx, consumer string, entries []Entry) (recorded bool, err error) {
	rows := strings.TrimSuffix(strings.Repeat("(?, ?, ?, UTC_TIMESTAMP(6)),", len(entries)), ",")
	args := make([]any, 0, 3*len(entries))
	for _, e := range entries {
		args = append(args, consumer, e.MessageID, e.Hash[:])
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO inbox (consumer, message_id, payload_hash, processed_at) VALUES "+rows, args...)
	switch {
	case err == nil:
		return true, nil
	case ops.MySQLCode(err) == duplicateKey:
		return false, nil
	}
	return false, fmt.Errorf("insert into inbox: %w", err)
}

// Record notes in the caller's transaction that the consumer applies the message, or tells that it did so before.
//
// The row is written first and looked up only when its key is taken. Two transactions with the same message therefore
// never both go on, at any isolation level: the second waits for the first to end.
func Record(ctx context.Context, tx *sql.Tx, consumer, messageID string, hash [sha256.Size]byte) (seen bool, err error) {
	_, err = tx.ExecContext(ctx,
		"INSERT INTO inbox (consumer, message_id, payload_hash, processed_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))",
		consumer, messageID, hash[:])
	switch {
	case err == nil:
		return false, nil
	case ops.MySQLCode(err) != duplicateKey:
		return false, fmt.Errorf("insert into inbox: %w", err)
	}

	// A locking read sees the newest committed row, where a snapshot of REPEATABLE READ may not have it yet.
	var before []byte
	err = tx.QueryRowContext(ctx,
		"SELECT payload_hash FROM inbox WHERE consumer = ? AND message_id = ? LOCK IN SHARE MODE",
		consumer, messageID).Scan(&before)
	if err != nil {
		return false, fmt.Errorf("read inbox: %w", err)
	}
	if [sha256.Size]byte(before) != hash {
		return true, ErrIDReused
	}
	return true, nil
}

// Forget takes back, in the caller's transaction, what Record noted in the same one.
func Forget(ctx context.Context, tx *sql.Tx, consumer, messageID string) error {
	if _, err := tx.ExecContext(ctx, "DELETE FROM inbox WHERE consumer = ? AND message_id = ?", consumer, messageID); err != nil {
		return fmt.Errorf("delete from inbox: %w", err)
	}
	return nil
}
