package stack_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"tailbox/deploy/stack"
)

// A test that must see a whole program die runs this test program again, with one of these in the environment variable
// starterMode and the folder in starterDir.
const (
	starterMode = "STACK_TEST_STARTER"
	starterDir  = "STACK_TEST_DIR"
	attachedRun = "attached"
	detachedRun = "detached"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(starterMode); mode != "" {
		if err := starter(mode == detachedRun, os.Getenv(starterDir)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// starter starts a stack, says so, and then waits to be killed, or ends at once if its servers are to live on.
func starter(detached bool, dir string) error {
	set, err := stack.SetFromEnv()
	if err != nil {
		return err
	}
	s, err := stack.New(context.Background(), stack.Config{Dir: dir, Set: set, Detached: detached})
	if err != nil {
		return err
	}
	if err := s.Start(context.Background()); err != nil {
		return err
	}
	fmt.Println("started")
	if !detached {
		<-s.MySQL.Done()
	}
	return nil
}

// runStarter runs starter in a process of its own and returns when its servers are ready.
func runStarter(t *testing.T, mode, dir string) *stack.Process {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	out := &lines{}
	p, err := stack.Start(stack.Command{
		Name: "starter", Path: self, Output: out,
		Env: append(os.Environ(), starterMode+"="+mode, starterDir+"="+dir),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Kill()) })
	require.Eventually(t, func() bool {
		select {
		case <-p.Done():
			return true
		default:
			return out.String() == "started\n"
		}
	}, 2*time.Minute, 10*time.Millisecond)
	require.Equal(t, "started\n", out.String())
	return p
}

// servers lists the processes of the folder's servers, without the starter, which has the folder in its environment too.
func servers(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	for _, line := range processes(t, dir) {
		self, err := os.Executable()
		require.NoError(t, err)
		if !strings.Contains(line, self) {
			found = append(found, line)
		}
	}
	return found
}

func TestServersDieWithTheirProgram(t *testing.T) {
	dir := t.TempDir()
	starter := runStarter(t, attachedRun, dir)
	require.NotEmpty(t, servers(t, dir))

	_, err := stack.New(t.Context(), config(t, dir))
	require.ErrorIs(t, err, stack.ErrRunning)

	require.NoError(t, starter.Kill())
	require.Eventually(t, func() bool { return len(servers(t, dir)) == 0 }, 10*time.Second, 10*time.Millisecond)
	s := start(t, config(t, dir))
	insert(t, s.MySQL, 1)
	publish(t, s.Rabbit, "/", "again")
	require.NoError(t, s.Kill())
}

func TestDetachedServersOutliveTheirProgram(t *testing.T) {
	dir := t.TempDir()
	_, err := stack.Attach(dir)
	require.ErrorIs(t, err, stack.ErrNotRunning)

	starter := runStarter(t, detachedRun, dir)
	require.NoError(t, starter.Wait(t.Context()))
	require.Zero(t, starter.ExitCode())

	_, err = stack.New(t.Context(), config(t, dir))
	require.ErrorIs(t, err, stack.ErrRunning)

	s, err := stack.Attach(dir)
	require.NoError(t, err)
	require.NotEmpty(t, s.MySQL.Version())
	insert(t, s.MySQL, 1)
	publish(t, s.Rabbit, "/", "hello")
	_, err = s.Rabbit.Ctl(t.Context(), "list_vhosts")
	require.NoError(t, err)

	// As if the database had not been meant to live on: the next program in that folder ends it.
	record := dir + "/mysql/server.json"
	text, err := os.ReadFile(record)
	require.NoError(t, err)
	text = bytes.Replace(text, []byte(`"detached": true`), []byte(`"detached": false`), 1)
	require.NoError(t, os.WriteFile(record, text, 0o644))
	m, err := stack.NewMySQL(t.Context(), config(t, dir))
	require.NoError(t, err)
	<-s.MySQL.Done()
	require.NoError(t, m.Start(t.Context()))
	require.Equal(t, 1, rows(t, m))
	throwAway(t, m.Server)

	begin := time.Now()
	require.NoError(t, s.Stop(t.Context()))
	t.Logf("stopped after %v", time.Since(begin))
	require.Empty(t, servers(t, dir))
	_, err = stack.Attach(dir)
	require.ErrorIs(t, err, stack.ErrNotRunning)
}

func TestCleanEndsWhatRunsBelow(t *testing.T) {
	base := t.TempDir()
	require.NoError(t, stack.Clean(t.Context(), base), "nothing there")
	cfg := config(t, base+"/deep/down")
	cfg.Detached = true
	m, err := stack.NewMySQL(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Stop(context.Background())) })
	require.NoError(t, m.Start(t.Context()))

	require.NoError(t, stack.Clean(t.Context(), base))
	<-m.Done()
	require.Empty(t, processes(t, base))
	require.NoError(t, stack.Clean(t.Context(), base), "a second time")
}
