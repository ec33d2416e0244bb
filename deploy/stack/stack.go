package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
)

// Set names a generation of servers.
type Set string

const (
	// System is what the machine has: servers in PATH, else Docker, else the distribution's packages.
	System Set = "system"
	// Newest is the newest MySQL and RabbitMQ of Debian unstable, in a root folder of their own.
	Newest Set = "newest"
)

// SetFromEnv reads the set from the environment variable SERVERS; System if it is empty.
func SetFromEnv() (Set, error) {
	switch s := Set(os.Getenv("SERVERS")); s {
	case "":
		return System, nil
	case System, Newest:
		return s, nil
	default:
		return "", fmt.Errorf("read SERVERS: %q is not one of %s, %s", s, System, Newest)
	}
}

// Config says which servers to run and where.
type Config struct {
	// Dir is the folder for data, sockets, pids and logs. It is made if it is missing and may have data of an earlier run.
	// Required; one running stack per folder.
	Dir string
	// Base is the folder for what is shared between stacks: the root folder of the Newest set.
	// Defaults to .run in the folder of the nearest go.mod above the working directory, else to Dir.
	Base string
	// Set is the generation of servers. Defaults to System.
	Set Set
	// Log receives a line for a person now and then, such as what is being installed. Defaults to nowhere.
	Log io.Writer
	// MySQLPort is the database's port. Defaults to a free one: the last one used in Dir if possible.
	MySQLPort int
	// AMQPPort is the broker's port. Defaults likewise.
	AMQPPort int
	// ManagementPort is the port of the broker's HTTP API. Defaults likewise.
	ManagementPort int
	// MySQLOptions are server options, such as "--gtid-mode=OFF", that come after all others and win.
	MySQLOptions []string
	// RabbitConfig is text in the format of rabbitmq.conf that comes after all other settings and wins.
	RabbitConfig string
	// TLS lets both servers speak TLS, too: the database on its port for clients that ask for it, the broker on a port of its
	// own, where it demands a certificate of the same authority. Containers do not know it. Defaults to none.
	TLS *TLS
	// Docker runs the containers even if there are servers in PATH. It has no meaning for the Newest set.
	Docker bool
	// Detached lets the servers outlive this process. Attach finds them again.
	Detached bool
}

// validate fills in the defaults and reports every mistake at once.
func (c *Config) validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("folder Dir is required"))
	}
	switch c.Set {
	case "":
		c.Set = System
	case System, Newest:
	default:
		errs = append(errs, fmt.Errorf("set %q is not one of %s, %s", c.Set, System, Newest))
	}
	for _, port := range []int{c.MySQLPort, c.AMQPPort, c.ManagementPort} {
		if port < 0 || port > 65535 {
			errs = append(errs, fmt.Errorf("port %d is out of range", port))
		}
	}
	if c.Log == nil {
		c.Log = io.Discard
	}
	if len(errs) == 0 {
		errs = append(errs, c.resolveFolders())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("check stack configuration: %w", err)
	}
	return nil
}

func (c *Config) resolveFolders() error {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	if c.Base == "" {
		c.Base = dir
		if root := moduleRoot(); root != "" {
			c.Base = filepath.Join(root, ".run")
		}
	}
	base, err := filepath.Abs(c.Base)
	if err != nil {
		return err
	}
	c.Dir, c.Base = dir, base
	return nil
}

// moduleRoot is the folder of the nearest go.mod above the working directory, or "".
func moduleRoot() string {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if filepath.Dir(dir) == dir {
			break
		}
		dir = filepath.Dir(dir)
	}
	return ""
}

// Stack is one database server and one broker.
type Stack struct {
	// MySQL is the database: MySQL, or MariaDB.
	MySQL *MySQL
	// Rabbit is the broker.
	Rabbit *RabbitMQ
}

// New finds the servers, installing them if they are missing and that can be done, and claims the folder and the ports.
// Nothing runs yet; addresses are known. An installation can take minutes, and so can the first use of the Newest set.
// It returns ErrRunning if a detached stack runs in that folder.
func New(ctx context.Context, cfg Config) (*Stack, error) {
	m, err := NewMySQL(ctx, cfg)
	if err != nil {
		return nil, err
	}
	r, err := NewRabbitMQ(ctx, cfg)
	if err != nil {
		return nil, errors.Join(err, m.Stop(ctx))
	}
	return &Stack{MySQL: m, Rabbit: r}, nil
}

// Start starts what is not running yet, both at the same time, and returns when both answer their clients. On an error
// neither is left running.
func (s *Stack) Start(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { return s.MySQL.Start(ctx) })
	g.Go(func() error { return s.Rabbit.Start(ctx) })
	if err := g.Wait(); err != nil {
		return errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
	}
	return nil
}

// Stop ends both servers, politely at first, and returns when no process of theirs is left. It may be called again.
func (s *Stack) Stop(ctx context.Context) error {
	errs := make(chan error, 1)
	go func() { errs <- s.Rabbit.Stop(ctx) }()
	return errors.Join(s.MySQL.Stop(ctx), <-errs)
}

// Kill ends both servers at once with SIGKILL, which loses nothing that was committed or confirmed. It is the quick end of
// a stack whose data nobody needs: RabbitMQ 3 takes six seconds to stop.
func (s *Stack) Kill() error {
	return errors.Join(s.MySQL.Kill(), s.Rabbit.Kill())
}
