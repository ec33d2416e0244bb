package stack_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/stack"
)

// lines collects what a process writes, and remembers every write that was not one whole line.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
	torn []string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if bytes.Count(b, []byte("\n")) != 1 || b[len(b)-1] != '\n' {
		l.torn = append(l.torn, string(b))
	}
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// shell runs a script and kills it when the test ends.
func shell(t *testing.T, script string, cmd stack.Command) (*stack.Process, *lines) {
	t.Helper()
	out := &lines{}
	cmd.Name, cmd.Path, cmd.Args, cmd.Output = "script", "sh", []string{"-c", script}, out
	p, err := stack.Start(cmd)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Kill()) })
	return p, out
}

// says waits until the output has the text.
func says(t *testing.T, out *lines, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(out.String(), text) }, 10*time.Second, time.Millisecond)
}

// gone waits until there is no process of that id, or only its remains that its new parent has not collected.
func gone(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		return err != nil || strings.Contains(string(stat), ") Z ")
	}, 10*time.Second, time.Millisecond)
}

func TestOutputComesInWholeLines(t *testing.T) {
	t.Parallel()
	p, out := shell(t, `printf 'a\nb'; printf 'c\n' >&2; seq 1 1000; printf 'no end'`, stack.Command{})
	require.NoError(t, p.Wait(t.Context()))
	require.Empty(t, out.torn)
	require.True(t, strings.HasPrefix(out.String(), "a\nbc\n1\n2\n"), out.String())
	require.True(t, strings.HasSuffix(out.String(), "1000\nno end\n"), out.String())
	require.Zero(t, p.ExitCode())
}

func TestStopAsksThenKills(t *testing.T) {
	t.Parallel()
	polite, out := shell(t, `trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done`, stack.Command{})
	says(t, out, "ready")
	require.Equal(t, -1, polite.ExitCode())
	require.NoError(t, polite.Pause())
	require.NoError(t, polite.Stop(t.Context()), "a paused process hears the request")
	require.Equal(t, 7, polite.ExitCode())
	require.NoError(t, polite.Stop(t.Context()), "a second stop")
	require.ErrorIs(t, polite.Signal(syscall.SIGHUP), os.ErrProcessDone)

	deaf, out := shell(t, `trap '' TERM; echo ready; while :; do sleep 0.01; done`, stack.Command{Grace: 50 * time.Millisecond})
	says(t, out, "ready")
	require.ErrorContains(t, deaf.Stop(t.Context()), "killed")
	require.Equal(t, 128+int(syscall.SIGKILL), deaf.ExitCode())
}

func TestPauseHoldsUntilResume(t *testing.T) {
	t.Parallel()
	p, out := shell(t, `i=0; while :; do i=$((i+1)); echo $i; done`, stack.Command{})
	says(t, out, "10\n")
	require.NoError(t, p.Pause())
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.Pid()), "stat"))
	require.NoError(t, err)
	require.Contains(t, string(stat), ") T ")
	require.NoError(t, p.Resume())
	n := len(out.String())
	require.Eventually(t, func() bool { return len(out.String()) > n }, 10*time.Second, time.Millisecond)
}

func TestGroupEndsWithItsLeader(t *testing.T) {
	t.Parallel()
	p, out := shell(t, `sleep 1000 & echo "pid $!."; exit 3`, stack.Command{})
	require.NoError(t, p.Wait(t.Context()))
	require.Equal(t, 3, p.ExitCode())
	_, after, _ := strings.Cut(out.String(), "pid ")
	pid, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(after), "."))
	require.NoError(t, err)
	gone(t, pid)
}

func TestStartNamesWhatCannotBeStarted(t *testing.T) {
	t.Parallel()
	_, err := stack.Start(stack.Command{Name: "api", Path: "/no/such/program"})
	require.ErrorContains(t, err, "start api")
	require.ErrorIs(t, err, os.ErrNotExist)
}
