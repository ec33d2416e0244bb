package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAFullDiskOfTheDatabaseIsWaitedOut: the server then answers no commit, and looks again every minute whether there is space.
// Whoever asks is told that it is unavailable, the relay says why it does not lead, and all goes on by itself.
func TestAFullDiskOfTheDatabaseIsWaitedOut(t *testing.T) {
	t.Parallel()
	w := setup(t, option{disk: 400, mysql: []string{"--max-connections=500"}})
	audit := w.audit("#")
	l := w.load(8, 0)
	rounds := 1 // a minute each
	if full() {
		rounds = 3
	}
	for round := range rounds {
		w.recovers("the start, or the round before")
		empty := w.fillDisk()
		w.waitFor("a request that is told so", time.Minute, func() bool {
			_, err := w.post(t.Context(), round)
			if err != nil {
				require.ErrorContains(t, err, `503 {"type":"about:blank"`, "an answer, and not the end of a connection")
				return true
			}
			w.probes++
			return false
		})
		w.waitFor("the relay to say why it does not lead", time.Minute, func() bool {
			p := w.position()
			return p.State == "standby" && p.Reason == "source_unreachable"
		})
		require.ErrorContains(t, w.call(t.Context(), "GET", w.cdc.URL("/readyz"), "", 200, nil), "standby: source_unreachable")
		empty()
		w.waitFor("the server to see that there is space", 2*time.Minute, func() bool {
			_, err := w.post(t.Context(), round)
			return err == nil
		})
		w.probes++
		w.recovers("a full disk")
	}
	accepted := l.stop()
	w.ready(w.api, w.cdc, w.worker)
	events := w.number("SELECT COUNT(*) FROM outbox")
	require.GreaterOrEqual(t, events, accepted+w.probes, "what was accepted is there")
	w.everythingOnce(events)
	w.firstDeliveriesFollowVersions(audit.settled())
}

// mount gives a folder a file system of its own, in memory.
func (w *world) mount(folder string, mebibytes int) {
	w.t.Helper()
	asRoot := func(ctx context.Context, line ...string) {
		if os.Getuid() != 0 {
			line = append([]string{"sudo", "-n"}, line...)
		}
		out, err := exec.CommandContext(ctx, line[0], line[1:]...).CombinedOutput()
		require.NoError(w.t, err, "a small file system takes root, or sudo without a password: %s", out)
	}
	require.NoError(w.t, os.MkdirAll(folder, 0o755))
	asRoot(w.t.Context(), "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm,uid=%d", mebibytes, os.Getuid()), "tmpfs", folder)
	w.t.Cleanup(func() { asRoot(context.Background(), "umount", folder) })
}

// fillDisk takes all space of the database's file system, and returns what gives it back.
func (w *world) fillDisk() (empty func()) {
	w.t.Helper()
	path := filepath.Join(filepath.Dir(w.stack.MySQL.Data()), "ballast")
	f, err := os.Create(path)
	require.NoError(w.t, err)
	defer f.Close()
	for _, size := range []int{1 << 20, 1 << 10, 1} {
		for block := make([]byte, size); err == nil; {
			_, err = f.Write(block)
		}
		require.ErrorIs(w.t, err, syscall.ENOSPC)
		err = nil
	}
	return func() { require.NoError(w.t, os.Remove(path)) }
}
