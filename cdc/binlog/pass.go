package binlog

import (
	"encoding/binary"

	"github.com/go-mysql-org/go-mysql/replication"
)

// tableMaps knows the tables that a statement's events have named so far, so that rows of other tables than the outbox need
// not even be parsed.
//
// Invariant: rows are passed only if a table map of the same statement gave their number to another table.
type tableMaps struct {
	isOutbox func(*replication.TableMapEvent) bool
	outbox   map[uint64]bool // by number: whether the table is the outbox
}

// Fields of table maps and rows events behind the event's header, as servers write them since MySQL 5.1.
const (
	tableNumber  = 6
	tableHeader  = tableNumber + 2 // and flags
	statementEnd = 1               // flag of a rows event
)

// other reads the names of a table map. It gives nil where the table is the outbox or cannot be told: such an event is parsed.
func (m *tableMaps) other(raw []byte) *replication.TableMapEvent {
	body := raw[replication.EventHeaderSize:]
	if len(body) < tableHeader {
		return nil
	}
	e := &replication.TableMapEvent{TableID: number(body)}
	rest := body[tableHeader:]
	for _, name := range []*[]byte{&e.Schema, &e.Table} { // each has its length before it and a zero behind it
		if len(rest) == 0 || len(rest) < 2+int(rest[0]) {
			return nil
		}
		end := 1 + int(rest[0])
		*name, rest = rest[1:end], rest[end+1:]
	}
	m.outbox[e.TableID] = m.isOutbox(e)
	if m.outbox[e.TableID] {
		return nil
	}
	return e
}

// passes tells whether the rows are another table's.
func (m *tableMaps) passes(raw []byte) bool {
	body := raw[replication.EventHeaderSize:]
	if len(body) < tableHeader {
		return false
	}
	outbox, known := m.outbox[number(body)]
	if binary.LittleEndian.Uint16(body[tableNumber:])&statementEnd != 0 {
		clear(m.outbox)
	}
	return known && !outbox
}

// number is that of a table, in six bytes.
func number(body []byte) uint64 {
	return uint64(binary.LittleEndian.Uint32(body)) | uint64(binary.LittleEndian.Uint16(body[4:]))<<32
}

// hasRows tells the events of rows, with six bytes for the table's number.
func hasRows(kind replication.EventType) bool {
	switch kind {
	case replication.WRITE_ROWS_EVENTv1, replication.UPDATE_ROWS_EVENTv1, replication.DELETE_ROWS_EVENTv1,
		replication.WRITE_ROWS_EVENTv2, replication.UPDATE_ROWS_EVENTv2, replication.DELETE_ROWS_EVENTv2, replication.PARTIAL_UPDATE_ROWS_EVENT,
		replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1, replication.MARIADB_UPDATE_ROWS_COMPRESSED_EVENT_V1,
		replication.MARIADB_DELETE_ROWS_COMPRESSED_EVENT_V1:
		return true
	default:
		return false
	}
}
