package binlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
)

// errElsewhere ends a stream because the address leads, or led for a moment, to another server. The next one begins anew: by
// GTID it goes on there, without GTIDs it halts.
var errElsewhere = errors.New("the address leads to more than one server")

// sameAs makes sure that the dump comes from the server that was asked whether it is fit: behind one address, two may answer.
func (s *server) sameAs(c *client.Conn) error {
	answer, err := c.Execute("SELECT " + s.identity)
	if err != nil {
		return err
	}
	uuid, err := answer.GetString(0, 0)
	if err != nil {
		return err
	}
	return s.answered(uuid, "as the source")
}

// holdsTable makes sure of the same for the connection that reads the outbox table.
func (s *server) holdsTable(ctx context.Context, q queryer) error {
	var uuid string
	if err := q.QueryRowContext(ctx, "SELECT "+s.identity).Scan(&uuid); err != nil {
		return fmt.Errorf("ask for the server's identity: %w", err)
	}
	return s.answered(uuid, "for the outbox table")
}

func (s *server) answered(uuid, what string) error {
	if uuid == s.uuid {
		return nil
	}
	return fmt.Errorf("%w: the server %s was asked whether it is fit, and %s answered %s", errElsewhere, s.uuid, uuid, what)
}

// whileHere runs a stream for as long as the address leads to its server. After a failover by name the connections to the old
// server may stay open: it would be read on, in silence, while the new one is written to.
func (r *Reader) whileHere(ctx context.Context, s *server, stream func(context.Context) error) error {
	here, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	var watching sync.WaitGroup
	watching.Go(func() {
		ticker := time.NewTicker(r.cfg.Recheck)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
			case <-here.Done():
				return
			}
			if err := r.lookWhere(here, s); err != nil {
				leave(err)
				return
			}
		}
	})
	err := stream(here)
	left := context.Cause(here)
	leave(nil)
	watching.Wait()
	if ctx.Err() == nil && errors.Is(left, errElsewhere) {
		return left
	}
	return err
}

// lookWhere asks by a new connection which server the address leads to. Whether one can be reached at all, the stream finds
// out itself.
func (r *Reader) lookWhere(ctx context.Context, s *server) error {
	db, err := r.questions()
	if err != nil {
		return nil //nolint:nilerr // the stream has begun by the same settings
	}
	defer db.Close()
	var uuid string
	if err := db.QueryRowContext(ctx, "SELECT "+s.identity).Scan(&uuid); err != nil || uuid == s.uuid {
		return nil //nolint:nilerr // see above
	}
	return fmt.Errorf("%w: %s was read, and %s answers now", errElsewhere, s.uuid, uuid)
}
