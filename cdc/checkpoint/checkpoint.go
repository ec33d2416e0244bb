// Package checkpoint keeps the place and the lease of a relay in one row of the table relay_checkpoint, in the source's own
// database: so after a failover it can never be ahead of the server that survived. Its instances are in relay_member.
//
// What it promises: a save is durable when it returns; whatever an epoch that is not the newest asks for changes nothing and
// says so; of two instances that saw the same lease one gets it; a place that was garbled is found out by its checksum and
// never used; a row that was deleted is missed.
package checkpoint

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"
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
	ttl    time.Duration
	saves  atomic.Uint64 // number of the last one that was asked for
}

var _ relay.Store = (*Store)(nil)

// New returns the store of the relay of that name. holder says who we are: no two instances may have the same. ttl is how long
// a lease lasts.
func New(db *sql.DB, name, holder string, ttl time.Duration) *Store {
	return &Store{db: db, relay: name, holder: holder, ttl: ttl}
}

// Save implements relay.Checkpoints.
//
// Invariant: one writer, and no way back: the row changes only while it has the caller's epoch and name, and no later save of
// them. A save that was given up may still be on its way, and be applied after the one that took its place. A failover that loses
// the change of hands lets another instance have the same epoch.
func (s *Store) Save(ctx context.Context, epoch uint64, place relay.Position, eventID string) error {
	var text, sum any // NULL for the zero place
	if !place.IsZero() {
		var err error
		if text, sum, err = encode(place); err != nil {
			return err
		}
	}
	number := s.saves.Add(1)
	result, err := s.db.ExecContext(ctx, `UPDATE relay_checkpoint SET position = ?, crc32 = ?, event_id = NULLIF(?, ''),
		saved_at = UTC_TIMESTAMP(6), saves = ? WHERE relay = ? AND epoch = ? AND holder = ? AND saves < ?`,
		text, sum, shown(eventID), number, s.relay, epoch, s.holder, number)
	return s.missing(ctx, found(result, err, "save the checkpoint"))
}

// shown is as much of an event's id as the column holds: the one in quarantine can have any length.
func shown(eventID string) string {
	const most = 255
	if runes := []rune(eventID); len(runes) > most {
		return string(runes[:most])
	}
	return eventID
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
	Snapshot   bool   `json:"snapshot,omitempty"`

	FileMade    time.Time     `json:"file_made,omitzero"`
	CommittedAt time.Time     `json:"committed_at,omitzero"`
	Unsent      time.Time     `json:"unsent,omitzero"`
	Late        time.Duration `json:"late_ns,omitempty"`
}

func encode(p relay.Position) (text string, sum uint32, err error) {
	raw, err := json.Marshal(stored{
		Format: format, Flavor: p.Flavor, ServerUUID: p.ServerUUID, GTID: p.GTID, GTIDSet: p.GTIDSet,
		File: p.File, Pos: p.Pos, SkipRows: p.SkipRows, SkipGTID: p.SkipGTID, Snapshot: p.Snapshot,
		FileMade: p.FileMade.UTC(), CommittedAt: p.CommittedAt.UTC(), Unsent: p.Unsent.UTC(), Late: p.Late,
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
		File: p.File, Pos: p.Pos, SkipRows: p.SkipRows, SkipGTID: p.SkipGTID, Snapshot: p.Snapshot,
		FileMade: p.FileMade, CommittedAt: p.CommittedAt, Unsent: p.Unsent, Late: p.Late,
	}, nil
}
