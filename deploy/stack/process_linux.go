package stack

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// processAttr puts a child into a group of its own; a detached one into a session of its own, away from the terminal.
func processAttr(detached bool) *syscall.SysProcAttr {
	if detached {
		return &syscall.SysProcAttr{Setsid: true}
	}
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// waitAndReap waits for the command's end and calls beforeReap while its pid cannot yet be given to another process.
func waitAndReap(c *exec.Cmd, beforeReap func()) {
	for errors.Is(unix.Waitid(unix.P_PID, c.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	beforeReap()
	_ = c.Wait()
}

// startTime tells when a process was started, in the kernel's clock ticks since boot and with the boot's own id: together
// with the pid this names one process for all time. A zombie counts as ended.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", fmt.Errorf("read process %d: %w", pid, err)
	}
	// The second field is the program's name in brackets and may hold anything; the state is the first field after it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return "", os.ErrProcessDone
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return string(bytes.TrimSpace(boot)) + "/" + string(fields[19]), nil
}

// waitStopped waits until every thread of the process is stopped.
func waitStopped(pid int) error {
	deadline := time.Now().Add(5 * time.Second)
	for !stopped(pid) {
		if time.Now().After(deadline) {
			return errors.New("a thread goes on")
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// stopped tells whether no thread of the process runs or can run.
func stopped(pid int) bool {
	threads, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/stat")
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if err != nil {
			continue // it ended meanwhile
		}
		if state := stat[bytes.LastIndexByte(stat, ')')+2]; !bytes.ContainsRune([]byte("TtZX"), rune(state)) {
			return false
		}
	}
	return true
}
