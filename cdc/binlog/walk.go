package binlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/replication"

	"tailbox/cdc/relay"
)

// passage is one transaction that a walk comes by.
type passage struct {
	begin, end uint64    // offsets in the file
	at         time.Time // of its commit
	exact      bool      // at is to the microsecond, else to the second
}

// committed is the latest time at which the transaction can have been committed.
func (p passage) committed() time.Time {
	if p.exact {
		return p.at
	}
	return p.at.Add(time.Second - time.Microsecond)
}

// walker looks at where the transactions of one file begin and end, and at none of their rows.
type walker struct {
	*handler
	binlogFile
	visit func(passage) (pass bool)

	now  passage
	name gtid
	when time.Time // the transaction was committed, as places have it
	set  gtidSet   // behind the last transaction that was passed
	end  uint64    // likewise
	last time.Time
}

var errArrived = errors.New("arrived")

// noTable is no table's name: of its rows none is decoded.
var noTable = Table{Schema: "\x00", Name: "\x00"}

// second is another reader of the same server, to look at places while the first one streams. A server finds out only by its
// next heartbeat that such a reader has left, and until then it counts as a connection.
func (r *Reader) second(outbox Table) *Reader {
	cfg := r.cfg
	cfg.Outbox, cfg.Name, cfg.ServerID = outbox, "", 0
	cfg.OnGap, cfg.Repairing, cfg.Log = GapHalt, nil, nil
	second := New(cfg)
	second.cfg.Heartbeat = 200 * time.Millisecond
	return second
}

// walk goes through a file, from its beginning, for as long as visit passes transactions, and gives the place behind the last
// one that was passed.
func (r *Reader) walk(ctx context.Context, s *server, file binlogFile, visit func(passage) (pass bool)) (relay.Position, error) {
	before, err := s.setBefore(ctx, r.cfg.DB, file.Name)
	if err != nil {
		return relay.Position{}, err
	}
	at := relay.Position{Flavor: s.flavor, ServerUUID: s.uuid, GTID: s.gtid, File: file.Name, Pos: 4}
	byFile := *s
	byFile.gtid = false // begin at an offset even where there are GTIDs
	w := &walker{
		handler:    newHandler(ctx, r.second(noTable), &byFile, at, func(relay.Row) error { return nil }),
		binlogFile: file, visit: visit, set: before, end: at.Pos,
	}
	w.placesOnly = true
	err = w.reader.listen(ctx, &byFile, at, w.handler, w, func(err error) error {
		if errors.Is(err, errArrived) {
			return nil
		}
		return classify(err)
	})
	if err != nil {
		return relay.Position{}, fmt.Errorf("walk through %s: %w", file.Name, err)
	}
	at.Pos, at.GTIDSet, at.CommittedAt = w.end, w.set.String(), w.last
	return at, nil
}

// HandleEvent implements replication.EventHandler.
func (w *walker) HandleEvent(e *replication.BinlogEvent) error {
	open := w.txn.open
	if err := w.handler.HandleEvent(e); err != nil {
		return err
	}
	if w.file != w.Name {
		return errArrived // at the next file
	}
	switch e.Event.(type) {
	case *replication.GTIDEvent, *replication.GtidTaggedLogEvent, *replication.MariadbGTIDEvent:
		begin := w.pos - uint64(e.Header.EventSize)
		if open && !w.pass(begin) { // the one before has ended without saying so
			return errArrived
		}
		w.now, w.name, w.when = passage{begin: begin, at: w.txn.at, exact: w.txn.exact}, w.txn.gtid, w.txn.placedAt()
	default:
		if open && !w.txn.open && !w.pass(w.pos) {
			return errArrived
		}
	}
	if w.pos >= w.Size && !w.txn.open {
		return errArrived // at the end of what was there when it was asked
	}
	return nil
}

// pass shows the transaction that has ended.
func (w *walker) pass(end uint64) bool {
	w.now.end = end
	if !w.visit(w.now) {
		return false
	}
	w.end, w.last = end, w.when
	w.set.add(join(nil, w.name))
	return true
}

// setBefore is every transaction before the beginning of a file.
func (s *server) setBefore(ctx context.Context, q queryer, file string) (gtidSet, error) {
	var text string
	switch {
	case s.flavor == mariaDB:
		var set sql.NullString
		if err := q.QueryRowContext(ctx, "SELECT BINLOG_GTID_POS(?, 4)", file).Scan(&set); err != nil {
			return gtidSet{}, fmt.Errorf("ask for the GTIDs before %s: %w", file, err)
		}
		text = set.String
	case s.gtid:
		var err error
		if text, err = previousSet(ctx, q, file); err != nil {
			return gtidSet{}, fmt.Errorf("ask for the GTIDs before %s: %w", file, err)
		}
	default:
		return gtidSet{}, nil
	}
	return parseGTIDSet(s.flavor, strings.ReplaceAll(text, "\n", ""))
}

// previousSet reads the event at a file's beginning by which MySQL finds the file for a set.
func previousSet(ctx context.Context, q queryer, file string) (string, error) {
	rows, err := q.QueryContext(ctx, "SHOW BINLOG EVENTS IN '"+strings.ReplaceAll(file, "'", "''")+"' LIMIT 3")
	if err != nil {
		return "", err
	}
	defer rows.Close()
	for rows.Next() {
		var name, kind, info string
		var pos, end, server uint64
		if err := rows.Scan(&name, &pos, &kind, &server, &end, &info); err != nil {
			return "", err
		}
		if kind == "Previous_gtids" {
			return info, rows.Err()
		}
	}
	if err := rows.Err(); err != nil {
		return "", err
	}
	return "", errors.New("the file does not say")
}
