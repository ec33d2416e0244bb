package binlog

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// thread is a dump thread of ours on a server. It ends by itself when it next writes to a link that was cut; on a link that
// is dead it may not for a quarter of an hour, and each reconnect would leave one more.
type thread struct {
	server string // uuid
	id     uint32 // of its connection; 0 for none
	began  time.Time
}

// endThread ends the thread of the stream before, if it is still there. A user may end its own threads without a further
// right.
func (r *Reader) endThread(ctx context.Context, s *server) error {
	last := r.thread
	r.thread = thread{}
	if last.id == 0 || last.server != s.uuid {
		return nil
	}
	// A server that was started again gives the same numbers to others.
	status, err := firstRow(ctx, s.q, "SHOW GLOBAL STATUS LIKE 'Uptime'")
	if err != nil {
		return fmt.Errorf("ask how long the server runs: %w", err)
	}
	uptime, err := strconv.ParseUint(status["value"], 10, 32)
	if err != nil || time.Duration(uptime)*time.Second < time.Since(last.began) {
		return nil //nolint:nilerr // whoever has that number, it is not ours
	}
	processes, err := allRows(ctx, s.q, "SHOW PROCESSLIST")
	if err != nil {
		return fmt.Errorf("list our threads: %w", err)
	}
	for _, process := range processes {
		if process["id"] != strconv.FormatUint(uint64(last.id), 10) || !strings.HasPrefix(process["command"], "Binlog Dump") {
			continue
		}
		if _, err := s.q.ExecContext(ctx, "KILL "+process["id"]); err != nil && !isNumber(err, noSuchThread) {
			return fmt.Errorf("end the dump thread of the stream before: %w", err)
		}
	}
	return nil
}

const noSuchThread = 1094
