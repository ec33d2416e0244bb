package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// ErrNotRunning is returned by Attach when nothing of the folder's stack is alive, and by the methods of a server that
// have nothing to act on.
var ErrNotRunning = errors.New("not running")

// Attach finds the servers that a process, this one or another, has started in that folder and that are still alive; they
// were Detached, or that process still runs. What can be done with a running server can be done with them, Stop included.
// They cannot be started again: that takes a Stack made by New.
func Attach(dir string) (*Stack, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	m, r := &MySQL{}, &RabbitMQ{}
	var found int
	for folder, server := range map[string]**Server{"mysql": &m.Server, "rabbitmq": &r.Server} {
		if *server, err = attach(filepath.Join(dir, folder)); err != nil {
			return nil, fmt.Errorf("attach: %w", err)
		}
		if (*server).running != nil {
			found++
		}
	}
	if found == 0 {
		return nil, fmt.Errorf("attach %s: %w", dir, ErrNotRunning)
	}
	switch {
	case r.rec.Container != "":
		r.programs.image = rabbitImage
	case r.running != nil:
		if r.programs, err = findRabbitMQ(r.rec.inRoot()); err != nil {
			return nil, fmt.Errorf("attach: %w", err)
		}
	}
	return &Stack{MySQL: m, Rabbit: r}, nil
}

// attach makes a server of a folder's record, running if its processes are alive.
func attach(dir string) (*Server, error) {
	rec, err := loadRecord(dir)
	if err != nil {
		return nil, err
	}
	s := &Server{name: filepath.Base(dir), dir: dir, port: rec.Ports, rec: rec, attached: true}
	if len(s.port) == 0 {
		s.port = make([]int, portsPerServer) // it was never started
	}
	s.running, err = rec.adopt()
	return s, err
}

// adopt takes over the processes of a record; nil if the one that counts is gone.
func (r record) adopt() (instance, error) {
	if len(r.Processes) == 0 || !alive(r.Processes[0].Pid, r.Processes[0].Started) {
		return nil, nil
	}
	var processes []*Process
	for _, rec := range r.Processes {
		p, err := adopt(rec.Name, rec.Pid, rec.Started)
		if err != nil {
			return nil, err
		}
		processes = append(processes, p)
	}
	switch {
	case r.Container != "":
		return &container{Process: processes[0], name: r.Container}, nil
	case len(processes) == 2:
		return &rabbitProcesses{Process: processes[0], epmd: processes[1]}, nil
	default:
		return processes[0], nil
	}
}

// inRoot is the root that the record's programs were found in.
func (r record) inRoot() *root {
	if r.Root == "" {
		return nil
	}
	return &root{dir: r.Root, base: filepath.Dir(r.Root)}
}

// Clean ends every server that was started in a folder below base, by whatever process, and removes the Docker containers
// and volumes that belong to it. The files are left to the caller.
func Clean(ctx context.Context, base string) error {
	base, err := filepath.Abs(base)
	if err != nil {
		return fmt.Errorf("clean: %w", err)
	}
	var errs []error
	containers := false
	err = filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "data" || filepath.Dir(path) == base && d.Name() == newestFolder):
			return filepath.SkipDir
		case d.Name() != filepath.Base(recordPath("")):
			return nil
		}
		s, err := attach(filepath.Dir(path))
		if err == nil {
			containers = containers || s.rec.Container != ""
			err = errors.Join(s.Stop(ctx), s.rec.kill())
		}
		errs = append(errs, err)
		return nil
	})
	if containers {
		errs = append(errs, removeContainers(ctx, base))
	}
	if err := errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("clean %s: %w", base, err)
	}
	return nil
}
