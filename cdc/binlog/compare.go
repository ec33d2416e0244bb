package binlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tailbox/cdc/relay"
)

const (
	compareLook  = 5 * time.Millisecond
	compareTable = 1_000_000 // rows of the table that are counted at most

	comparePatience = time.Second // for a server that counts as executed what it has already sent
)

// Compare tells what it means that a relay which has confirmed all up to one place goes on from another. Each of the two
// counts may take that long; what it has come to by then is at least so many.
func (r *Reader) Compare(ctx context.Context, from, to relay.Position, within time.Duration) (Difference, error) {
	s, err := r.inspect(ctx, r.cfg.DB)
	if err != nil {
		return Difference{}, err
	}
	var d Difference
	switch here, err := r.inHistory(ctx, s, from); {
	case err != nil:
		return Difference{}, err
	case !here: // nothing can be counted from there
		d.Again.AtLeast, d.Skipped.AtLeast = true, true
	case to.Snapshot:
		if d.Skipped, err = r.onlyInBinlog(ctx, s, from, within); err != nil {
			return Difference{}, fmt.Errorf("count what would be skipped: %w", err)
		}
	}
	if to.Snapshot {
		d.Again, err = r.countTable(ctx)
		return d, err
	}
	if d.Skipped.AtLeast {
		return d, nil
	}
	files, err := binlogFiles(ctx, r.cfg.DB)
	if err != nil {
		return Difference{}, err
	}
	if d.Again, err = r.between(ctx, s, files, to, from, within); err != nil {
		return Difference{}, fmt.Errorf("count what would come again: %w", err)
	}
	if d.Skipped, err = r.between(ctx, s, files, from, to, within); err != nil {
		return Difference{}, fmt.Errorf("count what would be skipped: %w", err)
	}
	return d, nil
}

// inHistory tells whether a place is one of this server, and not of another history, in which files, offsets and GTIDs meant
// something else. What is behind it may be purged.
func (r *Reader) inHistory(ctx context.Context, s *server, p relay.Position) (bool, error) {
	if p.Flavor != s.flavor || p.GTID != s.gtid || !s.gtid && p.ServerUUID != s.uuid {
		return false, nil
	}
	err := r.second(r.cfg.Outbox).validate(ctx, s, p, comparePatience)
	if halt, ok := errors.AsType[*relay.Halt](err); ok {
		return halt.Reason == relay.BinlogPurged, nil
	}
	return err == nil, err
}

func (r *Reader) countTable(ctx context.Context) (Count, error) {
	var rows uint64
	query := fmt.Sprintf("SELECT COUNT(*) FROM (SELECT 1 FROM %s LIMIT %d) some", r.cfg.Outbox.Quoted(), compareTable+1)
	if err := r.cfg.DB.QueryRowContext(ctx, query).Scan(&rows); err != nil {
		return Count{}, fmt.Errorf("count the outbox table: %w", err)
	}
	return Count{Rows: min(rows, compareTable), AtLeast: rows > compareTable}, nil
}

// between counts the outbox rows that are behind one place and not behind another.
func (r *Reader) between(ctx context.Context, s *server, files []binlogFile, start, until relay.Position, within time.Duration) (Count, error) {
	goal, err := newGoal(s, files, start, until)
	if err != nil {
		return Count{}, err
	}
	if goal.reached(start) {
		return Count{Rows: goal.rest}, nil
	}
	var rows uint64
	whole, err := r.readUpTo(ctx, goal, start, within, func(relay.Row) error { rows++; return nil })
	if whole {
		rows += goal.rest
	}
	return Count{Rows: rows, AtLeast: !whole}, err
}

