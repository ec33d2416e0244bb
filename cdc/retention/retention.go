// Package retention deletes outbox rows whose events are confirmed, in small batches by primary key. It owns no table: the
// outbox is the application's.
//
// # Why no row is deleted that is not confirmed
//
// It marks, waits, and sweeps:
//
//  1. Mark: the ids of rows that are old enough are read, of committed rows alone (whatever isolation the server has by default).
//  2. On the same connection, so of the same server, the end of the binlog is asked for, behind which each of these rows'
//     transactions must be: a server writes a transaction to its binlog before anybody can see it.
//  3. Wait: until the saved checkpoint is behind that end, or all that lies between them is the relay's own. The checkpoint
//     only passes what is confirmed, or durably in quarantine; so each marked row is.
//  4. Sweep: the marked ids are deleted, but for those in quarantine, which still need their row. A row that was deleted and
//     inserted again since, too young to be marked, is not hit: its age is in the WHERE.
//
// Clocks, long transactions and lag decide which rows are marked and how long they wait, never whether a row is safe: that
// follows from places in the binlog. created_at may be anything.
//
// Marks are in memory alone. When the stream goes to another server (a failover) or begins at another place (a repair, an
// operator's move), they are dropped and made anew. Only the leader sweeps. A crash at any moment loses nothing: a row is
// either there or was confirmed.
//
// A repair (see binlog.Repair) relies on this: what the binlog has lost and the broker has not got is still in the table. And
// this relies on a repair being complete: the first checkpoint that is saved after one is behind every row that was in the table.
//
// What it takes an operator's word for: rows that a checkpoint was moved past by hand count as confirmed, and so do rows that a session
// hid from the binlog (sql_log_bin=0). Rows that START=latest passed over are left alone, by their created_at. A relay of another name that reads the same table is not waited
// for: its binlog has the events, and only its repair or snapshot would miss them.
package retention

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
)

// Off is the value of RETENTION that deletes nothing.
const Off time.Duration = -1

// Parse reads RETENTION: how long a row is kept after its created_at, 0 to delete it as soon as its event is confirmed, or off.
func Parse(text string) (time.Duration, error) {
	if strings.EqualFold(text, "off") {
		return Off, nil
	}
	keep, err := time.ParseDuration(text)
	if err != nil || keep < 0 {
		return 0, fmt.Errorf("RETENTION: %q is not a duration such as 24h, 0 (delete what is confirmed) or off", text)
	}
	return keep, nil
}

// Source marks the end of the binlog and tells when a checkpoint has passed a mark. It is *binlog.Reader.
type Source interface {
	Mark(ctx context.Context, conn *sql.Conn) (binlog.Mark, error)
	Passed(checkpoint relay.Position, m binlog.Mark) (bool, error)
}

var _ Source = (*binlog.Reader)(nil)

// Config of a Sweeper. All fields are needed.
type Config struct {
	// DB is a pool on the source, for the sweeper alone.
	DB *sql.DB
	// Outbox is the table.
	Outbox binlog.Table
	// User is who DB connects as, for the statement that mends a missing right.
	User string
	// Keep is how long rows are kept.
	Keep time.Duration
	// Source is the relay's reader.
	Source Source
	// Checkpoint is the checkpoint that was saved last; false when this process does not lead.
	Checkpoint func() (saved relay.Position, leading bool)
	// Held tells which events are in quarantine.
	Held func(ctx context.Context, eventIDs []string) (map[string]bool, error)
	Log  *zap.Logger
}

// Sizes and times. A sweep rests after each batch for as long as that took, so that it takes at most half of what one
// connection can do.
const (
	markRows    = 5000
	batchRows   = 500
	checkEvery  = 50 * time.Millisecond // while a mark waits
	soonest     = 250 * time.Millisecond
	latest      = time.Minute
	tableMaxAge = time.Minute // what is known of the table
	complain    = 10 * time.Minute
)

// Sweeper deletes what is confirmed and old enough.
type Sweeper struct {
	cfg     Config
	deleted atomic.Uint64

	table    table
	asked    time.Time // when the table was looked at
	from     cursor
	marked   *marked
	swept    relay.Position // checkpoint at the last pass that found nothing more
	sweptAt  time.Time
	said     string // the last complaint, and when
	saidAt   time.Time
	interval time.Duration
}

// New returns a sweeper that has done nothing yet.
func New(cfg Config) *Sweeper {
	return &Sweeper{cfg: cfg, interval: min(max(cfg.Keep/20, soonest), latest)}
}

// Deleted is how many rows were deleted so far.
func (s *Sweeper) Deleted() uint64 { return s.deleted.Load() }

// Run sweeps until ctx ends. What goes wrong is logged and tried again: events go out all the same.
func (s *Sweeper) Run(ctx context.Context) error {
	if s.cfg.Keep == Off {
		<-ctx.Done()
		return nil
	}
	for {
		pause, err := s.step(ctx)
		if err != nil && ctx.Err() == nil {
			s.complain(err)
			s.drop()
			pause = s.interval
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// step does what is due and tells when to look again.
func (s *Sweeper) step(ctx context.Context) (pause time.Duration, err error) {
	saved, leading := s.cfg.Checkpoint()
	if !leading {
		s.drop()
		return s.interval, nil
	}
	if s.marked == nil {
		// Nothing has changed since a pass found nothing: but a row may have come of age, or have come from a clock that is behind.
		if s.cfg.Keep == 0 && saved == s.swept && time.Since(s.sweptAt) < latest {
			return s.interval, nil
		}
		if err := s.mark(ctx, saved); err != nil {
			return 0, err
		}
		if s.marked == nil {
			return s.interval, nil
		}
	}
	passed, err := s.cfg.Source.Passed(saved, s.marked.end)
	if errors.Is(err, binlog.ErrMarkLost) {
		s.drop()
		return s.interval, nil
	}
	if err != nil || !passed {
		return checkEvery, err
	}
	rows := s.marked
	s.marked = nil
	// The first checkpoint of START=latest may have come since.
	if err := s.passOver(rows, saved); err != nil {
		return 0, err
	}
	return 0, s.sweep(ctx, rows)
}

// drop forgets the marks, and begins a new pass.
func (s *Sweeper) drop() { s.marked, s.from = nil, cursor{} }

// complain logs what is wrong, once in a while if it stays the same.
func (s *Sweeper) complain(err error) {
	problem, mend := err.Error(), ""
	if finding, ok := errors.AsType[*finding](err); ok {
		problem, mend = finding.problem, finding.mend
	}
	if problem == s.said && time.Since(s.saidAt) < complain {
		return
	}
	s.said, s.saidAt = problem, time.Now()
	s.cfg.Log.Warn("no outbox rows are deleted", zap.String("problem", problem), zap.String("mend", mend))
}
