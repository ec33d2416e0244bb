package binlog

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"tailbox/cdc/relay"
)

// Survey is what the source server said last of itself and of its binlog.
type Survey struct {
	At      time.Time // when it said so; zero before the first answer
	Flavor  string
	Version string
	UUID    string
	GTID    bool
	GTIDSet string // all that it has executed
	Files   []binlogFile
	Expiry  time.Duration // age at which it purges a file; 0 when it does not

	number    string    // server_id
	inspected time.Time // when all but GTIDSet and Files was asked for
}

// Add appends a file to those that the server has.
func (s *Survey) Add(name string, size uint64) { s.Files = append(s.Files, binlogFile{name, size}) }

// End is the end of the server's binlog.
func (s Survey) End() (file string, pos uint64) {
	if len(s.Files) == 0 {
		return "", 0
	}
	last := s.Files[len(s.Files)-1]
	return last.Name, last.Size
}

// Oldest is the oldest binlog file that the server still has.
func (s Survey) Oldest() string {
	if len(s.Files) == 0 {
		return ""
	}
	return s.Files[0].Name
}

// Runway is how far a place is from the end of the binlog and from being purged.
type Runway struct {
	// Known is false when the server has not answered, there is no place yet, or its file is another server's.
	Known bool
	// ToEnd are the bytes from the place to the end, and ToPurge those from the beginning of the oldest file to the place.
	// Both are 0 when the server no longer has the place's file.
	ToEnd, ToPurge uint64
	// Expires is when the server may purge the place's file for its age. It is zero when that is not known, when the server
	// does not do so, and while the file is the newest, which is never purged.
	Expires time.Time
}

// Runway measures along the server's files. Files are purged whole, from the oldest on.
func (s Survey) Runway(p relay.Position) (r Runway) {
	if s.At.IsZero() || p.File == "" || p.ServerUUID != s.UUID {
		return r
	}
	r.Known = true
	at := slices.IndexFunc(s.Files, func(f binlogFile) bool { return f.Name == p.File })
	if at < 0 {
		return r
	}
	for _, f := range s.Files[:at] {
		r.ToPurge += f.Size
	}
	size := s.Files[at].Size
	r.ToPurge += min(p.Pos, size)
	r.ToEnd = size - min(p.Pos, size)
	for _, f := range s.Files[at+1:] {
		r.ToEnd += f.Size
	}
	// The age of a file counts from the last write to it, which was not before what it has before the place.
	if s.Expiry > 0 && at < len(s.Files)-1 && !p.CommittedAt.IsZero() {
		r.Expires = p.CommittedAt.Add(s.Expiry)
	}
	return r
}

// Surveyor asks the source server every interval, so that who wants to know gets an answer at once, whatever the server
// does.
type Surveyor struct {
	reader   *Reader
	interval time.Duration
	mu       sync.Mutex
	last     Survey
}

// NewSurveyor returns a surveyor that has not asked yet.
func NewSurveyor(reader *Reader, interval time.Duration) *Surveyor {
	return &Surveyor{reader: reader, interval: interval}
}

// Last is the newest survey.
func (s *Surveyor) Last() Survey {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// Run asks until ctx ends. A server that does not answer leaves the last answer standing; its age tells.
func (s *Surveyor) Run(ctx context.Context) error {
	ticker := time.NewTicker(s.interval)
	defer ticker.Stop()
	for {
		if survey, err := s.ask(ctx); err == nil {
			s.mu.Lock()
			s.last = survey
			s.mu.Unlock()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// inspectionAge is how old an answer may be about what hardly ever changes in a server.
const inspectionAge = time.Minute

// ask puts all questions on one connection: of a pool's others, some may lead to the server before a failover.
func (s *Surveyor) ask(ctx context.Context) (Survey, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := s.reader.cfg.DB.Conn(ctx)
	if err != nil {
		return Survey{}, fmt.Errorf("connect to the source: %w", err)
	}
	defer conn.Close()
	last := s.Last()
	var version, number string
	if err := conn.QueryRowContext(ctx, "SELECT VERSION(), @@GLOBAL.server_id").Scan(&version, &number); err != nil {
		return Survey{}, fmt.Errorf("ask which server it is: %w", err)
	}
	if version != last.Version || number != last.number || time.Since(last.inspected) > inspectionAge {
		server, err := s.reader.inspect(ctx, conn)
		if err != nil {
			return Survey{}, err
		}
		last = Survey{Flavor: server.flavor, Version: version, UUID: server.uuid, GTID: server.gtid, Expiry: server.expiry(),
			number: number, inspected: time.Now()}
	}
	if last.Files, err = binlogFiles(ctx, conn); err != nil {
		return Survey{}, err
	}
	if last.GTID {
		if last.GTIDSet, err = (&server{flavor: last.Flavor}).executed(ctx, conn); err != nil {
			return Survey{}, err
		}
	}
	last.At = time.Now()
	return last, nil
}
