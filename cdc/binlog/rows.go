package binlog

import (
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/replication"

	"tailbox/cdc/relay"
)

// rows delivers the inserts of one event. The event of another table, or of another kind, was not decoded and has none.
func (h *handler) rows(e *replication.RowsEvent) error {
	if len(e.Rows) == 0 {
		return nil
	}
	if h.txn.xa {
		return relay.Haltf(relay.XAUnsupported, "transaction %s wrote to %s under XA: it is in the binlog before it is decided, "+
			"so its rows cannot be sent; write the outbox in plain transactions", h.txn.name, h.reader.cfg.Outbox)
	}
	names := e.Table.ColumnNameString()
	if len(names) == 0 {
		return relay.Haltf(relay.NotRowLogged, "transaction %s was logged without column names: "+
			"binlog_row_metadata was not FULL when it was written; SET GLOBAL binlog_row_metadata=FULL and start anew with START=snapshot", h.txn.name)
	}
	mapping, err := h.reader.mappingFor(names)
	if err != nil {
		return err
	}
	for i, values := range e.Rows {
		if len(e.SkippedColumns[i]) > 0 {
			return relay.Haltf(relay.NotRowLogged, "transaction %s was logged without all columns: a session set "+
				"binlog_row_image to something else than FULL; take the right to do so from its user", h.txn.name)
		}
		h.txn.rows++
		if h.skips() {
			continue
		}
		event, err := mapping.Event(values, h.txn.at)
		if err != nil {
			return relay.Haltf(relay.SchemaMismatch, "a row of transaction %s cannot be read: %w", h.txn.name, err)
		}
		row := relay.Row{Seq: h.reader.ledger.row(h.txn.placedAt().Sub(event.CreatedAt)), Event: event, Position: h.txn.name, CommittedAt: h.committedAt(event.CreatedAt)}
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

// stripComments removes comments at the start of a statement.
func stripComments(s string) string {
	for {
		s = strings.TrimSpace(s)
		switch {
		case strings.HasPrefix(s, "/*"):
			_, rest, closed := strings.Cut(s, "*/")
			if !closed {
				return ""
			}
			s = rest
		case strings.HasPrefix(s, "-- "), strings.HasPrefix(s, "#"):
			_, rest, _ := strings.Cut(s, "\n")
			s = rest
		default:
			return s
		}
	}
}

// firstWords is the first two words of a statement, with one space between them.
func firstWords(s string) string {
	words := strings.Fields(s[:min(len(s), 64)])
	return strings.Join(words[:min(len(words), 2)], " ")
}
