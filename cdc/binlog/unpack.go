package binlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/klauspost/compress/zstd"
)

// unpacker decodes the events of a stream and hands them on, one by one. go-mysql would do so, too, but decompresses and
// decodes a compressed transaction as a whole: one of a million rows would take gigabytes. Here its events come out of the
// decompressor one after the other, and none is kept.
type unpacker struct {
	events replication.EventHandler
	decode rowsDecoder
	flavor string
	parser *replication.BinlogParser
	format []byte                // the format description of the file, as one of events without checksums
	sums   int                   // bytes of the checksum at the end of each event
	kind   replication.EventType // of the event that is being parsed
	tables tableMaps
}

// rowsDecoder decodes a rows event of that kind from its bytes behind the event's header.
type rowsDecoder func(e *replication.RowsEvent, kind replication.EventType, data []byte) error

// newUnpacker hands what the handler is to see on to events, which end in it.
func newUnpacker(flavor string, h *handler, events replication.EventHandler) *unpacker {
	u := &unpacker{events: events, decode: h.decodeRows, flavor: flavor, tables: tableMaps{isOutbox: h.isOutbox, outbox: map[uint64]bool{}}}
	u.parser = u.newParser()
	return u
}

func (u *unpacker) newParser() *replication.BinlogParser {
	p := replication.NewBinlogParser()
	p.SetFlavor(u.flavor)
	p.SetParseTime(true)
	p.SetRenderJSONAsMySQLText(true) // numbers of a JSON column keep their kind; serverJSON does the rest
	p.SetRowsEventDecodeFunc(func(e *replication.RowsEvent, data []byte) error { return u.decode(e, u.kind, data) })
	return p
}

// parse has an event decoded, unless it is a statement that MariaDB compressed and cannot be what it claims.
func (u *unpacker) parse(p *replication.BinlogParser, raw []byte) (*replication.BinlogEvent, error) {
	if len(raw) >= replication.EventHeaderSize { // else go-mysql says so
		u.kind = replication.EventType(raw[4])
		if u.kind == replication.MARIADB_QUERY_COMPRESSED_EVENT {
			if err := sizedStatement(raw[replication.EventHeaderSize:]); err != nil {
				return nil, err
			}
		}
	}
	return p.Parse(raw)
}

// HandleEvent implements replication.EventHandler. Of the event only the bytes are used, whose checksum go-mysql has verified.
func (u *unpacker) HandleEvent(raw *replication.BinlogEvent) error {
	switch kind := raw.Header.EventType; {
	case kind == replication.TRANSACTION_PAYLOAD_EVENT:
		return u.payload(raw)
	case kind == replication.TABLE_MAP_EVENT:
		if e := u.tables.other(raw.RawData); e != nil {
			return u.events.HandleEvent(&replication.BinlogEvent{Header: raw.Header, Event: e})
		}
	case hasRows(kind) && u.tables.passes(raw.RawData):
		return u.events.HandleEvent(&replication.BinlogEvent{Header: raw.Header, Event: &replication.RowsEvent{}})
	}
	e, err := u.parse(u.parser, raw.RawData)
	if err != nil {
		return err
	}
	if format, ok := e.Event.(*replication.FormatDescriptionEvent); ok {
		u.opened(format, raw.RawData)
	}
	return u.events.HandleEvent(e)
}

// opened keeps a file's format for the events inside of compressed transactions, which have no checksums of their own.
func (u *unpacker) opened(format *replication.FormatDescriptionEvent, raw []byte) {
	clear(u.tables.outbox) // a statement does not span two files
	u.format, u.sums = bytes.Clone(raw), 0
	if format.ChecksumAlgorithm == replication.BINLOG_CHECKSUM_ALG_CRC32 {
		u.sums = replication.BinlogChecksumLength
		u.format[len(u.format)-u.sums-1] = byte(replication.BINLOG_CHECKSUM_ALG_OFF)
	}
}

// Fields of a payload event; see the comment on go-mysql's TransactionPayloadEvent.
const (
	payloadEnd         = 0
	payloadCompression = 2
	zstandard          = 0
)

var errShort = errors.New("the event of a compressed transaction is too short")

// payload hands on the event itself, which says where the transaction ends, and then each event in it, which has no place.
func (u *unpacker) payload(raw *replication.BinlogEvent) error {
	body := raw.RawData[min(len(raw.RawData), replication.EventHeaderSize):]
	compressed, err := packed(body[:max(0, len(body)-u.sums)])
	if err != nil {
		return err
	}
	if err := u.events.HandleEvent(&replication.BinlogEvent{Header: raw.Header, Event: &replication.TransactionPayloadEvent{}}); err != nil {
		return err
	}
	inner := u.newParser()
	if _, err := inner.Parse(u.format); err != nil {
		return fmt.Errorf("read the format of a compressed transaction: %w", err)
	}
	stream, err := zstd.NewReader(bytes.NewReader(compressed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return fmt.Errorf("decompress a transaction: %w", err)
	}
	defer stream.Close()
	for {
		data, err := nextEvent(stream)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("decompress a transaction: %v", err) //nolint:errorlint // an unexpected end here is none of the link
		}
		e, err := u.parse(inner, data)
		if err != nil {
			return err
		}
		e.Header.LogPos = 0
		if err := u.events.HandleEvent(e); err != nil {
			return err
		}
	}
}

// packed finds the compressed bytes behind the fields of a payload event, each of which is a type, a length and a value.
func packed(body []byte) ([]byte, error) {
	for len(body) > 0 {
		kind := body[0]
		if kind == payloadEnd {
			return body[1:], nil
		}
		if len(body) < 2 || len(body) < 2+int(body[1]) {
			break
		}
		value := body[2 : 2+int(body[1])]
		if kind == payloadCompression && !bytes.Equal(value, []byte{zstandard}) {
			return nil, errors.New("a transaction is compressed in a way that is not known")
		}
		body = body[2+len(value):]
	}
	return nil, errShort
}

// nextEvent reads one event; io.EOF says that there is none.
func nextEvent(stream io.Reader) ([]byte, error) {
	const sizeAt = 9
	head := make([]byte, replication.EventHeaderSize)
	if _, err := io.ReadFull(stream, head); err != nil {
		return nil, err
	}
	size := int64(binary.LittleEndian.Uint32(head[sizeAt:]))
	if size < int64(len(head)) {
		return nil, errShort
	}
	// What is claimed is not allocated before it is there.
	data := bytes.NewBuffer(head)
	if _, err := io.CopyN(data, stream, size-int64(len(head))); err != nil {
		return nil, errShort
	}
	return data.Bytes(), nil
}
