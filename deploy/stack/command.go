package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// Command says which program to run and how.
type Command struct {
	// Name is what errors call the process. Defaults to Path.
	Name string
	// Path is the program: a path, or a name that is looked up in PATH.
	Path string
	// Args are the arguments after the program's name.
	Args []string
	// Env is the whole environment, as KEY=value. Defaults to the environment of this process.
	Env []string
	// Dir is the working directory. Defaults to that of this process.
	Dir string
	// Output receives standard output and standard error, one Write per whole line, never two at a time.
	// Defaults to nowhere.
	Output io.Writer
	// LogFile, if set, is a file to which both outputs are appended instead; a Detached process can have nothing else.
	LogFile string
	// Grace is how long Stop waits between SIGTERM and SIGKILL. Defaults to DefaultGrace.
	Grace time.Duration
	// Detached lets the process outlive this one. Otherwise the kernel kills it when this process ends, however it ends
	// (on Linux; other systems have no such means).
	Detached bool
}

// output connects the command's outputs, and returns the line writer that is to be flushed at the end, if there is one.
func output(c *exec.Cmd, cmd Command) (*lineWriter, error) {
	if cmd.LogFile != "" {
		f, err := os.OpenFile(cmd.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open log: %w", err)
		}
		c.Stdout, c.Stderr = f, f
		return nil, nil
	}
	if cmd.Output == nil {
		return nil, nil
	}
	if cmd.Detached {
		return nil, errors.New("a detached process writes to a log file only")
	}
	w := &lineWriter{out: cmd.Output}
	c.Stdout, c.Stderr = w, w
	return w, nil
}

// runToEnd runs a command to its end and makes a non-zero exit status an error with the last lines of its log.
func runToEnd(ctx context.Context, cmd Command) error {
	p, err := Start(cmd)
	if err != nil {
		return err
	}
	if err := p.Wait(ctx); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", cmd.Name, err), p.Kill())
	}
	if code := p.ExitCode(); code != 0 {
		return fmt.Errorf("%s: exit status %d; last lines of %s:\n%s", cmd.Name, code, cmd.LogFile, tail(cmd.LogFile))
	}
	return nil
}

// plainEnv is the environment of every server: nothing of the caller's, so that no setting of the machine slips in.
func plainEnv(home string, more ...string) []string {
	return append([]string{
		"PATH=" + os.Getenv("PATH") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + home, "LANG=C.UTF-8", "TZ=UTC",
	}, more...)
}
