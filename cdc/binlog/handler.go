package binlog

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/replication"

	"tailbox/cdc/relay"
)

// handler takes one stream's events, in order, on go-mysql's goroutine. It follows where transactions begin and end,
// delivers the rows that were inserted into the outbox, and keeps the ledger. Blocking in it holds the server back.
type handler struct {
	ctx     context.Context
	reader  *Reader
	server  *server
	deliver func(relay.Row) error
	refused error // what deliver said when it ended the stream

	file string
	pos  uint64 // end of the last event in file, 64 bits: a file can be longer than the header's 32
	txn  transaction

	skip    uint64 // rows still to skip, of transaction skipTxn or, where there are no GTIDs, of the first
	skipTxn string
	outbox  []byte
	schema  []byte
}

// transaction is the group of events that is being read.
type transaction struct {
	open       bool
	gtid       gtid
	name       string // as messages carry it
	at         time.Time
	exact      bool      // at is to the microsecond
	placed     time.Time // at, for the place behind it: see placedAt
	begun      bool      // BEGIN was seen, or stands for itself: statements in it do not end it
	standalone bool      // MariaDB: one event is the whole group
	xa         bool
	foreign    bool // touched a table that is not the relay's own
	touched    bool
	rows       int // of the outbox, delivered or skipped
}

