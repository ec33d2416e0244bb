package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// DefaultGrace is how long a stopped process may take to end before it is killed.
const DefaultGrace = 15 * time.Second

// adoptInterval is how often a process of another parent is looked at.
const adoptInterval = 25 * time.Millisecond

// Process is a running command, with a process group of its own. Signals reach the whole group, and what the command
// left running in its group is killed when the command itself ends. All methods may be called at any time from any
// goroutine.
type Process struct {
	name    string
	pid     int
	started string // start time as the system tells it: a pid is only ours together with it
	adopted bool   // not our child: Attach found it
	grace   time.Duration
	done    chan struct{}

	mu sync.Mutex
	// Invariant: once ended is true no signal is sent, because the system may give the pid to somebody else.
	ended bool
	code  int
}

// Start runs the command and returns when it has been started.
func Start(cmd Command) (*Process, error) {
	if cmd.Name == "" {
		cmd.Name = cmd.Path
	}
	if cmd.Grace <= 0 {
		cmd.Grace = DefaultGrace
	}
	p := &Process{name: cmd.Name, grace: cmd.Grace, done: make(chan struct{}), code: -1}
	started := make(chan error, 1)
	go p.run(cmd, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Name, err)
	}
	return p, nil
}

// adopt takes over a process that another one started. There is no exit status to be had, and no end to be waited for:
// it is looked at every adoptInterval until it is gone.
func adopt(name string, pid int, started string) (*Process, error) {
	if !alive(pid, started) {
		return nil, fmt.Errorf("adopt %s: %w", name, os.ErrProcessDone)
	}
	p := &Process{name: name, pid: pid, started: started, adopted: true, grace: serverGrace, done: make(chan struct{}), code: -1}
	go func() {
		tick := time.NewTicker(adoptInterval)
		defer tick.Stop()
		for alive(pid, started) {
			<-tick.C
		}
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		close(p.done)
	}()
	return p, nil
}

// alive tells whether a pid still names the process that was started at that time.
func alive(pid int, started string) bool {
	now, err := startTime(pid)
	return err == nil && started != "" && now == started
}

// run starts the command and watches it until it ends. Both happen on one locked thread, because the parent whose death
// kills a child is, for the kernel, the thread that made it: the thread has to live as long as the child.
func (p *Process) run(cmd Command, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	c := exec.Command(cmd.Path, cmd.Args...) //nolint:noctx // a process ends when it is told to, not with the context that it was started in
	c.Env, c.Dir = cmd.Env, cmd.Dir
	c.SysProcAttr = processAttr(cmd.Detached)
	c.WaitDelay = 2 * time.Second // for a grandchild outside the group that holds the pipe open
	lines, err := output(c, cmd)
	if err == nil {
		err = c.Start()
	}
	if f, ok := c.Stdout.(*os.File); ok {
		_ = f.Close() // the child has its own
	}
	if err != nil {
		started <- err
		return
	}
	p.pid = c.Process.Pid
	p.started, _ = startTime(p.pid)
	started <- nil

	waitAndReap(c, p.endGroup)
	if lines != nil {
		lines.flush()
	}
	p.code = exitCode(c.ProcessState)
	close(p.done)
}

// endGroup kills what the ended leader left behind in its group, and forbids every further signal.
func (p *Process) endGroup() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = syscall.Kill(-p.pid, syscall.SIGKILL)
	p.ended = true
}

// exitCode is the exit status, or 128 plus the signal's number as a shell would say it.
func exitCode(state *os.ProcessState) int {
	if state == nil {
		return -1
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

// Pid is the process id, which is the id of its group too.
func (p *Process) Pid() int { return p.pid }

// Done is closed when the process has ended and all its output has been written.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait blocks until the process has ended, or until ctx ends, whose error it then returns.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ExitCode is the status the process ended with: 128 plus the number of the signal that ended it, and -1 as long as it
// runs or when the status went to another parent.
func (p *Process) ExitCode() int {
	select {
	case <-p.done:
		return p.code
	default:
		return -1
	}
}

// Signal sends a signal to the whole group. It returns os.ErrProcessDone when the process has ended.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.adopted && !alive(p.pid, p.started) {
		return os.ErrProcessDone
	}
	if err := syscall.Kill(-p.pid, sig); err != nil {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// Stop asks the process to end with SIGTERM, kills it when the grace time is over or ctx ends, and returns when it is gone.
// The error tells that it had to be killed. A paused process is resumed first, since it could not hear the request.
func (p *Process) Stop(ctx context.Context) error {
	_ = p.Signal(syscall.SIGTERM)
	_ = p.Signal(syscall.SIGCONT)
	ctx, cancel := context.WithTimeout(ctx, p.grace)
	defer cancel()
	if p.Wait(ctx) == nil {
		return nil
	}
	if err := p.Kill(); err != nil {
		return err
	}
	return fmt.Errorf("stop %s: killed, it did not end in time", p.name)
}

// Kill ends the group with SIGKILL and returns when the process is gone. It is not an error when it was gone already.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// Pause freezes the group with SIGSTOP: its connections stay open and nothing answers. It returns when the process has
// stopped, which for many threads is a little after the signal.
func (p *Process) Pause() error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	if err := waitStopped(p.pid); err != nil {
		return fmt.Errorf("pause %s: %w", p.name, err)
	}
	return nil
}

// Resume lets a paused group go on.
func (p *Process) Resume() error { return p.Signal(syscall.SIGCONT) }

func (p *Process) describe(rec *record) { rec.Processes = []processRecord{p.record()} }
