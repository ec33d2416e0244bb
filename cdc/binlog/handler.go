package binlog

import (
	"bytes"
	"context"
	"slices"
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

	// placesOnly passes what halts a relay because it may have written to the outbox: the place behind it is looked for.
	placesOnly bool

	found func() // told once, when the server has found the place and sends what is behind it

	file string
	pos  uint64 // end of the last event in file, 64 bits: a file can be longer than the header's 32
	txn  transaction

	skip    uint64 // rows still to skip, of transaction skipTxn or, where there are no GTIDs, of the first
	skipTxn string
	outbox  []byte
	schema  []byte
}

func newHandler(ctx context.Context, r *Reader, s *server, from relay.Position, deliver func(relay.Row) error) *handler {
	return &handler{
		ctx: ctx, reader: r, server: s, deliver: deliver,
		file: from.File, pos: from.Pos, skip: from.SkipRows, skipTxn: from.SkipGTID,
		schema: []byte(r.cfg.Outbox.Schema), outbox: []byte(r.cfg.Outbox.Name),
	}
}

// decodeRows decodes the image of rows only where it is wanted; of all others, which come out of compressed transactions, just
// the header is read. The header must be read in any case: it ends the table maps of a statement.
func (h *handler) decodeRows(e *replication.RowsEvent, kind replication.EventType, data []byte) error {
	pos, err := e.DecodeHeader(data)
	wanted := e.Type() == replication.EnumRowsEventTypeInsert || e.Type() == replication.EnumRowsEventTypeUpdate
	if err != nil || !wanted || !h.isOutbox(e.Table) || h.txn.readThrough {
		return err
	}
	if !anyColumn(e) {
		e.Rows, e.SkippedColumns = noColumns(e)
		return nil
	}
	if err := decodable(e, kind, pos, data); err != nil {
		return err
	}
	return e.DecodeData(pos, data)
}

// anyColumn tells whether the event has a column at all. With binlog_row_image=MINIMAL it has none when an insert names none;
// then its rows take no byte. go-mysql finds no row where there are some, or, in an event that was tampered with, rows without
// end.
func anyColumn(e *replication.RowsEvent) bool {
	for i := range int(e.ColumnCount) {
		if e.ColumnBitmap1[i/8]&(1<<(i%8)) != 0 {
			return true
		}
	}
	return false
}

// noColumns stands for rows, nobody knows how many, of which no column was logged.
func noColumns(e *replication.RowsEvent) (rows [][]any, skipped [][]int) {
	images := 1
	if e.Type() == replication.EnumRowsEventTypeUpdate {
		images = 2
	}
	for range images {
		rows, skipped = append(rows, make([]any, e.Table.ColumnCount)), append(skipped, make([]int, max(1, e.Table.ColumnCount)))
	}
	return rows, skipped
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
	if h.found != nil && !preamble(e.Header.EventType) {
		h.found()
		h.found = nil
	}
	h.advance(e.Header)
	return h.handle(e)
}

// preamble tells the events that a server sends of a file before it looks for the place in it.
func preamble(kind replication.EventType) bool {
	switch kind {
	case replication.ROTATE_EVENT, replication.FORMAT_DESCRIPTION_EVENT, replication.PREVIOUS_GTIDS_EVENT, replication.MARIADB_GTID_LIST_EVENT,
		replication.MARIADB_BINLOG_CHECKPOINT_EVENT, replication.MARIADB_START_ENCRYPTION_EVENT:
		return true
	default:
		return false
	}
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
	case *replication.FormatDescriptionEvent:
		return h.opened(e.Header)
	case *replication.GTIDEvent:
		return h.beginMySQL(e.Header, event)
	case *replication.GtidTaggedLogEvent:
		return h.beginMySQL(e.Header, &event.GTIDEvent)
	case *replication.MariadbGTIDEvent:
		return h.beginMariaDB(e.Header, event)
	case *replication.QueryEvent:
		return h.query(event)
	case *replication.TableMapEvent:
		h.txn.touched = true
		h.txn.foreign = h.txn.foreign || !h.isOwn(event)
	case *replication.RowsEvent:
		return h.rows(event)
	case *replication.XIDEvent:
		return h.commit()
	case *replication.RotateEvent:
		return h.rotate(e.Header, event)
	case *replication.ExecuteLoadQueryEvent:
		return h.loaded(e.RawData)
	case *replication.GenericEvent:
		return h.generic(e)
	}
	return nil
}

