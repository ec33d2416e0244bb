package binlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"tailbox/cdc/relay"
)

// Locate finds the place that a target names, and makes sure that the server can stream from it. It changes nothing. A
// *TargetError says what is wrong with the target; any other error says that the server could not be asked.
func (r *Reader) Locate(ctx context.Context, target Target) (relay.Position, error) {
	if target.Snapshot {
		return relay.Position{Snapshot: true}, nil
	}
	s, err := r.inspect(ctx, r.cfg.DB)
	if err != nil {
		return relay.Position{}, err
	}
	files, err := binlogFiles(ctx, r.cfg.DB)
	if err != nil {
		return relay.Position{}, err
	}
	if len(files) == 0 {
		return relay.Position{}, &TargetError{"the server lists no binlog files"}
	}

	var to relay.Position
	switch {
	case target.File != "":
		to, err = r.locateOffset(ctx, s, files, target.File, target.Pos)
	case !target.Time.IsZero():
		to, err = r.locateTime(ctx, s, files, target.Time)
	default:
		to, err = r.locateSet(ctx, s, files, target.GTIDSet)
	}
	if err == nil {
		_, err = r.second(r.cfg.Outbox).tryPlace(ctx, to)
	}
	if halt := (*relay.Halt)(nil); errors.As(err, &halt) {
		err = &TargetError{"the server cannot stream from there: " + halt.Err.Error()}
	}
	return to, err
}

// locateSet checks purged ⊆ set ⊆ executed, and finds the file in which the first transaction behind the set is.
func (r *Reader) locateSet(ctx context.Context, s *server, files []binlogFile, text string) (relay.Position, error) {
	if !s.gtid {
		return relay.Position{}, &TargetError{"the server has no GTIDs: give a file and an offset, or a time"}
	}
	want, err := parseGTIDSet(s.flavor, strings.Join(strings.Fields(text), ""))
	if err != nil {
		return relay.Position{}, &TargetError{fmt.Sprintf("the GTID set is not one of %s's: write it as gtid_set of GET /position has it", s.flavor)}
	}
	executed, err := s.executed(ctx, r.cfg.DB)
	if err != nil {
		return relay.Position{}, err
	}
	have, err := parseGTIDSet(s.flavor, executed)
	if err != nil {
		return relay.Position{}, err
	}
	if !have.set.Contain(want.set) {
		return relay.Position{}, &TargetError{"the GTID set has transactions that the server has not; it has executed " + executed}
	}
	first, err := s.setBefore(ctx, r.cfg.DB, files[0].Name)
	if err != nil {
		return relay.Position{}, err
	}
	if !want.set.Contain(first.set) {
		return relay.Position{}, &TargetError{"the server has purged transactions that the GTID set does not have: the earliest place left is " +
			quoteSet(first) + "; a snapshot sends what the outbox still holds"}
	}
	// Of the files that begin within the set, the last: the files before it hold nothing that is not in the set.
	var asked error
	after := sort.Search(len(files), func(i int) bool {
		before, err := s.setBefore(ctx, r.cfg.DB, files[i].Name)
		asked = errors.Join(asked, err)
		return err == nil && !want.set.Contain(before.set)
	})
	if asked != nil {
		return relay.Position{}, asked
	}
	return relay.Position{Flavor: s.flavor, ServerUUID: s.uuid, GTID: true, GTIDSet: want.String(), File: files[max(0, after-1)].Name, Pos: 4}, nil
}

// quoteSet is a set for people, who cannot see an empty one.
func quoteSet(set gtidSet) string {
	if text := set.String(); text != "" {
		return text
	}
	return `""`
}

// locateOffset finds the end of the last transaction at or before an offset, which must not lie inside one.
func (r *Reader) locateOffset(ctx context.Context, s *server, files []binlogFile, name string, pos uint64) (relay.Position, error) {
	at := slices.IndexFunc(files, func(f binlogFile) bool { return f.Name == name })
	switch {
	case at < 0:
		return relay.Position{}, &TargetError{fmt.Sprintf("the server has no binlog file %q; it has %s to %s", name, files[0].Name, files[len(files)-1].Name)}
	case pos < 4 || pos > files[at].Size:
		return relay.Position{}, &TargetError{fmt.Sprintf("offset %d is not in %s, which reaches from 4 to %d", pos, name, files[at].Size)}
	}
	var inside error
	place, err := r.walk(ctx, s, files[at], func(t passage) bool {
		if t.begin < pos && pos < t.end {
			inside = &TargetError{fmt.Sprintf("offset %d lies inside a transaction of %s, which reaches from %d to %d: give one of these", pos, name, t.begin, t.end)}
		}
		return t.end <= pos
	})
	return place, errors.Join(err, inside)
}

// locateTime finds the place before the first transaction that was, or may have been, committed at or after a time. Servers
// do not number time: where transactions stand in the binlog in another order than their times, the place is before the
// first of them that is late enough.
func (r *Reader) locateTime(ctx context.Context, s *server, files []binlogFile, at time.Time) (relay.Position, error) {
	// The last file whose first transaction is too early.
	var asked error
	after := sort.Search(len(files), func(i int) bool {
		first, found, err := r.firstCommit(ctx, s, files[i])
		asked = errors.Join(asked, err)
		return found && !first.Before(at)
	})
	if asked != nil {
		return relay.Position{}, asked
	}
	if after == 0 {
		return r.beginning(ctx, s, files[0])
	}
	// A file without a transaction, or without one late enough, is passed.
	var place relay.Position
	for _, f := range files[after-1:] {
		late := false
		var err error
		place, err = r.walk(ctx, s, f, func(t passage) bool {
			late = !t.committed().Before(at)
			return !late
		})
		if err != nil || late {
			return place, err
		}
	}
	return place, nil
}

// beginning is the place for a time before the oldest transaction that the server still has: only a binlog that nothing was
// purged from has all that was committed since.
func (r *Reader) beginning(ctx context.Context, s *server, oldest binlogFile) (relay.Position, error) {
	if !strings.HasSuffix(oldest.Name, ".000001") {
		first, _, err := r.firstCommit(ctx, s, oldest)
		if err != nil {
			return relay.Position{}, err
		}
		return relay.Position{}, &TargetError{fmt.Sprintf("the server has purged what was committed then: the earliest time left is %s; "+
			"a snapshot sends what the outbox still holds", first.UTC().Format(time.RFC3339Nano))}
	}
	return r.walk(ctx, s, oldest, func(passage) bool { return false })
}

// firstCommit is when the first transaction of a file was committed, at the latest; found is false for a file without one.
func (r *Reader) firstCommit(ctx context.Context, s *server, f binlogFile) (at time.Time, found bool, err error) {
	_, err = r.walk(ctx, s, f, func(t passage) bool {
		at, found = t.committed(), true
		return false
	})
	return at, found, err
}
