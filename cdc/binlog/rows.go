package binlog

import (
	"errors"

	"github.com/go-mysql-org/go-mysql/replication"

	"tailbox/cdc/outbox"
	"tailbox/cdc/relay"
)

// rows takes in what one event does to the outbox: each row that is inserted, and each that an update gives a new id, is an
// event. An id stands for one event for ever, so an update under the same id changes nothing that consumers have not had:
// it is counted. That is also how the forms of writing that depend on what is there already come out, on MySQL and MariaDB
// alike: REPLACE and ON DUPLICATE KEY UPDATE log an insert for a new row; for an existing one ON DUPLICATE KEY UPDATE logs an
// update, and so does REPLACE, but where the table has further unique keys, or triggers or foreign keys that see a delete,
// it logs a delete and an insert, which sends the event again.
func (h *handler) rows(e *replication.RowsEvent) error {
	if e.Table == nil || !h.isOutbox(e.Table) || e.Type() == replication.EnumRowsEventTypeDelete {
		return nil
	}
	switch {
	case h.txn.readThrough:
		return h.take(nil) // not decoded: it is only counted
	case e.Type() != replication.EnumRowsEventTypeInsert:
		return h.take(h.updates(e))
	}
	changes := make([]change, len(e.Rows))
	for i := range e.Rows {
		changes[i] = h.change(e, i)
	}
	return h.take(changes)
}

// updates are the rows that an update gives a new id. Its rows come in pairs, before and after.
func (h *handler) updates(e *replication.RowsEvent) (changes []change) {
	if e.Type() == replication.EnumRowsEventTypeUnknown {
		h.reader.notes.update(h.txn.name)
		return []change{{err: h.incomplete("binlog_row_value_options to something else than ''")}}
	}
	for i := 0; i+1 < len(e.Rows); i += 2 {
		h.reader.notes.update(h.txn.name)
		mapping, err := h.mapping(e)
		switch {
		case err != nil:
			changes = append(changes, change{err: err})
		case !mapping.SameID(e.Rows[i], e.Rows[i+1]):
			changes = append(changes, h.change(e, i+1))
		}
	}
	return changes
}

// change reads one row image.
func (h *handler) change(e *replication.RowsEvent, row int) change {
	mapping, err := h.mapping(e)
	if err != nil {
		return change{err: err}
	}
	if len(e.SkippedColumns[row]) > 0 {
		return change{err: h.incomplete("binlog_row_image to something else than FULL")}
	}
	serverTexts(e.Table, e.Rows[row])
	event, err := mapping.Event(e.Rows[row], h.txn.at)
	if err != nil {
		return change{err: relay.Haltf(relay.SchemaMismatch, "a row of transaction %s cannot be read: %w", h.txn.name, err)}
	}
	return change{event: event}
}

func (h *handler) mapping(e *replication.RowsEvent) (*outbox.Mapping, error) {
	names := e.Table.ColumnNameString()
	if len(names) == 0 {
		return nil, relay.Haltf(relay.NotRowLogged, "transaction %s was logged without column names: "+
			"binlog_row_metadata was not FULL when it was written; SET GLOBAL binlog_row_metadata=FULL and start anew with START=snapshot", h.txn.name)
	}
	mapping, err := h.reader.mappingFor(names)
	if err != nil {
		return nil, relay.Haltf(relay.SchemaMismatch, "a row of transaction %s cannot be read: %w; bring the column back with ALTER TABLE %s ADD COLUMN, "+
			"then move the relay behind what was logged without it", h.txn.name, errors.Unwrap(err), h.reader.cfg.Outbox) // what it wraps, not that it halts, too
	}
	return mapping, nil
}

func (h *handler) incomplete(setting string) error {
	return relay.Haltf(relay.NotRowLogged, "transaction %s was logged without all columns: a session set %s; "+
		"take the right to do so from its user", h.txn.name, setting)
}
