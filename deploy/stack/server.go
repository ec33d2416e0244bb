package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// DefaultStartTimeout bounds a start whose context has no deadline.
	DefaultStartTimeout = 3 * time.Minute
	// serverGrace is how long a server may take to stop: RabbitMQ 3 needs six seconds on an idle machine.
	serverGrace = 45 * time.Second
	// probeInterval is how often a starting server is asked whether it is ready.
	probeInterval = 25 * time.Millisecond
	// tailLines is how much of a log goes into an error.
	tailLines = 25
)

// ErrRunning is returned when a folder's servers are running already: another process started them and is alive, or they
// were started Detached. Stop them there (Attach, then Stop) or use another folder.
var ErrRunning = errors.New("servers are running in this folder already")

// instance is one run of a server, from its start to its end: processes, or a container. All of its methods may be called
// at any time; Stop and Kill return when it has ended, and do nothing when it had ended before.
type instance interface {
	Stop(ctx context.Context) error
	Kill() error
	Pause() error
	Resume() error
	Pid() int
	Done() <-chan struct{}
	describe(*record)
}

// Server is what the database and the broker have in common: a process that can be hurt, with a folder and ports that
// outlive it. Its methods may be called from any goroutine.
type Server struct {
	name     string
	dir      string
	base     string
	port     []int  // asked for, 0 for any; from the first claim on, the ports
	rec      record // what is written down about every run
	attached bool   // another process's server, which can be ended but not started
	launch   func(ctx context.Context) (instance, error)
	probe    func(ctx context.Context) error // nil when the server answers its clients

	mu sync.Mutex
	// Invariant: running is nil or alive only while lock and ports are held.
	lock    *fileLock
	ports   *ports
	running instance
}

// open claims the folder and the ports, and ends what a dead process of ours left running in it.
func (s *Server) open() error {
	if s.lock != nil {
		return nil
	}
	lock, err := tryLock(filepath.Join(s.dir, "lock"))
	if errors.Is(err, errLocked) {
		err = fmt.Errorf("%w: %s", ErrRunning, s.dir)
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", s.name, err)
	}
	last, err := loadRecord(s.dir)
	if err == nil {
		err = endLeftover(last, s.dir)
	}
	if err == nil {
		err = s.claimPorts(last.Ports)
	}
	if err != nil {
		lock.release()
		return fmt.Errorf("open %s: %w", s.name, err)
	}
	s.lock = lock
	return nil
}

// endLeftover kills the processes of a record whose owner is gone, which the folder's lock proves; detached ones are meant
// to be there.
func endLeftover(last record, dir string) error {
	if last.Detached && last.alive() {
		return fmt.Errorf("%w: %s (pid %d)", ErrRunning, dir, last.Processes[0].Pid)
	}
	return last.kill()
}

// claimPorts claims the wanted ports; where any will do, the one of the last run if it is free.
func (s *Server) claimPorts(last []int) error {
	p := &ports{}
	for i, want := range s.port {
		if want == 0 && i < len(last) {
			if ok, _ := p.try(last[i]); ok {
				continue
			}
		}
		if err := p.claim(want); err != nil {
			p.release()
			return err
		}
	}
	if s.ports == nil {
		s.port = p.numbers // the same ever after: addresses are read without the lock
	}
	s.ports = p
	return nil
}

// Start starts the server if it is not running, and returns when it answers its clients. If it does not come up it is
// killed, and the error has the last lines of its log.
func (s *Server) Start(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultStartTimeout)
		defer cancel()
	}
	run, err := s.begin(ctx)
	if err == nil {
		err = s.ready(ctx, run)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	return nil
}

// begin launches an instance, unless one is running.
func (s *Server) begin(ctx context.Context) (instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		select {
		case <-s.running.Done():
			// It crashed. What belongs to it, such as the broker's port mapper, goes too.
			if err := s.running.Kill(); err != nil {
				return nil, err
			}
			s.running = nil
		default:
			return s.running, nil
		}
	}
	if s.attached {
		return nil, errors.New("an attached server cannot be started again")
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	run, err := s.launch(ctx)
	if err != nil {
		return nil, err
	}
	rec := s.rec
	rec.Ports = s.ports.numbers
	run.describe(&rec)
	if err := rec.save(s.dir); err != nil {
		return nil, errors.Join(err, run.Kill())
	}
	s.running = run
	return run, nil
}

// ready waits until the server answers.
func (s *Server) ready(ctx context.Context, run instance) error {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		err := s.probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-run.Done():
			_ = run.Kill() // what belongs to it
			return fmt.Errorf("it ended before it was ready; last lines of %s:\n%s", s.logFile(), tail(s.logFile()))
		case <-ctx.Done():
			_ = run.Kill()
			return fmt.Errorf("%w while not ready (%w); last lines of %s:\n%s", ctx.Err(), err, s.logFile(), tail(s.logFile()))
		case <-tick.C:
		}
	}
}

// Stop ends the server politely, kills it if that takes too long or ctx ends, and returns when no process of it is left.
// The folder and the ports are given up. It may be called again.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.running != nil {
		err = s.running.Stop(ctx)
		s.running = nil
	}
	if s.lock != nil {
		s.ports.release()
		s.lock.release()
		s.lock = nil
	}
	return err
}

// Kill ends the server as a crash does, with SIGKILL, and returns when it is gone. Start brings it back.
func (s *Server) Kill() error {
	return s.with(instance.Kill)
}

// Restart stops the server and starts it again on the same ports.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Pause freezes the server: its connections stay open, and nothing is read or answered.
func (s *Server) Pause() error { return s.with(instance.Pause) }

// Resume lets a paused server go on.
func (s *Server) Resume() error { return s.with(instance.Resume) }

// Pid is the id of the server's process, or 0 if it is not running.
func (s *Server) Pid() int {
	pid := 0
	_ = s.with(func(run instance) error { pid = run.Pid(); return nil })
	return pid
}

// Done is closed when the run that is going on now has ended, for whatever reason. It is closed if there is none.
func (s *Server) Done() <-chan struct{} {
	ended := make(chan struct{})
	close(ended)
	var done <-chan struct{} = ended
	_ = s.with(func(run instance) error { done = run.Done(); return nil })
	return done
}

// with calls f with the running instance.
func (s *Server) with(f func(instance) error) error {
	s.mu.Lock()
	run := s.running
	s.mu.Unlock()
	if run == nil {
		return fmt.Errorf("%s: %w", s.name, ErrNotRunning)
	}
	return f(run)
}

// logFile is the file to which the server writes its log.
func (s *Server) logFile() string { return filepath.Join(s.dir, "server.log") }

// tail returns the last lines of a file.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "(" + err.Error() + ")"
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-tailLines):], []byte("\n")))
}
