// Package quarantine keeps the events that cannot be messages (a type or a header that AMQP has no room for, a payload over
// MAX_MESSAGE_BYTES) in the table relay_quarantine, so that one of them costs only itself and the rest goes on.
//
// What it promises: an event is kept durably when Add returns, once, however often it is added; the relay lets its checkpoint
// pass the event only then. It leaves the table when it was confirmed by the broker and routed to a queue after all (Retry),
// or when a person gave it up (Drop), each recorded in the audit in the same transaction and fenced by the leader's epoch.
// A crash in the middle of a retry leaves the event where it is: it may then be in a queue, and is sent again by the next.
//
// The order of a retried event: it comes after everything that was published while it was in quarantine, later events of its
// own aggregate among them. A consumer that checks versions, as the worker does, holds those back until it is there; others
// must be able to take it late.
package quarantine

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"sync"
	"time"

	"tailbox/cdc/audit"
	"tailbox/cdc/relay"
)

// Table is the name of the table, in the database of MYSQL_DSN.
const Table = "relay_quarantine"

// Errors of Get, Retry and Drop.
var (
	// ErrNotFound: no event of this relay's quarantine has that id; it may have been retried or dropped by now.
	ErrNotFound = errors.New("the quarantine has no event of this id")
	// ErrNotLeading: this process does not lead, or ceased to while it worked. Nothing was changed in the table; a retried
	// event may have been published. The operator asks the leader.
	ErrNotLeading = errors.New("this relay does not lead")
	// ErrPayloadGone: the payload was too large to be kept twice, and its outbox row is gone. Only Drop is left.
	ErrPayloadGone = errors.New("the payload was too large for the quarantine, and the outbox row that had it is gone")
)

// Config of a Store. All fields are needed.
type Config struct {
	// Publisher opens the sessions that retries publish through.
	Publisher relay.Publisher
	// Leading tells whether this process leads, and in which epoch.
	Leading func() (epoch uint64, leading bool)
	// Payload reads the payload of an event from the outbox table; found is false when the row is gone.
	Payload func(ctx context.Context, eventID string) (payload []byte, found bool, err error)
	// Audit records retries and drops.
	Audit *audit.Log
}

// Store is the quarantine of one relay. It is safe for concurrent use.
type Store struct {
	db    *sql.DB
	relay string
	cfg   Config

	retrying sync.Mutex // so that one event is not published twice by two calls at a time
}

var _ relay.Quarantine = (*Store)(nil)

// New returns the quarantine of the relay of that name.
func New(db *sql.DB, relay string, cfg Config) *Store { return &Store{db: db, relay: relay, cfg: cfg} }

// Entry is what List and Get tell of an event: what a person needs to judge it, and neither its payload nor its headers,
// which can be private.
type Entry struct {
	ID               uint64
	EventID          string // as all texts here: cut to shownBytes
	AggregateType    string
	AggregateID      string
	AggregateVersion uint64
	Type             string
	PayloadBytes     int
	HeadersBytes     int // of the JSON object
	SourcePosition   string
	CommittedAt      time.Time
	Reason           string
	Attempts         int // retries so far
	QuarantinedAt    time.Time
}

// shownBytes is the most of a text that a list shows: one that is poison because of its length can have megabytes.
const shownBytes = 255

// key identifies an event whose id can be too long for an index.
func key(eventID string) []byte {
	sum := sha256.Sum256([]byte(eventID))
	return sum[:]
}
