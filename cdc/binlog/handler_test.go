package binlog

import (
	"testing"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/relay"
)

// fed is a handler that is fed with events that no server would write on demand.
type fed struct {
	*handler
	rows []relay.Row
}

func feed(t *testing.T, from relay.Position) *fed {
	t.Helper()
	r := New(Config{Outbox: Table{"m", "outbox"}, Own: []Table{{"m", "relay_checkpoint"}}})
	r.Begin(from)
	s := &server{flavor: from.Flavor, gtid: from.GTID, uuid: from.ServerUUID}
	at, err := r.ledger.resume(s)
	require.NoError(t, err)
	f := &fed{}
	f.handler = newHandler(t.Context(), r, s, at, func(row relay.Row) error {
		f.rows = append(f.rows, row)
		return nil
	})
	return f
}

// event is one with a header that says where it ends.
func event(kind replication.EventType, end uint32, body replication.Event) *replication.BinlogEvent {
	return &replication.BinlogEvent{
		Header:  &replication.EventHeader{EventType: kind, Timestamp: 1, LogPos: end, EventSize: 100},
		Event:   body,
		RawData: make([]byte, 64),
	}
}

func mariaBegin(number uint64, end uint32) *replication.BinlogEvent {
	return event(replication.MARIADB_GTID_EVENT, end, &replication.MariadbGTIDEvent{
		GTID: mysql.MariadbGTID{DomainID: 0, ServerID: 1, SequenceNumber: number}, Flags: replication.BINLOG_MARIADB_FL_TRANSACTIONAL})
}

func query(text string, end uint32) *replication.BinlogEvent {
	return event(replication.QUERY_EVENT, end, &replication.QueryEvent{Schema: []byte("m"), Query: []byte(text)})
}

func commitEvent(end uint32) *replication.BinlogEvent {
	return event(replication.XID_EVENT, end, &replication.XIDEvent{})
}

// insertEvent is an undecoded insert: only that it is one of the outbox counts here.
func insertEvent(end uint32) *replication.BinlogEvent {
	rows := &replication.RowsEvent{Table: &replication.TableMapEvent{Schema: []byte("m"), Table: []byte("outbox")}}
	return event(replication.WRITE_ROWS_EVENTv1, end, rows)
}

func (f *fed) feed(t *testing.T, events ...*replication.BinlogEvent) {
	t.Helper()
	for _, e := range events {
		require.NoError(t, f.HandleEvent(e))
	}
}

func (f *fed) halts(t *testing.T, e *replication.BinlogEvent) relay.Reason {
	t.Helper()
	halt := (*relay.Halt)(nil)
	require.ErrorAs(t, f.HandleEvent(e), &halt)
	return halt.Reason
}

var mariaStart = relay.Position{Flavor: mariaDB, ServerUUID: "u", GTID: true, GTIDSet: "0-1-1", File: "binlog.000001", Pos: 1000}

func TestEventsThatMayHideRowsHalt(t *testing.T) {
	t.Parallel()
	for kind, reason := range map[replication.EventType]relay.Reason{
		replication.INCIDENT_EVENT: relay.SourceIncident,
		172:                        relay.SourceIncident, // a part of a row, of MariaDB 12.3
		200:                        relay.SourceIncident,
	} {
		f := feed(t, mariaStart)
		require.Equal(t, reason, f.halts(t, event(kind, 1100, &replication.GenericEvent{})), kind)
	}
	f := feed(t, mariaStart)
	ignorable := event(200, 1100, &replication.GenericEvent{})
	ignorable.Header.Flags = replication.LOG_EVENT_IGNORABLE_F
	f.feed(t, ignorable, event(replication.STOP_EVENT, 1200, &replication.GenericEvent{}))
	for _, kind := range []replication.EventType{replication.RAND_EVENT, replication.USER_VAR_EVENT, replication.APPEND_BLOCK_EVENT, replication.DELETE_FILE_EVENT} {
		f.feed(t, event(kind, 1250, &replication.GenericEvent{}))
	}
	short := event(replication.EXECUTE_LOAD_QUERY_EVENT, 1300, &replication.ExecuteLoadQueryEvent{})
	short.RawData = short.RawData[:40]
	require.Equal(t, relay.SourceIncident, f.halts(t, short))
}

