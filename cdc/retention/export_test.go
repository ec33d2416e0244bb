package retention

import (
	"context"
	"time"
)

// Step does what is due, as Run does again and again, and tells whether marks wait after it.
func (s *Sweeper) Step(ctx context.Context) (waiting bool, err error) {
	_, err = s.step(ctx)
	return s.marked != nil, err
}

// Interval makes the sweeper look at the table so often.
func (s *Sweeper) Interval(d time.Duration) { s.interval = d }
