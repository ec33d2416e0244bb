package binlog

import (
	"errors"
	"fmt"
	"time"

	"github.com/go-mysql-org/go-mysql/replication"

	"tailbox/cdc/relay"
	"tailbox/schema"
)

// transaction is the group of events that is being read.
//
// Invariant: no row of it is delivered before its end is known to be a commit. Rows are in the binlog that were never
// committed: a transaction that changed a table without transactions, or made a temporary table in MariaDB, is written whole
// although it was rolled back, with a ROLLBACK or ROLLBACK TO behind the rows; and a server that dies may leave half of one.
// So rows are held until the end of their transaction. One with more rows than may be held is read to its end without them
// (readThrough), and then once more, with its verdict known.
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

	held        []change // the rows, in order
	bytes       int      // what they cost in memory
	changes     int      // events so far that brought rows to the outbox, whether they are held or not
	readThrough bool     // too large to be held
	savepoints  []savepoint
	undone      []span   // events whose rows were rolled back to a savepoint
	known       *verdict // of an earlier reading: rows are delivered as they come
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

// change is a row that is to be delivered, or why it cannot be, should its transaction turn out to be committed.
type change struct {
	event schema.Event
	err   error
}

// savepoint is where a transaction was when it set one.
type savepoint struct {
	name                 string
	changes, held, bytes int
}

// span is a run of events of a transaction, from the first one on, up to but without the last.
type span struct{ first, last int }

// verdict is what a first reading found out about a transaction that is too large to be held: that it was committed, and
// which of its events were undone before that.
type verdict struct {
	server, name string
	undone       []span
}

// holdBytes is how much of one transaction is held. One row always is, whatever its size.
const holdBytes = 8 << 20

// errAgain ends a stream that is to begin again at the same place, where a transaction stands whose verdict is known now.
var errAgain = errors.New("read the transaction again")

// begin opens a transaction. One that is still open has no end that is known here; its rows, if any, are not let go of.
func (h *handler) begin(header *replication.EventHeader, txn transaction) error {
	before := h.pos - uint64(header.EventSize)
	if h.txn.open {
		if h.txn.changes > 0 {
			return relay.Haltf(relay.SourceIncident, "transaction %s wrote to %s and has no end that is known: whether it was committed is not known "+
				"either; compare the table with what was sent, then move the relay behind it", h.txn.name, h.reader.cfg.Outbox)
		}
		h.close(before)
	}
	txn.open = true
	gtid := txn.gtid.String()
	txn.name = gtid
	if txn.name == "" {
		txn.name = fmt.Sprintf("%s:%d", h.file, before)
	}
	if v := h.reader.verdict; v != nil && v.server == h.server.uuid && v.name == txn.name {
		txn.known = v
	}
	h.txn = txn
	h.reader.ledger.transaction(gtid)
	return nil
}

// take takes in the rows that one event brought to the outbox.
func (h *handler) take(changes []change) error {
	t := &h.txn
	at := t.changes
	t.changes++
	switch {
	case t.known != nil:
		if t.known.lost(at) {
			return nil
		}
		return h.send(changes)
	case t.readThrough:
		return nil
	}
	for _, c := range changes {
		t.held = append(t.held, c)
		t.bytes += len(c.event.Payload) + 512
	}
	if len(t.held) > 1 && t.bytes > h.reader.hold {
		t.readThrough, t.held, t.bytes = true, nil, 0
	}
	return nil
}

func (v *verdict) lost(event int) bool {
	for _, s := range v.undone {
		if event >= s.first && event < s.last {
			return true
		}
	}
	return false
}

// send delivers rows, but for those that were confirmed before the stream began.
func (h *handler) send(changes []change) error {
	for _, c := range changes {
		if h.skips() {
			continue
		}
		if c.err != nil {
			return c.err
		}
		row := relay.Row{
			Seq:   h.reader.ledger.row(h.txn.placedAt().Sub(c.event.CreatedAt)),
			Event: c.event, Position: h.txn.name, CommittedAt: h.committedAt(c.event.CreatedAt),
		}
		if h.refused = h.deliver(row); h.refused != nil {
			return h.refused
		}
	}
	return nil
}

// skips tells whether the next row was confirmed before the stream began.
func (h *handler) skips() bool {
	if h.skip == 0 || h.skipTxn != "" && h.skipTxn != h.txn.name {
		return false
	}
	h.skip--
	return true
}

// committedAt narrows a commit time that is known to the second only: the row was made before it was committed.
func (h *handler) committedAt(created time.Time) time.Time {
	if !h.txn.exact && created.After(h.txn.at) && created.Sub(h.txn.at) < time.Second {
		return created
	}
	return h.txn.at
}

// commit ends a transaction whose rows are there for all to see from now on.
func (h *handler) commit() error {
	if h.txn.readThrough {
		h.reader.verdict = &verdict{server: h.server.uuid, name: h.txn.name, undone: h.txn.undone}
		return errAgain
	}
	if err := h.send(h.txn.held); err != nil {
		return err
	}
	h.close(h.pos)
	return nil
}

// rollback ends a transaction that the server wrote although it was rolled back.
func (h *handler) rollback() error {
	if h.txn.known != nil && h.txn.changes > 0 { // an earlier reading saw it commit: the binlog was changed under us
		return relay.Haltf(relay.SourceIncident, "transaction %s was committed when it was read first, and rolled back when it was read again: "+
			"the binlog of the server has changed; its events were sent, find them by source_position %s", h.txn.name, h.txn.name)
	}
	h.close(h.pos)
	return nil
}

// torn forgets a transaction whose end the server never wrote, because it died while writing it: it was not committed.
func (h *handler) torn() error {
	if h.txn.known != nil && h.txn.changes > 0 {
		return h.rollback()
	}
	h.txn = transaction{}
	return nil
}

// save notes a savepoint. One of the same name takes the place of the one before.
func (h *handler) save(name string) {
	t := &h.txn
	t.forget(name)
	t.savepoints = append(t.savepoints, savepoint{name, t.changes, len(t.held), t.bytes})
}

func (t *transaction) forget(name string) {
	for i, s := range t.savepoints {
		if s.name == name {
			t.savepoints = append(t.savepoints[:i], t.savepoints[i+1:]...)
			return
		}
	}
}

// rollbackTo undoes what came behind a savepoint, and the savepoints behind it.
func (h *handler) rollbackTo(name string) error {
	t := &h.txn
	for i, s := range t.savepoints {
		if s.name != name {
			continue
		}
		if t.changes > s.changes {
			t.undone = append(t.undone, span{s.changes, t.changes})
		}
		t.savepoints = t.savepoints[:i+1]
		if !t.readThrough {
			t.held, t.bytes = t.held[:s.held], s.bytes
		}
		return nil
	}
	if t.changes == 0 {
		return nil
	}
	return relay.Haltf(relay.SourceIncident, "transaction %s was rolled back to a savepoint that the binlog has not: which of its rows in %s "+
		"were committed is not known; compare the table with what was sent, then move the relay behind it", t.name, h.reader.cfg.Outbox)
}

// close ends the transaction at pos.
func (h *handler) close(pos uint64) {
	foreign := h.txn.foreign || !h.txn.touched
	h.reader.ledger.ended(h.txn.gtid, h.file, pos, h.txn.placedAt(), foreign)
	if h.skip > 0 && (h.skipTxn == "" || h.skipTxn == h.txn.name) {
		h.skip = 0
	}
	if h.txn.known != nil {
		h.reader.verdict = nil
	}
	h.txn = transaction{}
}
