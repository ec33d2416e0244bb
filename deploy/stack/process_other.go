//go:build !linux

package stack

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// processAttr puts a child into a group of its own; a detached one into a session of its own, away from the terminal.
func processAttr(detached bool) *syscall.SysProcAttr {
	if detached {
		return &syscall.SysProcAttr{Setsid: true}
	}
	return &syscall.SysProcAttr{Setpgid: true}
}

// waitAndReap waits for the command's end. There is no portable way to look at a child without reaping it.
func waitAndReap(c *exec.Cmd, beforeReap func()) {
	_ = c.Wait()
	beforeReap()
}

// startTime tells when a process was started: together with the pid this names one process.
func startTime(pid int) (string, error) {
	out, err := exec.Command("ps", "-o", "lstart=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return "", fmt.Errorf("ask for process %d: %w", pid, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// waitStopped has no portable form.
func waitStopped(int) error { return nil }

// descendants has no portable form.
func descendants(int) []processRecord { return nil }
