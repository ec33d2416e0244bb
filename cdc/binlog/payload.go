package binlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"tailbox/cdc/outbox"
)

// Payload reads the payload of an event from the outbox table; found is false when its row is gone.
func (r *Reader) Payload(ctx context.Context, eventID string) (payload []byte, found bool, err error) {
	s := &server{}
	if err := s.readTable(ctx, r.cfg.DB, r.cfg.Outbox); err != nil {
		return nil, false, err
	}
	mapping, err := outbox.NewMapping(s.columns)
	if err != nil {
		return nil, false, err
	}
	id, _ := mapping.Column("id")
	column, _ := mapping.Column("payload")
	err = r.cfg.DB.QueryRowContext(ctx, fmt.Sprintf("SELECT `%s` FROM %s WHERE `%s` = ?", column, r.cfg.Outbox.Quoted(), id), eventID).Scan(&payload)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("read the outbox table: %w", err)
	}
	return payload, true, nil
}
