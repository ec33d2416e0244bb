package binlog

import (
	"encoding/binary"
	"errors"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
)

// Of damaged bytes go-mysql makes errors, but for two kinds that end the process: a length that it makes room for without a
// look at it, and a JSON document that contains itself. They are looked for before.
var (
	errZippedShort = errors.New("an event that the server compressed is too short")
	errZippedLarge = errors.New("an event that the server compressed claims to be larger than its bytes can be")
	errJSON        = errors.New("a JSON document is not one")
)

// decodable tells whether the rows behind pos can be given to go-mysql.
func decodable(e *replication.RowsEvent, kind replication.EventType, pos int, data []byte) error {
	switch kind {
	case replication.PARTIAL_UPDATE_ROWS_EVENT: // its documents are none
		return nil
	case replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1, replication.MARIADB_UPDATE_ROWS_COMPRESSED_EVENT_V1,
		replication.MARIADB_DELETE_ROWS_COMPRESSED_EVENT_V1:
		if err := sized(data[pos:]); err != nil {
			return err
		}
	default:
	}
	return documents(e, pos, data)
}

// mostZipped is the most bytes that one byte of zlib's can stand for.
const mostZipped = 1032

// sized checks what MariaDB compressed: a byte with the length of the length, the length, and zlib's bytes.
func sized(zipped []byte) error {
	if len(zipped) == 0 {
		return errZippedShort
	}
	n := int(zipped[0] & 7)
	if n == 0 || len(zipped) < 1+n {
		return errZippedShort
	}
	if mysql.BFixedLengthInt(zipped[1:1+n]) > uint64(len(zipped))*mostZipped {
		return errZippedLarge
	}
	return nil
}

// sizedStatement checks a compressed statement, which stands behind its status variables and its database's name.
func sizedStatement(body []byte) error {
	const fixed, schemaLength, statusLength = 13, 8, 11
	if len(body) < fixed {
		return errZippedShort
	}
	at := fixed + int(body[statusLength]) + int(body[statusLength+1])<<8 + int(body[schemaLength]) + 1
	if len(body) < at {
		return errZippedShort
	}
	return sized(body[at:])
}

// documents decodes the rows with their JSON columns as bytes, and checks those.
func documents(e *replication.RowsEvent, pos int, data []byte) error {
	types := e.Table.ColumnType
	var columns []int
	for i, kind := range types {
		if kind == mysql.MYSQL_TYPE_JSON {
			columns = append(columns, i)
			types[i] = mysql.MYSQL_TYPE_BLOB // of the same form
		}
	}
	if columns == nil {
		return nil
	}
	err := e.DecodeData(pos, data)
	for _, i := range columns {
		types[i] = mysql.MYSQL_TYPE_JSON
	}
	if err != nil {
		return err
	}
	for _, row := range e.Rows {
		for _, i := range columns {
			if text, ok := row[i].([]byte); ok && len(text) > 0 && !document(text) {
				return errJSON
			}
		}
	}
	return nil
}

// document tells whether the containers of a binary JSON document lie inside of each other, behind their own entries, and have
// no more entries than there are bytes for, so that none is its own part and none is there again and again.
func document(text []byte) bool {
	left := len(text)
	return value(text[0], text[1:], &left)
}

func value(kind byte, text []byte, left *int) bool {
	large := kind == replication.JSONB_LARGE_OBJECT || kind == replication.JSONB_LARGE_ARRAY
	object := kind == replication.JSONB_SMALL_OBJECT || kind == replication.JSONB_LARGE_OBJECT
	if !large && !object && kind != replication.JSONB_SMALL_ARRAY {
		return true // go-mysql looks at these itself
	}
	width := 2
	number := func(at int) int { return int(binary.LittleEndian.Uint16(text[at:])) }
	if large {
		width, number = 4, func(at int) int { return int(binary.LittleEndian.Uint32(text[at:])) }
	}
	if len(text) < 2*width {
		return false
	}
	count, size := number(0), number(width)
	if *left -= count; size > len(text) || *left < 0 {
		return false
	}
	entries := 2 * width
	if object {
		entries += count * (width + 2)
	}
	behind := entries + count*(1+width)
	if behind > size {
		return false
	}
	for i := range count {
		at := entries + i*(1+width)
		switch text[at] {
		case replication.JSONB_SMALL_OBJECT, replication.JSONB_LARGE_OBJECT, replication.JSONB_SMALL_ARRAY, replication.JSONB_LARGE_ARRAY:
			if start := number(at + 1); start < behind || start > size || !value(text[at], text[start:size], left) {
				return false
			}
		}
	}
	return true
}