// TestAWalkPassesWhatHaltsARelay: it looks for places alone.
func TestAWalkPassesWhatHaltsARelay(t *testing.T) {
	t.Parallel()
	f := feed(t, mariaStart)
	f.placesOnly = true
	call := query("SELECT `m`.`f`()", 1200)
	f.feed(t, mariaBegin(2, 1100), call, event(200, 1300, &replication.GenericEvent{}), commitEvent(1400),
		event(replication.INCIDENT_EVENT, 1500, &replication.GenericEvent{}), mariaBegin(3, 1600), commitEvent(1700))
	require.Equal(t, "0-1-3", f.reader.Read().Position.GTIDSet)
}

func TestATransactionWithoutAnEndIsNotCommitted(t *testing.T) {
	t.Parallel()
	next := func(flags uint16) *replication.BinlogEvent {
		e := event(replication.ROTATE_EVENT, 0, &replication.RotateEvent{Position: 4, NextLogName: []byte("binlog.000002")})
		e.Header.Flags = flags
		return e
	}
	for _, flags := range []uint16{0, replication.LOG_EVENT_ARTIFICIAL_F} {
		f := feed(t, mariaStart)
		f.feed(t, mariaBegin(2, 1100), insertEvent(1200), next(flags), mariaBegin(3, 400), commitEvent(500))
		require.Equal(t, "0-1-3", f.reader.Read().Position.GTIDSet)
		require.Empty(t, f.rows)
	}

	f := feed(t, relay.Position{Flavor: mySQL, GTID: true, ServerUUID: "u", File: "binlog.000001", Pos: 1000})
	gtid := func(number int64, end uint32) *replication.BinlogEvent {
		return event(replication.GTID_EVENT, end, &replication.GTIDEvent{SID: make([]byte, 16), GNO: number})
	}
	f.feed(t, gtid(1, 1100), query("BEGIN", 1200), insertEvent(1300), next(0), gtid(2, 300), query("BEGIN", 400), commitEvent(500))
	require.Equal(t, "00000000-0000-0000-0000-000000000000:2", f.reader.Read().Position.GTIDSet, "the torn one is not in the set")

	f.feed(t, gtid(3, 600), query("BEGIN", 700), insertEvent(800))
	require.Equal(t, relay.SourceIncident, f.halts(t, gtid(4, 900)), "no end, no next file: nothing is known of it")
}

func TestAnUnknownSavepointHaltsWhereRowsDependOnIt(t *testing.T) {
	t.Parallel()
	f := feed(t, mariaStart)
	f.feed(t, mariaBegin(2, 1100), query("ROLLBACK TO `s`", 1200), insertEvent(1300))
	require.Equal(t, relay.SourceIncident, f.halts(t, query("ROLLBACK TO `s`", 1400)))
}

// TestPlacesBehindFourGiBAreWhole: a header has 32 bits for where its event ends; a file, or one transaction in it, can be longer.
func TestPlacesBehindFourGiBAreWhole(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	f := feed(t, relay.Position{Flavor: mySQL, ServerUUID: "u", File: "binlog.000001", Pos: 3 * gib})
	begin := func(end uint32) *replication.BinlogEvent {
		return event(replication.ANONYMOUS_GTID_EVENT, end, &replication.GTIDEvent{SID: make([]byte, 16)})
	}
	other := func(end uint32) *replication.BinlogEvent {
		return event(replication.TABLE_MAP_EVENT, end, &replication.TableMapEvent{Schema: []byte("m"), Table: []byte("other")})
	}
	f.feed(t, begin(3*gib+100), query("BEGIN", 3*gib+200), other(4*gib-10), other(90), other(2*gib), other(4*gib-5), other(5), commitEvent(1000))
	require.Equal(t, uint64(8*gib+1000), f.reader.Read().Position.Pos)
	f.feed(t, begin(1100))
	require.Equal(t, "binlog.000001:8589935592", f.txn.name, "where it begins, as messages carry it")
	f.feed(t, query("BEGIN", 1200), commitEvent(1300))
	place, _, ok := f.reader.Confirmed(0)
	require.True(t, ok)
	require.Equal(t, uint64(8*gib+1300), place.Pos)

	halt := (*relay.Halt)(nil)
	err := f.reader.validate(t.Context(), f.server, place, 0)
	require.ErrorAs(t, err, &halt)
	require.Equal(t, relay.SourceChanged, halt.Reason, "the protocol has 32 bits for where a dump begins: a wrapped place would be read in silence")
	f.feed(t, event(replication.ROTATE_EVENT, 1400, &replication.RotateEvent{Position: 4, NextLogName: []byte("binlog.000002")}))
	require.Equal(t, uint64(4), f.reader.Read().Position.Pos)
}
