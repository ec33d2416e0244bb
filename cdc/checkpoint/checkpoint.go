// Package checkpoint keeps the place of a relay in one row of the table relay_checkpoint, in the source's own database: so
// after a failover it can never be ahead of the server that survived.
//
// What it promises: a save is durable when it returns; a save of an epoch that is not the newest changes nothing and says
// so; a place that was garbled is found out by its checksum and never used.
package checkpoint

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"tailbox/cdc/relay"
)

// Table is the name of the table, in the database of MYSQL_DSN.
const Table = "relay_checkpoint"

// Store is relay.Checkpoints on a MySQL table. It is safe for concurrent use. The pool must count found rows, not changed
// ones (clientFoundRows), or a repeated save would look like a lost epoch.
type Store struct {
	db     *sql.DB
	relay  string
	holder string
}

var _ relay.Checkpoints = (*Store)(nil)

// New returns the store of the relay of that name. holder says who we are, for people.
func New(db *sql.DB, name, holder string) *Store {
	return &Store{db: db, relay: name, holder: holder}
}

// Acquire implements relay.Checkpoints. The newest caller wins: whoever held the epoch before finds out at its next save.
func (s *Store) Acquire(ctx context.Context) (epoch uint64, from relay.Position, err error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, from, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing

	_, err = tx.ExecContext(ctx, `INSERT INTO relay_checkpoint (relay, holder, epoch) VALUES (?, ?, 1)
		ON DUPLICATE KEY UPDATE epoch = epoch + 1, holder = VALUES(holder)`, s.relay, s.holder)
	if err != nil {
		return 0, from, fmt.Errorf("take the checkpoint over: %w", err)
	}
	var text sql.NullString
	var sum sql.NullInt64
	err = tx.QueryRowContext(ctx, "SELECT epoch, position, crc32 FROM relay_checkpoint WHERE relay = ?", s.relay).Scan(&epoch, &text, &sum)
	if err != nil {
		return 0, from, fmt.Errorf("load the checkpoint: %w", err)
	}
	if text.Valid {
		if from, err = decode(text.String, uint32(sum.Int64)); err != nil {
			return 0, from, &relay.Halt{Reason: relay.CheckpointBad, Err: fmt.Errorf("the row %q of relay_checkpoint: %w; "+
				"set its position to NULL to start anew with START=snapshot, which sends what the outbox still holds", s.relay, err)}
		}
	}
	if err := tx.Commit(); err != nil {
		return 0, from, fmt.Errorf("commit: %w", err)
	}
	return epoch, from, nil
}

// Save implements relay.Checkpoints.
//
// Invariant: one writer; the row changes only while it has the caller's epoch.
func (s *Store) Save(ctx context.Context, epoch uint64, place relay.Position, eventID string) error {
	text, sum, err := encode(place)
	if err != nil {
		return err
	}
	result, err := s.db.ExecContext(ctx, `UPDATE relay_checkpoint SET position = ?, crc32 = ?, event_id = NULLIF(?, ''),
		saved_at = UTC_TIMESTAMP(6) WHERE relay = ? AND epoch = ?`, text, sum, eventID, s.relay, epoch)
	if err != nil {
		return fmt.Errorf("save the checkpoint: %w", err)
	}
	found, err := result.RowsAffected()
	if err != nil {
		return fmt.Errorf("save the checkpoint: %w", err)
	}
	if found == 0 {
		return relay.ErrFenced
	}
	return nil
}

// Fence commits a change of the row, so that all that was in the binlog before it is visible when it returns.
func (s *Store) Fence(ctx context.Context) error {
	_, err := s.db.ExecContext(ctx, "UPDATE relay_checkpoint SET saved_at = UTC_TIMESTAMP(6) WHERE relay = ?", s.relay)
	if err != nil {
		return fmt.Errorf("touch the checkpoint: %w", err)
	}
	return nil
}

// Holder is who we are.
func (s *Store) Holder() string { return s.holder }

// format is the version of the stored form. A release reads its own and the one before; a field that may be missing, and
// that an older release may pass over, needs no new one.
const format = 1

// stored is the form of a place in the column position.
type stored struct {
	Format     int    `json:"format"`
	Flavor     string `json:"flavor"`
	ServerUUID string `json:"server_uuid"`
	GTID       bool   `json:"gtid"`
	GTIDSet    string `json:"gtid_set"`
	File       string `json:"file"`
	Pos        uint64 `json:"pos"`
	SkipRows   uint64 `json:"skip_rows"`
	SkipGTID   string `json:"skip_gtid,omitempty"`

	CommittedAt time.Time     `json:"committed_at,omitzero"`
	Late        time.Duration `json:"late_ns,omitempty"`
}

func encode(p relay.Position) (text string, sum uint32, err error) {
	raw, err := json.Marshal(stored{
		Format: format, Flavor: p.Flavor, ServerUUID: p.ServerUUID, GTID: p.GTID, GTIDSet: p.GTIDSet,
		File: p.File, Pos: p.Pos, SkipRows: p.SkipRows, SkipGTID: p.SkipGTID, CommittedAt: p.CommittedAt.UTC(), Late: p.Late,
	})
	if err != nil {
		return "", 0, fmt.Errorf("encode the position: %w", err)
	}
	return string(raw), crc32.ChecksumIEEE(raw), nil
}

func decode(text string, sum uint32) (relay.Position, error) {
	if crc32.ChecksumIEEE([]byte(text)) != sum {
		return relay.Position{}, errors.New("its checksum does not fit its position")
	}
	var p stored
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return relay.Position{}, errors.New("its position is not what this program writes")
	}
	if p.Format != format {
		return relay.Position{}, fmt.Errorf("its position has format %d, this release reads format %d", p.Format, format)
	}
	return relay.Position{
		Flavor: p.Flavor, ServerUUID: p.ServerUUID, GTID: p.GTID, GTIDSet: p.GTIDSet,
		File: p.File, Pos: p.Pos, SkipRows: p.SkipRows, SkipGTID: p.SkipGTID, CommittedAt: p.CommittedAt, Late: p.Late,
	}, nil
}
