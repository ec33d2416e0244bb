package binlog

import (
	"context"
	"sync"
	"time"
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

// Distance is how many bytes of binlog lie between the place and the end, and between the oldest file's beginning and
// the place. Both are zero when the place's file is not among the server's.
func (s Survey) Distance(file string, pos uint64) (toEnd, toPurge uint64) {
	found := false
	for _, f := range s.Files {
		switch {
		case f.Name == file:
			found = true
			toEnd += f.Size - min(pos, f.Size)
			toPurge += min(pos, f.Size)
		case found:
			toEnd += f.Size
		default:
			toPurge += f.Size
		}
	}
	if !found {
		return 0, 0
	}
	return toEnd, toPurge
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

func (s *Surveyor) ask(ctx context.Context) (Survey, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	last := s.Last()
	if last.At.IsZero() || time.Since(last.At) > 10*s.interval { // the server may be another one by now
		server, err := s.reader.inspect(ctx, s.reader.cfg.DB)
		if err != nil {
			return Survey{}, err
		}
		last = Survey{Flavor: server.flavor, Version: server.version, UUID: server.uuid, GTID: server.gtid}
	}
	files, err := binlogFiles(ctx, s.reader.cfg.DB)
	if err != nil {
		return Survey{}, err
	}
	last.Files, last.At = files, time.Now()
	if last.GTID {
		if last.GTIDSet, err = (&server{flavor: last.Flavor}).executed(ctx, s.reader.cfg.DB); err != nil {
			return Survey{}, err
		}
	}
	return last, nil
}