// opened takes in the first event of a file.
func (h *handler) opened(header *replication.EventHeader) error {
	if header.Timestamp != 0 && !h.reader.ledger.opened(h.file, madeAt(header)) {
		return begunAnew(h.file)
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
		return relay.Haltf(relay.HistoryReset, "a transaction without a GTID stands in the binlog although gtid_mode is ON: %s", startAnew)
	}
	at, exact := time.Unix(int64(header.Timestamp), 0), false
	if e.ImmediateCommitTimestamp > 0 {
		at, exact = e.ImmediateCommitTime(), true
	}
	placed := at
	if e.OriginalCommitTimestamp > 0 {
		placed = earliest(at, e.OriginalCommitTime())
	}
	return h.begin(header, transaction{gtid: g, at: at, exact: exact, placed: placed})
}

// Flags of a MariaDB GTID event that go-mysql does not name.
const mariaPreparedXA = 64

func (h *handler) beginMariaDB(header *replication.EventHeader, e *replication.MariadbGTIDEvent) error {
	return h.begin(header, transaction{
		gtid:       gtid{maria: e.GTID},
		at:         time.Unix(int64(header.Timestamp), 0),
		placed:     time.Unix(int64(header.Timestamp), 0),
		begun:      !e.IsStandalone(),
		standalone: e.IsStandalone(),
		xa:         e.Flags&mariaPreparedXA != 0,
	})
}

// rotate follows the server to its next file. A transaction never spans two: one that is open was torn by a crash.
func (h *handler) rotate(header *replication.EventHeader, e *replication.RotateEvent) error {
	next := string(e.NextLogName)
	artificial := header.Timestamp == 0 || header.Flags&replication.LOG_EVENT_ARTIFICIAL_F != 0
	if h.txn.open && (!artificial || next != h.file) {
		if err := h.torn(); err != nil {
			return err
		}
	}
	if artificial {
		if next != h.file || h.server.gtid { // an artificial one names the file that is being read, no more
			h.file, h.pos = next, e.Position
		}
		return nil
	}
	h.file, h.pos = next, e.Position
	h.reader.ledger.rotated(next)
	return nil
}

// generic judges the events that go-mysql does not decode.
func (h *handler) generic(e *replication.BinlogEvent) error {
	switch e.Header.EventType {
	case replication.XA_PREPARE_LOG_EVENT:
		return h.prepared(e.RawData[min(len(e.RawData), replication.EventHeaderSize):])
	case replication.INCIDENT_EVENT:
		if h.placesOnly {
			return nil
		}
		return relay.Haltf(relay.SourceIncident, "the server logged an incident at %s:%d: its binlog misses changes; compare the "+
			"outbox table with what was delivered, then start anew with START=snapshot", h.file, h.pos)
	case replication.STOP_EVENT, replication.SLAVE_EVENT, replication.IGNORABLE_EVENT, replication.TRANSACTION_CONTEXT_EVENT,
		replication.VIEW_CHANGE_EVENT, replication.MARIADB_BINLOG_CHECKPOINT_EVENT, replication.MARIADB_START_ENCRYPTION_EVENT:
		return nil
	case replication.RAND_EVENT, replication.USER_VAR_EVENT, replication.APPEND_BLOCK_EVENT, replication.DELETE_FILE_EVENT:
		return nil // they go before a change that was logged as a statement, and that one is judged itself
	default:
		if h.placesOnly || e.Header.Flags&replication.LOG_EVENT_IGNORABLE_F != 0 {
			return nil
		}
	}
	return relay.Haltf(relay.SourceIncident, "the binlog has an event of the unknown type %d at %s:%d: it may hold rows of the outbox",
		e.Header.EventType, h.file, h.pos)
}
