package relay

import (
	"time"

	"tailbox/schema"
)

// Row is one committed insert into the outbox table, in commit order.
type Row struct {
	// Seq numbers the rows from 1, without a gap, from the position that Source.Begin was given.
	Seq   uint64
	Event schema.Event
	// Position is where the row's transaction is in the binlog: its GTID, or file:pos of its first event.
	Position string
	// CommittedAt is when the transaction was committed, by the database's clock; to the microsecond where the server
	// says so, else to the second.
	CommittedAt time.Time
	// Repaired says that the row comes from the outbox table, because the binlog has a gap.
	Repaired bool
	// ReadAt is when it was read, by our clock; known only with a Tracer.
	ReadAt time.Time
	// Parked says that the row reached no queue and goes to the unrouted queue now.
	Parked bool
}

// size is what a row costs in memory, about.
func (r *Row) size() int { return len(r.Event.Payload) + 512 }

// Position is a place between two rows of the binlog. It is opaque here: only the source and the checkpoint look inside.
type Position struct {
	Flavor     string // mysql or mariadb
	ServerUUID string // of the server that File and Pos belong to
	GTID       bool   // the server has GTIDs, so GTIDSet says where this is, else File and Pos
	GTIDSet    string // every transaction up to here; empty at the beginning of all
	File       string // binlog file at the end of the last whole transaction
	Pos        uint64 // offset of that end
	// FileMade is when the server began File, as its first event says; zero when that was not read. It tells a file from
	// another one of the same name.
	FileMade time.Time
	// SkipRows is how many outbox rows of the next transaction (of transaction SkipGTID where there are GTIDs) are
	// behind this place already.
	SkipRows uint64
	SkipGTID string
	// CommittedAt is when the last transaction before here was committed, as the server says; zero when that is not known.
	// What is behind here was committed later, but for clocks that disagree.
	CommittedAt time.Time
	// Unsent is set by START=latest: rows created before it were passed over, and are not the relay's to delete.
	Unsent time.Time
	// Late is the longest time from the CreatedAt of an event to its commit that the relay has seen.
	Late time.Duration
	// Snapshot says to begin with all that the table holds, whatever START says; nothing but Late is set then.
	Snapshot bool
}

// IsZero tells the position that was never saved.
func (p Position) IsZero() bool { return p == Position{} }
