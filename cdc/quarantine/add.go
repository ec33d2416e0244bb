package quarantine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/go-sql-driver/mysql"

	"tailbox/cdc/relay"
)

// Add implements relay.Quarantine: it keeps an event that cannot be a message, durably when it returns, for the leader alone. Adding an event that
// is there already keeps its id and its attempts and renews the rest.
func (s *Store) Add(ctx context.Context, epoch uint64, row relay.Row, cause error) error {
	payload := row.Event.Payload
	if len(payload) > surelyFits {
		var most int
		if err := s.db.QueryRowContext(ctx, "SELECT @@max_allowed_packet").Scan(&most); err != nil {
			return fmt.Errorf("ask how much the server takes: %w", err)
		}
		if len(payload) > most-surelyFits { // it would cut the connection, which looks like an outage
			payload = nil
		}
	}
	err := s.insert(ctx, epoch, row, cause, payload)
	if payload != nil && tooLarge(err) {
		err = s.insert(ctx, epoch, row, cause, nil)
	}
	if err != nil {
		return fmt.Errorf("quarantine an event: %w", err)
	}
	return nil
}

// surelyFits is less than any server takes, payload and all that is around it.
const surelyFits = 256 << 10

// insert goes by a prepared statement: a payload that is written into the statement's text can grow to twice its size.
func (s *Store) insert(ctx context.Context, epoch uint64, row relay.Row, cause error, payload []byte) error {
	e := row.Event
	headers, err := json.Marshal(e.Headers)
	if err != nil {
		return fmt.Errorf("encode the headers: %w", err)
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing
	statement, err := tx.PrepareContext(ctx, `INSERT INTO relay_quarantine (relay, event_key, event_id, aggregate_type, aggregate_id,
		aggregate_version, type, payload, payload_bytes, headers, created_at, source_position, committed_at, reason, quarantined_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6))
		ON DUPLICATE KEY UPDATE aggregate_type = VALUES(aggregate_type), aggregate_id = VALUES(aggregate_id),
		aggregate_version = VALUES(aggregate_version), type = VALUES(type), payload = VALUES(payload),
		payload_bytes = VALUES(payload_bytes), headers = VALUES(headers), created_at = VALUES(created_at), source_position = VALUES(source_position), committed_at = VALUES(committed_at),
		reason = VALUES(reason)`)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	defer func() { _ = statement.Close() }() // the connection lives on
	if _, err := statement.ExecContext(ctx, s.relay, key(e.ID), []byte(e.ID), []byte(e.AggregateType), []byte(e.AggregateID),
		e.AggregateVersion, []byte(e.Type), payload, len(e.Payload), headers, e.CreatedAt.UTC(), row.Position, row.CommittedAt.UTC(), reason(cause)); err != nil {
		return err
	}
	if err := s.fence(ctx, tx, epoch); err != nil { // last, because no lease can be renewed until the end of the transaction
		return err
	}
	return tx.Commit()
}

// tooLarge tells what only a smaller statement can mend.
func tooLarge(err error) bool {
	if errors.Is(err, mysql.ErrPktTooLarge) {
		return true
	}
	const packetTooLarge, tooBigForTheLog = 1153, 1118
	refused, ok := errors.AsType[*mysql.MySQLError](err)
	return ok && (refused.Number == packetTooLarge || refused.Number == tooBigForTheLog)
}

// reason is the end of a text that is too long: causes come last, and an id in front of them can be the very thing that is
// too long.
func reason(cause error) string {
	const most = 1000
	text := cause.Error()
	return strings.ToValidUTF8(text[max(0, len(text)-most):], "")
}
