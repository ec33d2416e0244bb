package console

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// latencies counts how long events took from commit to confirm since they were taken last. To count one costs one atomic
// addition, because that happens on the relay's own goroutine.
//
// The buckets are microseconds: eight to each power of two, so that what is read from them is at most a sixteenth off.
type latencies struct{ counts [latencyBuckets]atomic.Uint64 }

const (
	latencyBits    = 3  // of precision behind the leading one
	latencyPowers  = 42 // 2^42 µs are 50 days
	latencyBuckets = (latencyPowers - latencyBits + 1) << latencyBits
)

func (l *latencies) observe(d time.Duration) { l.counts[latencyBucket(d)].Add(1) }

func latencyBucket(d time.Duration) int {
	us := uint64(max(0, d.Microseconds()))
	if us < 1<<latencyBits {
		return int(us)
	}
	shift := bits.Len64(us) - 1 - latencyBits
	return min((shift+1)<<latencyBits+int(us>>shift)&(1<<latencyBits-1), latencyBuckets-1)
}

// latencyOf is the middle of a bucket, in seconds.
func latencyOf(bucket int) float64 {
	if bucket < 1<<latencyBits {
		return float64(bucket) / 1e6
	}
	shift := bucket>>latencyBits - 1
	low := uint64(1<<latencyBits+bucket&(1<<latencyBits-1)) << shift
	return (float64(low) + float64(uint64(1)<<shift)/2) / 1e6
}

// take gives the median and the 99th percentile in seconds, NaN when no event was counted, and begins anew.
func (l *latencies) take() (p50, p99 float64) {
	var counts [latencyBuckets]uint64
	var total uint64
	for i := range l.counts {
		if l.counts[i].Load() > 0 { // a load is cheaper than a swap, and most are zero
			counts[i] = l.counts[i].Swap(0)
			total += counts[i]
		}
	}
	if total == 0 {
		return math.NaN(), math.NaN()
	}
	at := func(q float64) float64 {
		rank := uint64(math.Ceil(q * float64(total)))
		for i, n := range counts {
			if n >= rank {
				return latencyOf(i)
			}
			rank -= n
		}
		return latencyOf(latencyBuckets - 1)
	}
	return at(0.5), at(0.99)
}
