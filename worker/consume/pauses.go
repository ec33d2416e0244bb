package consume

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

// newPauses gives pauses with full jitter: each is drawn evenly from zero up to a bound that doubles from first to most.
func newPauses(first, most time.Duration) *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval:     first / 2, // drawn from the interval ± all of it
		MaxInterval:         most / 2,
		Multiplier:          2,
		RandomizationFactor: 1,
	}
}

// sleepEither is sleep that either of two can cut short.
func sleepEither(d time.Duration, cut, or <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-cut:
		return false
	case <-or:
		return false
	case <-timer.C:
		return true
	}
}

// sleep waits, and tells whether it was not cut short.
func sleep(d time.Duration, cut <-chan struct{}) bool { return sleepEither(d, cut, nil) }
