package relay_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// schedules is how many seeds are run: SCHEDULES, else 100,000 with COUNT=full, else a tenth.
func schedules(t *testing.T) uint64 {
	t.Helper()
	if text := os.Getenv("SCHEDULES"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		return n
	}
	if os.Getenv("COUNT") == "full" {
		return 100_000
	}
	return 10_000
}

// simulate runs one schedule, and gives the violation of an invariant, if there was one.
func simulate(seed uint64) (*world, error) {
	w := newWorld(seed)
	for range 12 {
		w.run(w.between(0, 4*time.Second))
		w.trouble()
	}
	w.calm = true
	for _, p := range w.processes {
		p.cut, p.stopping = false, false
	}
	w.run(10 * simTTL)
	switch {
	case w.wrong != nil:
		return w, w.wrong
	case w.queue != w.committed:
		return w, fmt.Errorf("%d of %d rows have arrived, long after the last fault", w.queue, w.committed)
	case w.place != w.committed:
		return w, fmt.Errorf("the checkpoint is behind row %d of %d, long after the last fault", w.place, w.committed)
	}
	return w, nil
}

// TestTwoInstancesKeepTheInvariantsInEverySchedule: SEED=n runs one schedule alone.
func TestTwoInstancesKeepTheInvariantsInEverySchedule(t *testing.T) {
	t.Parallel()
	if text := os.Getenv("SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		_, err = simulate(seed)
		require.NoError(t, err)
		return
	}
	n := schedules(t)
	var next atomic.Uint64
	var mu sync.Mutex
	var all felt
	var group errgroup.Group
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			var mine felt
			for seed := next.Add(1); seed <= n; seed = next.Add(1) {
				w, err := simulate(seed)
				if err != nil {
					return fmt.Errorf("SEED=%d go test -run %s ./cdc/relay: %w", seed, t.Name(), err)
				}
				mine.add(w.felt)
			}
			mu.Lock()
			defer mu.Unlock()
			all.add(mine)
			return nil
		})
	}
	require.NoError(t, group.Wait())
	t.Logf("%d schedules: %+v", n, all)
	for what, count := range map[string]int{"takeovers": all.takeovers, "fenced calls": all.fenced, "calls applied late": all.late,
		"frozen processes": all.frozen, "duplicates": all.duplicates} {
		require.Positive(t, count, "the schedules had no %s", what)
	}
}

// TestPlantedBugsAreFound: the simulation finds each bug that a build tag plants within 100 schedules.
func TestPlantedBugsAreFound(t *testing.T) {
	t.Parallel()
	if planted {
		return // this is the run that has to fail
	}
	for _, bug := range []struct{ tag, says string }{
		{"planted_unfenced", "changed the row that epoch"},
		{"planted_unconfirmed", "the checkpoint has passed row"},
		{"planted_wallclock", "could still send"},
	} {
		t.Run(bug.tag, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-tags", bug.tag,
				"-run", "TestTwoInstancesKeepTheInvariantsInEverySchedule", ".")
			cmd.Env = append(os.Environ(), "SCHEDULES=100")
			out, err := cmd.CombinedOutput()
			var failed *exec.ExitError
			require.ErrorAs(t, err, &failed, "%s", out)
			require.True(t, bytes.Contains(out, []byte(bug.says)), "%s", out)
		})
	}
}
