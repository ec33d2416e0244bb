package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"tailbox/deploy/ops"
	"tailbox/deploy/services"
	"tailbox/deploy/stack"
)

// instance is one process of a service.
type instance struct {
	label    string // how its lines begin
	service  string
	variable string // the environment's name for its address
	addr     string
}

// instances are the services, in the order in which they are started, and further relays behind them with RELAYS above 1: the
// first listens on 3001, the second on 3011, and so on.
func instances() ([]instance, error) {
	list := []instance{
		{"api", "api", "API_ADDR", "127.0.0.1:3000"}, {"worker", "worker", "WORKER_ADDR", "127.0.0.1:3002"}, {"cdc", "cdc", "CDC_ADDR", "127.0.0.1:3001"},
	}
	if text := os.Getenv("RELAYS"); text != "" {
		relays, err := strconv.Atoi(text)
		if err != nil || relays < 1 || relays > maxRelays {
			return nil, fmt.Errorf("%w: RELAYS: %q is not a number from 1 to %d", ops.ErrBadConfig, text, maxRelays)
		}
		for n := 2; n <= relays; n++ {
			list = append(list, instance{fmt.Sprint("cdc", n), "cdc", fmt.Sprintf("CDC%d_ADDR", n), fmt.Sprintf("127.0.0.1:30%d1", n-1)})
		}
	}
	for i := range list {
		if addr := os.Getenv(list[i].variable); addr != "" {
			list[i].addr = addr
		}
	}
	return list, nil
}

const maxRelays = 9

// up runs everything until it is interrupted, and stops it in the opposite order. The data is kept for the next time.
func up(ctx context.Context, module string) (err error) {
	out := &prefixed{out: os.Stdout, color: colorful()}
	set, err := stack.SetFromEnv()
	if err != nil {
		return fmt.Errorf("%w: %w", ops.ErrBadConfig, err)
	}
	all, err := instances()
	if err != nil {
		return err
	}
	if err := portsAreFree(ctx, all); err != nil {
		return err
	}

	say := out.line("dev")
	servers, err := stack.New(ctx, stack.Config{Dir: folder(module, "dev", set), Set: set, Log: say})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bounded(ctx, servers.Stop)) }()
	fmt.Fprintf(say, "starting %s %s and RabbitMQ %s\n", servers.MySQL.Flavor(), servers.MySQL.Version(), servers.Rabbit.Version())
	if err := servers.Start(ctx); err != nil {
		return err
	}
	fmt.Fprintf(say, "MySQL on %s, RabbitMQ on %s\n", servers.MySQL.Addr(), servers.Rabbit.Addr())
	if err := services.Prepare(ctx, servers.MySQL); err != nil {
		return err
	}
	if err := services.Build(ctx, module, filepath.Join(module, "bin")); err != nil {
		return err
	}

	var running []*services.Service
	ended := make(chan string, len(all))
	defer func() {
		for i := len(running) - 1; i >= 0; i-- {
			err = errors.Join(err, bounded(ctx, running[i].Process().Stop))
		}
	}()
	at := addresses(all)
	for _, one := range all {
		service := services.New(services.Config{
			Name: one.service, Bin: filepath.Join(module, "bin"), Stack: servers, Addr: one.addr, Output: out.line(one.label),
			Env: []string{"LOG_FORMAT=console", "LOG_LEVEL=" + level(one.service), "ADMIN_TOKEN=dev", "WORKER_URL=http://" + at["worker"]},
		})
		if err := service.Start(); err != nil {
			return err
		}
		running = append(running, service)
		go func() { <-service.Process().Done(); ended <- one.label }()
	}
	for _, service := range running {
		if err := service.Ready(ctx); err != nil {
			return err
		}
	}
	fmt.Fprint(say, banner(at))

	select {
	case <-ctx.Done():
		fmt.Fprintln(say, "stopping; the data stays in .run for the next make dev")
		return nil
	case name := <-ended:
		return fmt.Errorf("%s ended; its last lines are above", name)
	}
}

func addresses(all []instance) map[string]string {
	at := map[string]string{}
	for _, one := range all {
		at[one.label] = one.addr
	}
	return at
}

func banner(at map[string]string) string {
	return fmt.Sprintf(`ready

  api      http://%[1]s/docs
  cdc      http://%[2]s/   the page to look at; /position has the same as JSON
  worker   http://%[3]s/stats

  try      curl -i http://%[1]s/customers -H 'Content-Type: application/json' -d '{"email":"ada@example.com","name":"Ada"}'
           curl http://%[2]s/position

`, at["api"], at["cdc"], at["worker"])
}

// level makes the relay say what it publishes; at info it speaks of changes of its state only.
func level(name string) string {
	if value := os.Getenv("LOG_LEVEL"); value != "" {
		return value
	}
	if name == "cdc" {
		return "debug"
	}
	return "info"
}

func portsAreFree(ctx context.Context, all []instance) error {
	var errs []error
	for _, one := range all {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", one.addr)
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: %s wants to listen on %s, which something else does: stop that, or set %s",
				ops.ErrBadConfig, one.label, one.addr, one.variable))
			continue
		}
		errs = append(errs, listener.Close())
	}
	return errors.Join(errs...)
}

// bounded calls a stop with a fresh context: the one that asked for it has ended.
func bounded(ctx context.Context, stop func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return stop(ctx)
}

// prefixed merges the lines of several writers, each behind a name in its colour.
type prefixed struct {
	mu    sync.Mutex
	out   io.Writer
	color bool
}

var colors = map[string]int{"dev": 90, "api": 36, "cdc": 33, "worker": 35} // others have the terminal's own

func (p *prefixed) line(name string) io.Writer { return &prefix{p, name} }

type prefix struct {
	*prefixed
	name string
}

// Write prints each line behind the name.
func (p *prefix) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	label := fmt.Sprintf("%-7s| ", p.name)
	if p.color {
		label = fmt.Sprintf("\x1b[%dm%s\x1b[0m", colors[p.name], label)
	}
	for line := range lines(text) {
		if _, err := fmt.Fprintf(p.out, "%s%s\n", label, line); err != nil {
			return 0, fmt.Errorf("print: %w", err)
		}
	}
	return len(text), nil
}

func colorful() bool {
	info, err := os.Stdout.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == ""
}

// lines are the lines of a text, without their ends.
func lines(text []byte) iter.Seq[[]byte] {
	return bytes.SplitSeq(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
}
