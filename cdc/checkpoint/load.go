package checkpoint

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"tailbox/cdc/relay"
)

// Load reads the place that was saved last, the zero Position if none was, and takes nothing over. A place that was garbled,
// and a row that was deleted are a *relay.Halt.
func (s *Store) Load(ctx context.Context) (place relay.Position, err error) {
	var text sql.NullString
	var sum sql.NullInt64
	err = s.db.QueryRowContext(ctx, "SELECT position, crc32 FROM relay_checkpoint WHERE relay = ?", s.relay).Scan(&text, &sum)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		known, err := s.known(ctx)
		if known {
			err = s.gone()
		}
		return place, err
	case err != nil:
		return place, fmt.Errorf("load the checkpoint: %w", err)
	case !text.Valid:
		return place, nil
	}
	if place, err = decode(text.String, uint32(sum.Int64)); err != nil {
		return place, relay.Haltf(relay.CheckpointBad, "the row %q of relay_checkpoint: %w", s.relay, err)
	}
	return place, nil
}
