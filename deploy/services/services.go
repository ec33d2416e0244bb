// Package services runs api, cdc and worker as processes against a stack: it builds them, prepares the database for them
// (tables, and a user with the least rights for each), and starts, kills and stops each. `make dev`, the end-to-end tests
// and the benchmarks run the services by it, so all three run what is deployed: the binaries.
package services

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"tailbox/deploy/mysql"
	"tailbox/deploy/stack"
	"tailbox/schema"
)

// Names are the services, in the order in which they are started.
var Names = []string{"api", "worker", "cdc"}

// Build compiles the services into a folder.
func Build(ctx context.Context, module, into string, flags ...string) error {
	for _, name := range Names {
		args := append([]string{"build", "-o", filepath.Join(into, name)}, flags...)
		cmd := exec.CommandContext(ctx, "go", append(args, "./"+name)...)
		cmd.Dir = module
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return nil
}

// Prepare makes the database, its tables and the services' users, where they are missing.
func Prepare(ctx context.Context, server *stack.MySQL) error {
	root, err := sql.Open("mysql", server.DSN(""))
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	defer root.Close()
	if _, err := root.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS "+mysql.Database+" CHARACTER SET utf8mb4"); err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	if err := mysql.CreateUsers(ctx, root); err != nil {
		return err
	}
	db, err := sql.Open("mysql", server.DSN(mysql.Database))
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	defer db.Close()
	if _, err := schema.Migrate(ctx, db); err != nil {
		return fmt.Errorf("apply the schema: %w", err)
	}
	return nil
}

// Config says how a service is run.
type Config struct {
	Name   string       // api, cdc or worker
	Bin    string       // folder with the binary
	Stack  *stack.Stack // where the servers are
	Addr   string       // its HTTP_ADDR, host and port
	Args   []string     // what it is given besides its environment
	Env    []string     // further variables, KEY=value; these win
	Output io.Writer    // receives each line that it prints, whole
	// MySQLAddr and AMQPURL, if set, take the place of the stack's, for a proxy in between.
	MySQLAddr, AMQPURL string
}

// Service is one of the three, as a process that can be started again and again.
type Service struct {
	cfg     Config
	process *stack.Process
}

// New returns a service that is not running.
func New(cfg Config) *Service { return &Service{cfg: cfg} }

// Start starts the process. It does not wait for it to be ready.
func (s *Service) Start() error {
	process, err := stack.Start(stack.Command{
		Name:   s.cfg.Name,
		Path:   filepath.Join(s.cfg.Bin, s.cfg.Name),
		Args:   s.cfg.Args,
		Env:    append(s.env(), s.cfg.Env...),
		Output: s.cfg.Output,
		Grace:  30 * time.Second,
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", s.cfg.Name, err)
	}
	s.process = process
	return nil
}

func (s *Service) env() []string {
	server, broker := s.cfg.MySQLAddr, s.cfg.AMQPURL
	if server == "" {
		server = s.cfg.Stack.MySQL.Addr()
	}
	if broker == "" {
		broker = s.cfg.Stack.Rabbit.URL("/")
	}
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"),
		"HTTP_ADDR=" + s.cfg.Addr,
		fmt.Sprintf("MYSQL_DSN=%s:%s@tcp(%s)/%s", s.cfg.Name, mysql.Password(s.cfg.Name), server, mysql.Database),
		"AMQP_URL=" + broker,
	}
}

// Process is the run that was started last.
func (s *Service) Process() *stack.Process { return s.process }

// URL is the service's base URL with a path behind it.
func (s *Service) URL(path string) string { return "http://" + s.cfg.Addr + path }

// Ready waits until the service does its job, or tells what it said last.
func (s *Service) Ready(ctx context.Context) error {
	said := "nothing yet"
	for {
		status, body, err := get(ctx, s.URL("/readyz"))
		switch {
		case err == nil && status == http.StatusOK:
			return nil
		case err == nil:
			said = strings.TrimSpace(body)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-s.process.Done():
			return fmt.Errorf("%s ended with code %d before it was ready", s.cfg.Name, s.process.ExitCode())
		case <-ctx.Done():
			return fmt.Errorf("wait for %s, which says %s: %w", s.cfg.Name, said, ctx.Err())
		}
	}
}

func get(ctx context.Context, url string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", fmt.Errorf("ask %s: %w", url, err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", fmt.Errorf("ask %s: %w", url, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return 0, "", fmt.Errorf("ask %s: %w", url, err)
	}
	return answer.StatusCode, string(text), nil
}

// FreeAddr is a loopback address with a port that is free at the moment. It lies below the ports that the system gives to
// outgoing connections, so that none takes it while a service that was killed is not back yet. No call in a process gets one that
// another got.
func FreeAddr(ctx context.Context) (string, error) {
	const first, count, tries = 12000, 6000, 100
	err := errors.New("all that were tried have been given")
	for range tries {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(first+rand.IntN(count)))
		if _, given := givenAddrs.LoadOrStore(addr, true); given {
			continue
		}
		var listener net.Listener
		if listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", addr); err == nil {
			return addr, listener.Close()
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}

var givenAddrs sync.Map // what FreeAddr has given in this process: who got it may not listen yet
