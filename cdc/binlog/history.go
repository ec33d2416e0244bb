package binlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"tailbox/cdc/relay"
)

// validateHistory checks that the server's binlog is the one that the place was in. After a RESET the same names of files,
// offsets and GTIDs come again and mean something else, so none of them tells; when the server began the file does, to the second.
func (r *Reader) validateHistory(ctx context.Context, s *server, from relay.Position) error {
	if from.File == "" || from.ServerUUID != s.uuid {
		return nil // the file is another server's: GTIDs alone say something
	}
	files, err := binlogFiles(ctx, s.q)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.Name == from.File {
			return r.validateOffset(ctx, s, from, f.Size)
		}
	}
	switch {
	case len(files) > 0 && after(from.File, files[len(files)-1].Name):
		return begunAnew(from.File)
	case !s.gtid:
		return relay.Haltf(relay.BinlogPurged, "the server no longer has the file %s of the checkpoint: %s", from.File, startAnew)
	}
	return nil // whether anything behind the place was in it, GTIDs say
}

// validateOffset checks a place whose file is there.
func (r *Reader) validateOffset(ctx context.Context, s *server, from relay.Position, size uint64) error {
	if !from.FileMade.IsZero() {
		made, err := r.fileMade(ctx, s, from.File)
		if err != nil {
			return err
		}
		if !made.Equal(from.FileMade) {
			return begunAnew(from.File)
		}
	}
	switch {
	case from.Pos <= size:
		return nil
	case from.FileMade.IsZero():
		return relay.Haltf(relay.HistoryReset, "the checkpoint is at %d in %s, which ends at %d: the binlog was reset or cut: %s",
			from.Pos, from.File, size, startAnew)
	}
	return relay.Haltf(relay.SourceBehind, "the checkpoint is at %d in %s, which now ends at %d: the server has lost the end of its binlog, "+
		"in a power failure without sync_binlog=1 or by hand, and maybe transactions whose events were sent; compare the tables with them, "+
		"then start anew", from.Pos, from.File, size)
}

func begunAnew(file string) *relay.Halt {
	return relay.Haltf(relay.HistoryReset, "the server's file %s is not the one of the checkpoint: the binlog was begun anew, by RESET or when "+
		"the server was rebuilt: %s", file, startAnew)
}

func rebuilt() *relay.Halt {
	return relay.Haltf(relay.HistoryReset, "the server knows no transaction of the checkpoint: it was rebuilt from a dump, or its binlog was reset: %s", startAnew)
}

// after tells whether one binlog file comes after another of the same server; false when their names have nothing in common.
func after(name, other string) bool {
	base, number := fileNumber(name)
	otherBase, otherNumber := fileNumber(other)
	return base == otherBase && number > otherNumber
}

func fileNumber(name string) (base string, number uint64) {
	dot := strings.LastIndexByte(name, '.')
	number, err := strconv.ParseUint(name[dot+1:], 10, 64)
	if dot < 0 || err != nil {
		return name, 0
	}
	return name[:dot], number
}

// fileMade asks the server for the first event of a file, which says when it began it. There is no statement that tells.
func (r *Reader) fileMade(ctx context.Context, s *server, file string) (made time.Time, err error) {
	err = r.probe(ctx, s, func(syncer *replication.BinlogSyncer) (*replication.BinlogStreamer, error) {
		return syncer.StartSync(mysql.Position{Name: file, Pos: 4})
	}, func(e *replication.BinlogEvent) bool {
		if e.Header.EventType != replication.FORMAT_DESCRIPTION_EVENT {
			return false
		}
		made = madeAt(e.Header)
		return true
	})
	if err != nil {
		return made, fmt.Errorf("ask when the file %s was begun: %w", file, cut(err)) // no halt: it may just have been purged
	}
	return made, nil
}

func madeAt(header *replication.EventHeader) time.Time {
	return time.Unix(int64(header.Timestamp), 0).UTC()
}

// extent is how much of a place a MariaDB server has logged.
type extent int

const (
	everything extent = iota // that is, at least the last transaction of each domain
	something
	nothing
)

// compareDomains looks for the last transactions of a place, one for each domain, in gtid_binlog_state, which has the last
// one of each domain and server.
func compareDomains(place, logged string) (extent, error) {
	last := map[string]uint64{} // by domain and server
	for text := range gtids(logged) {
		name, number, err := splitGTID(text)
		if err != nil {
			return nothing, err
		}
		last[name] = number
	}
	seen, known, all := 0, 0, 0
	for text := range gtids(place) {
		name, number, err := splitGTID(text)
		if err != nil {
			return nothing, err
		}
		all++
		if number <= last[name] {
			seen++
		}
		if last[name] > 0 {
			known++
		}
	}
	switch {
	case seen == all:
		return everything, nil
	case known == 0:
		return nothing, nil
	}
	return something, nil
}

// onlyFrom tells whether all transactions of a place were made by the server of that number.
func onlyFrom(place, serverID string) bool {
	for text := range gtids(place) {
		if !strings.Contains(text, "-"+serverID+"-") {
			return false
		}
	}
	return place != ""
}

// gtids are the GTIDs of a MariaDB position.
func gtids(list string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for text := range strings.SplitSeq(list, ",") {
			if text = strings.TrimSpace(text); text != "" && !yield(text) {
				return
			}
		}
	}
}

// splitGTID splits domain-server-number behind the server.
func splitGTID(text string) (name string, number uint64, err error) {
	dash := strings.LastIndexByte(text, '-')
	if strings.Count(text, "-") != 2 {
		return "", 0, errors.New("a GTID is not of the form domain-server-number")
	}
	number, err = strconv.ParseUint(text[dash+1:], 10, 64)
	if err != nil {
		return "", 0, errors.New("a GTID is not of the form domain-server-number")
	}
	return text[:dash], number, nil
}