// readUpTo gives the rows from a place to a goal to each. It reads the binlog as the relay itself does, by a reader of its own,
// for a limited time, and tells whether it came to the goal.
func (r *Reader) readUpTo(ctx context.Context, goal *goal, start relay.Position, within time.Duration, each func(relay.Row) error) (whole bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	scratch := r.second(r.cfg.Outbox)
	scratch.Begin(start)
	var looking sync.WaitGroup
	arrived := false
	looking.Go(func() {
		arrived = goal.wait(bounded, scratch)
		cancel()
	})
	err = scratch.Stream(bounded, func(row relay.Row) error {
		if goal.before(row.Position) {
			return each(row)
		}
		return nil
	})
	cut := bounded.Err() != nil // by the time, by the caller, or by having arrived
	cancel()
	looking.Wait()
	switch halt := (*relay.Halt)(nil); {
	case arrived:
		return true, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case cut, errors.As(err, &halt): // no more can be read, and nobody knows how much there is
		return false, nil
	}
	return false, err
}

// goal is the place up to which rows are counted.
type goal struct {
	server *server
	files  []binlogFile
	at     relay.Position
	set    gtidSet
	rest   uint64 // rows of the transaction behind it that count, too: the place lies inside of that one

	name   string // of the transaction that was asked for last
	within bool
}

func newGoal(s *server, files []binlogFile, start, until relay.Position) (*goal, error) {
	g := &goal{server: s, files: files, at: until}
	if s.gtid {
		var err error
		if g.set, err = parseGTIDSet(s.flavor, until.GTIDSet); err != nil {
			return nil, err
		}
	}
	if until.SkipRows == 0 {
		return g, nil
	}
	same := start.SkipGTID == until.SkipGTID && (s.gtid || start.File == until.File && start.Pos == until.Pos)
	switch passed, err := g.holds(start, until.SkipGTID); {
	case err != nil:
		return nil, err
	case same && start.SkipRows > 0:
		g.rest = until.SkipRows - min(start.SkipRows, until.SkipRows)
	case !passed:
		g.rest = until.SkipRows
	}
	return g, nil
}

// holds tells whether a place has passed the transaction that the goal lies in.
func (g *goal) holds(start relay.Position, name string) (bool, error) {
	if !g.server.gtid {
		return g.order(start.File) > g.order(g.at.File) || start.File == g.at.File && start.Pos > g.at.Pos, nil
	}
	set, err := parseGTIDSet(g.server.flavor, start.GTIDSet)
	if err != nil {
		return false, err
	}
	one, err := parseGTIDSet(g.server.flavor, name)
	if err != nil {
		return false, err
	}
	return set.set.Contain(one.set), nil
}

func (g *goal) order(file string) int {
	return slices.IndexFunc(g.files, func(f binlogFile) bool { return f.Name == file })
}

// reached tells whether a place is at the goal or behind it.
func (g *goal) reached(p relay.Position) bool {
	if g.server.gtid {
		set, err := parseGTIDSet(g.server.flavor, p.GTIDSet)
		return err == nil && set.set.Contain(g.set.set)
	}
	file, end := g.order(p.File), g.order(g.at.File)
	return file > end || file == end && p.Pos >= g.at.Pos
}

// before tells whether the transaction of that name is before the goal.
func (g *goal) before(name string) bool {
	if name == g.name {
		return g.within
	}
	g.name = name
	if g.server.gtid {
		one, err := parseGTIDSet(g.server.flavor, name)
		g.within = err == nil && g.set.set.Contain(one.set)
		return g.within
	}
	file, offset, _ := strings.Cut(name, ":")
	pos, err := strconv.ParseUint(offset, 10, 64)
	at, end := g.order(file), g.order(g.at.File)
	g.within = err == nil && (at < end || at == end && pos < g.at.Pos)
	return g.within
}

// wait looks again and again how far a reader has come, until it is at the goal (true) or ctx ends.
func (g *goal) wait(ctx context.Context, scratch *Reader) bool {
	ticker := time.NewTicker(compareLook)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
			if place := scratch.Read().Position; !place.IsZero() && g.reached(place) {
				return true
			}
		}
	}
}
