package quarantine

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"tailbox/cdc/relay"
	"tailbox/schema"
)

// shown are the columns of an Entry; a %d is the most bytes of a text.
const shown = `id, LEFT(event_id, %[1]d), LEFT(aggregate_type, %[1]d), LEFT(aggregate_id, %[1]d), aggregate_version, LEFT(type, %[1]d),
	payload_bytes, COALESCE(LENGTH(headers), 0), source_position, committed_at, reason, attempts, quarantined_at`

// List gives the events with ids above after, oldest first, at most limit of them, and how many the quarantine has.
func (s *Store) List(ctx context.Context, limit int, after uint64) (entries []Entry, total int, err error) {
	if err := s.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM relay_quarantine WHERE relay = ?", s.relay).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count the quarantine: %w", err)
	}
	rows, err := s.db.QueryContext(ctx, "SELECT "+fmt.Sprintf(shown, shownBytes)+
		" FROM relay_quarantine WHERE relay = ? AND id > ? ORDER BY id LIMIT ?", s.relay, after, limit)
	if err != nil {
		return nil, 0, fmt.Errorf("list the quarantine: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		entry, err := scan(rows.Scan)
		if err != nil {
			return nil, 0, fmt.Errorf("list the quarantine: %w", err)
		}
		entries = append(entries, entry)
	}
	if err := rows.Err(); err != nil {
		return nil, 0, fmt.Errorf("list the quarantine: %w", err)
	}
	return entries, total, nil
}

// Get gives one event, or ErrNotFound.
func (s *Store) Get(ctx context.Context, id uint64) (Entry, error) {
	return s.get(ctx, s.db, id)
}

// queryer is *sql.DB or *sql.Tx.
type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (s *Store) get(ctx context.Context, from queryer, id uint64) (Entry, error) {
	entry, err := scan(from.QueryRowContext(ctx, "SELECT "+fmt.Sprintf(shown, shownBytes)+
		" FROM relay_quarantine WHERE relay = ? AND id = ?", s.relay, id).Scan)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Entry{}, ErrNotFound
	case err != nil:
		return Entry{}, fmt.Errorf("read the quarantine: %w", err)
	}
	return entry, nil
}

func scan(into func(...any) error) (Entry, error) {
	var e Entry
	err := into(&e.ID, &e.EventID, &e.AggregateType, &e.AggregateID, &e.AggregateVersion, &e.Type, &e.PayloadBytes, &e.HeadersBytes,
		&e.SourcePosition, &e.CommittedAt, &e.Reason, &e.Attempts, &e.QuarantinedAt)
	for _, text := range []*string{&e.EventID, &e.AggregateType, &e.AggregateID, &e.Type} {
		*text = strings.ToValidUTF8(*text, "\uFFFD") // the cut may go through a character, and a binary id is none at all
	}
	return e, err
}

// row is the event as it was read from the binlog.
func (s *Store) row(ctx context.Context, id uint64) (relay.Row, error) {
	r := relay.Row{Seq: 1}
	e := &r.Event
	var payload, headers []byte
	err := s.db.QueryRowContext(ctx, `SELECT event_id, aggregate_type, aggregate_id, aggregate_version, type, payload, headers, created_at,
		source_position, committed_at FROM relay_quarantine WHERE relay = ? AND id = ?`, s.relay, id).
		Scan(&e.ID, &e.AggregateType, &e.AggregateID, &e.AggregateVersion, &e.Type, &payload, &headers, &e.CreatedAt, &r.Position, &r.CommittedAt)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return r, ErrNotFound
	case err != nil:
		return r, fmt.Errorf("read the quarantine: %w", err)
	}
	if e.Headers, err = decodeHeaders(headers); err != nil {
		return r, err
	}
	if payload == nil {
		return r, s.fetchPayload(ctx, e)
	}
	e.Payload = payload
	return r, nil
}

func decodeHeaders(text []byte) (headers map[string]string, err error) {
	if len(text) == 0 {
		return nil, nil
	}
	if json.Unmarshal(text, &headers) != nil {
		return nil, errors.New("read the quarantine: the headers are not what this program writes")
	}
	return headers, nil
}

// fetchPayload reads a payload that was too large to be written twice.
func (s *Store) fetchPayload(ctx context.Context, e *schema.Event) error {
	payload, found, err := s.cfg.Payload(ctx, e.ID)
	switch {
	case err != nil:
		return fmt.Errorf("read the payload from the outbox: %w", err)
	case !found:
		return ErrPayloadGone
	}
	e.Payload = payload
	return nil
}
