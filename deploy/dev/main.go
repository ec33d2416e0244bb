// Command dev runs Tailbox on a developer's machine: what `make dev`, `make infras`, `make test` and `make clean` call.
// It finds or installs MySQL (or MariaDB) and RabbitMQ, runs private instances of them below .run/, and never touches a
// service of the system.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"tailbox/deploy/ops"
	"tailbox/deploy/stack"
)

const usage = `usage: go run ./deploy/dev COMMAND
  up              servers, schema and the three services, in the foreground
  infras          the two servers alone, in the background
  test COMMAND... run a command with servers for tests; it finds them by TAILBOX_STACK
  clean           stop what runs and delete .run and bin`

func main() {
	ops.Main(func(ctx context.Context) error {
		if len(os.Args) < 2 {
			return fmt.Errorf("%w: no command\n%s", ops.ErrBadConfig, usage)
		}
		module, err := moduleRoot()
		if err != nil {
			return err
		}
		switch command, args := os.Args[1], os.Args[2:]; {
		case command == "up" && len(args) == 0:
			return up(ctx, module)
		case command == "infras" && len(args) == 0:
			return infras(ctx, module)
		case command == "test" && len(args) > 0:
			return test(ctx, module, args)
		case command == "clean" && len(args) == 0:
			return clean(ctx, module)
		}
		return fmt.Errorf("%w: %q is not a command\n%s", ops.ErrBadConfig, strings.Join(os.Args[1:], " "), usage)
	})
}

// moduleRoot is the folder of go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the project's folder: %w", err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod here or above: run this inside the project")
		}
	}
}

// folder is where the servers of a purpose keep their data.
func folder(module, purpose string, set stack.Set) string {
	return filepath.Join(module, ".run", purpose+"-"+string(set))
}

// infras starts the two servers so that they outlive this process, in Docker Compose if an engine answers.
func infras(ctx context.Context, module string) error {
	if dockerAnswers(ctx) {
		return command(ctx, module, nil, "docker", "compose", "up", "-d", "--wait", "mysql", "rabbitmq")
	}
	set, err := stack.SetFromEnv()
	if err != nil {
		return fmt.Errorf("%w: %w", ops.ErrBadConfig, err)
	}
	dir := folder(module, "infras", set)
	servers, err := stack.Attach(dir)
	if err != nil {
		servers, err = stack.New(ctx, stack.Config{Dir: dir, Set: set, Log: os.Stdout, Detached: true})
		if err != nil {
			return err
		}
		if err := servers.Start(ctx); err != nil {
			return err
		}
	}
	fmt.Printf("%s %s  mysql --protocol=tcp --host=127.0.0.1 --port=%d --user=root\nRabbitMQ %s  %s\nstop them with: make clean\n",
		servers.MySQL.Flavor(), servers.MySQL.Version(), servers.MySQL.Port(), servers.Rabbit.Version(), servers.Rabbit.URL("/"))
	return nil
}

// test runs a command with servers that it may use but not hurt.
func test(ctx context.Context, module string, args []string) (err error) {
	set, err := stack.SetFromEnv()
	if err != nil {
		return fmt.Errorf("%w: %w", ops.ErrBadConfig, err)
	}
	dir, err := os.MkdirTemp("", "tailbox-test-")
	if err != nil {
		return fmt.Errorf("make a folder for the servers: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	servers, err := stack.New(ctx, stack.Config{Dir: dir, Set: set, Log: os.Stdout})
	if err != nil {
		return err
	}
	defer func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		_ = servers.Kill() // the data is thrown away: no need to be polite; what did not start cannot be killed
		err = errors.Join(err, servers.Stop(bounded))
	}()
	if err := servers.Start(ctx); err != nil {
		return err
	}
	fmt.Printf("tests run on %s %s and RabbitMQ %s\n", servers.MySQL.Flavor(), servers.MySQL.Version(), servers.Rabbit.Version())
	return command(ctx, module, []string{"TAILBOX_STACK=" + dir}, args[0], args[1:]...)
}

// clean stops every server that was started below .run and deletes what was made.
func clean(ctx context.Context, module string) error {
	errs := []error{stack.Clean(ctx, filepath.Join(module, ".run"))}
	if dockerAnswers(ctx) {
		errs = append(errs, command(ctx, module, nil, "docker", "compose", "down", "--volumes", "--remove-orphans"))
	}
	if err := errors.Join(errs...); err != nil {
		return err // a server that still runs keeps its data
	}
	return errors.Join(os.RemoveAll(filepath.Join(module, ".run")), os.RemoveAll(filepath.Join(module, "bin")))
}

func dockerAnswers(ctx context.Context) bool {
	return exec.CommandContext(ctx, "docker", "info").Run() == nil && exec.CommandContext(ctx, "docker", "compose", "version").Run() == nil
}

// command runs a program with our own input and output; a signal to us reaches it, too, and it is waited for.
func command(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