// placedAt is when the transaction was committed, for the place behind it, from which a repair works out what may be missing:
// where several times are told it is the earliest. A replica tells its own time and that of the server where the commit was
// made first; a session of MariaDB can tell any time (SET timestamp), but what is read by now was not committed later.
func (t *transaction) placedAt() time.Time {
	if t.placed.IsZero() {
		return t.placed
	}
	return earliest(t.placed, time.Now()).UTC().Truncate(time.Microsecond)
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func newHandler(ctx context.Context, r *Reader, s *server, from relay.Position, deliver func(relay.Row) error) *handler {
	return &handler{
		ctx: ctx, reader: r, server: s, deliver: deliver,
		file: from.File, pos: from.Pos, skip: from.SkipRows, skipTxn: from.SkipGTID,
		schema: []byte(r.cfg.Outbox.Schema), outbox: []byte(r.cfg.Outbox.Name),
	}
}

// decodeRows decodes the image of rows only where it is wanted; of all others just the header is read. The header must be
// read in any case: it ends the table maps of a statement.
func (h *handler) decodeRows(e *replication.RowsEvent, data []byte) error {
	pos, err := e.DecodeHeader(data)
	if err != nil || e.Type() != replication.EnumRowsEventTypeInsert || !h.isOutbox(e.Table) {
		return err
	}
	return e.DecodeData(pos, data)
}

func (h *handler) isOutbox(t *replication.TableMapEvent) bool {
	return h.same(t.Table, h.outbox) && h.same(t.Schema, h.schema)
}

func (h *handler) isOwn(t *replication.TableMapEvent) bool {
	return slices.ContainsFunc(h.reader.cfg.Own, func(own Table) bool {
		return h.same(t.Table, []byte(own.Name)) && h.same(t.Schema, []byte(own.Schema))
	})
}

func (h *handler) same(a, b []byte) bool {
	return bytes.Equal(a, b) || h.server.foldCase && bytes.EqualFold(a, b)
}

// HandleEvent implements replication.EventHandler.
func (h *handler) HandleEvent(e *replication.BinlogEvent) error {
	if err := h.ctx.Err(); err != nil {
		return err
	}
	h.reader.hears.Store(true)
	h.advance(e.Header)
	if payload, ok := e.Event.(*replication.TransactionPayloadEvent); ok {
		for _, inner := range payload.Events {
			if err := h.handle(inner); err != nil {
				return err
			}
		}
		return nil
	}
	return h.handle(e)
}

// advance follows the end of the last event. Artificial events have no place in the file.
func (h *handler) advance(header *replication.EventHeader) {
	if header.LogPos == 0 || header.Flags&replication.LOG_EVENT_ARTIFICIAL_F != 0 {
		return
	}
	const wrap = 1 << 32
	end := h.pos&^(wrap-1) | uint64(header.LogPos)
	if end+wrap/2 < h.pos {
		end += wrap
	}
	h.pos = max(h.pos, end)
}

func (h *handler) handle(e *replication.BinlogEvent) error {
	switch event := e.Event.(type) {
	case *replication.GTIDEvent:
		return h.beginMySQL(e.Header, event)
	case *replication.GtidTaggedLogEvent:
		return h.beginMySQL(e.Header, &event.GTIDEvent)
	case *replication.MariadbGTIDEvent:
		h.beginMariaDB(e.Header, event)
	case *replication.QueryEvent:
		return h.query(event)
	case *replication.TableMapEvent:
		h.txn.touched = true
		h.txn.foreign = h.txn.foreign || !h.isOwn(event)
	case *replication.RowsEvent:
		return h.rows(event)
	case *replication.XIDEvent:
		h.end()
	case *replication.RotateEvent:
		return h.rotate(e.Header, event)
	case *replication.ExecuteLoadQueryEvent:
		return relay.Haltf(relay.NotRowLogged, "LOAD DATA was logged as a statement in transaction %s, into which table the event does "+
			"not say: a session set binlog_format to something else than ROW; take the right to do so from its user", h.txn.name)
	case *replication.GenericEvent:
		return h.generic(e.Header)
	}
	return nil
}

func (h *handler) beginMySQL(header *replication.EventHeader, e *replication.GTIDEvent) error {
	var g gtid
	if header.EventType != replication.ANONYMOUS_GTID_EVENT {
		var err error
		if g, err = gtidOfMySQL(e); err != nil {
			return err
		}
	} else if h.server.gtid {
		return relay.Haltf(relay.SourceChanged, "a transaction without a GTID stands in the binlog although gtid_mode is ON: "+
			"let the relay pass it with gtid_mode=ON_PERMISSIVE first")
	}
	at, exact := time.Unix(int64(header.Timestamp), 0), false
	if e.ImmediateCommitTimestamp > 0 {
		at, exact = e.ImmediateCommitTime(), true
	}
	placed := at
	if e.OriginalCommitTimestamp > 0 {
		placed = earliest(at, e.OriginalCommitTime())
	}
	h.begin(header, transaction{gtid: g, at: at, exact: exact, placed: placed})
	return nil
}

// Flags of a MariaDB GTID event that go-mysql does not name.
const mariaPreparedXA = 64

func (h *handler) beginMariaDB(header *replication.EventHeader, e *replication.MariadbGTIDEvent) {
	h.begin(header, transaction{
		gtid:       gtid{maria: e.GTID},
		at:         time.Unix(int64(header.Timestamp), 0),
		placed:     time.Unix(int64(header.Timestamp), 0),
		begun:      !e.IsStandalone(),
		standalone: e.IsStandalone(),
		xa:         e.Flags&mariaPreparedXA != 0,
	})
}

// begin opens a transaction. One that is still open has ended without saying so: only a group of its own can follow.
func (h *handler) begin(header *replication.EventHeader, txn transaction) {
	if h.txn.open {
		h.endAt(h.pos - uint64(header.EventSize))
	}
	txn.open = true
	txn.name = txn.gtid.String()
	if txn.name == "" {
		txn.name = fmt.Sprintf("%s:%d", h.file, h.pos-uint64(header.EventSize))
	}
	h.txn = txn
	h.reader.ledger.transaction(txn.gtid.String())
}

// query follows BEGIN, COMMIT and DDL, and refuses changes of the outbox that are logged as statements.
func (h *handler) query(e *replication.QueryEvent) error {
	statement := strings.TrimSpace(stripComments(string(e.Query[:min(len(e.Query), 4096)])))
	word := strings.ToUpper(firstWords(statement))
	switch {
	case word == "BEGIN":
		h.txn.open, h.txn.begun = true, true
	case word == "COMMIT":
		h.end()
	case word == "ROLLBACK":
		return h.rolledBack()
	case strings.HasPrefix(word, "XA START"), strings.HasPrefix(word, "XA BEGIN"):
		h.txn.begun, h.txn.xa = true, true
	case strings.HasPrefix(word, "XA END"), strings.HasPrefix(word, "SAVEPOINT"), strings.HasPrefix(word, "ROLLBACK TO"):
	case strings.HasPrefix(word, "XA "):
		h.txn.foreign = true
		h.end()
	case h.writesOutbox(word, statement):
		return relay.Haltf(relay.NotRowLogged, "a change of %s was logged as a statement in transaction %s: a session set "+
			"binlog_format to something else than ROW; take the right to do so from its user", h.reader.cfg.Outbox, h.txn.name)
	case strings.HasSuffix(strings.ToUpper(strings.TrimSpace(string(e.Query[max(0, len(e.Query)-64):]))), "START TRANSACTION"):
		h.txn.begun, h.txn.foreign = true, true // CREATE TABLE ... SELECT: its rows follow in the same group
	default:
		h.txn.foreign = true
		if !h.txn.begun || h.txn.standalone {
			h.end() // DDL is a group of its own
		}
	}
	return nil
}

// writesOutbox tells a statement that may have put rows into the outbox without a row event.
func (h *handler) writesOutbox(word, statement string) bool {
	verb, _, _ := strings.Cut(word, " ")
	switch verb {
	case "INSERT", "REPLACE", "LOAD", "CALL", "WITH":
		return strings.Contains(strings.ToLower(statement), strings.ToLower(h.reader.cfg.Outbox.Name))
	}
	return false
}

func (h *handler) end() { h.endAt(h.pos) }

func (h *handler) endAt(pos uint64) {
	foreign := h.txn.foreign || !h.txn.touched
	h.reader.ledger.ended(h.txn.gtid, h.file, pos, h.txn.placedAt(), foreign)
	if h.skip > 0 && (h.skipTxn == "" || h.skipTxn == h.txn.name) {
		h.skip = 0
	}
	h.txn = transaction{}
}

// rolledBack ends a transaction that the server wrote although it was rolled back, because it changed tables that have no
// transactions, too.
func (h *handler) rolledBack() error {
	if h.txn.rows > 0 {
		return relay.Haltf(relay.SourceIncident, "transaction %s wrote to %s, to a table without transactions and was rolled back: its "+
			"%d events were sent before that could be known; find them by source_position %s", h.txn.name, h.reader.cfg.Outbox, h.txn.rows, h.txn.name)
	}
	h.end()
	return nil
}

// torn drops a transaction whose end the server never wrote, because it died while writing it: it was not committed.
func (h *handler) torn() error {
	if h.txn.rows > 0 {
		return relay.Haltf(relay.SourceIncident, "the server died while it wrote transaction %s to %s: its %d events were sent, and may not have "+
			"been committed; compare the outbox table with them by source_position %s", h.txn.name, h.file, h.txn.rows, h.txn.name)
	}
	h.txn = transaction{}
	return nil
}

func (h *handler) rotate(header *replication.EventHeader, e *replication.RotateEvent) error {
	next := string(e.NextLogName)
	if header.Timestamp == 0 || header.Flags&replication.LOG_EVENT_ARTIFICIAL_F != 0 {
		if next != h.file || h.server.gtid { // an artificial one names the file that is being read, no more
			h.file, h.pos = next, e.Position
		}
		return nil
	}
	if h.txn.open {
		if err := h.torn(); err != nil {
			return err
		}
	}
	h.file, h.pos = next, e.Position
	h.reader.ledger.rotated(next)
	return nil
}

// generic judges the events that go-mysql does not decode.
func (h *handler) generic(header *replication.EventHeader) error {
	switch header.EventType {
	case replication.XA_PREPARE_LOG_EVENT:
		h.end()
		return nil
	case replication.INCIDENT_EVENT:
		return relay.Haltf(relay.SourceIncident, "the server logged an incident at %s:%d: its binlog misses changes; compare the "+
			"outbox table with what was delivered, then start anew with START=snapshot", h.file, h.pos)
	case replication.STOP_EVENT, replication.SLAVE_EVENT, replication.IGNORABLE_EVENT, replication.TRANSACTION_CONTEXT_EVENT,
		replication.VIEW_CHANGE_EVENT, replication.MARIADB_BINLOG_CHECKPOINT_EVENT, replication.MARIADB_START_ENCRYPTION_EVENT:
		return nil
	default:
		if header.Flags&replication.LOG_EVENT_IGNORABLE_F != 0 {
			return nil
		}
	}
	return relay.Haltf(relay.SourceIncident, "the binlog has an event of the unknown type %d at %s:%d: it may hold rows of the outbox",
		header.EventType, h.file, h.pos)
}
