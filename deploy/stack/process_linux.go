package stack

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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
	fields, err := readStat("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", fmt.Errorf("read process %d: %w", pid, err)
	}
	if state := fields[statState]; state == "Z" || state == "X" {
		return "", os.ErrProcessDone
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return string(bytes.TrimSpace(boot)) + "/" + fields[statStart], nil
}

// Fields of a stat file, counted from the one after the program's name.
const (
	statState  = 0
	statParent = 1
	statStart  = 19
)

// readStat reads a process's or a thread's stat file from the state on. The program's name before it is in brackets and
// may hold anything.
func readStat(path string) ([]string, error) {
	stat, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) <= statStart {
		return nil, errors.New("unknown format of " + path)
	}
	return fields, nil
}

// descendants lists the children of a process and their children.
func descendants(pid int) []processRecord {
	children := map[string][]string{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		if fields, err := readStat(file); err == nil {
			children[fields[statParent]] = append(children[fields[statParent]], filepath.Base(filepath.Dir(file)))
		}
	}
	var found []processRecord
	for queue := children[strconv.Itoa(pid)]; len(queue) > 0; queue = queue[1:] {
		queue = append(queue, children[queue[0]]...)
		child, _ := strconv.Atoi(queue[0])
		if started, err := startTime(child); err == nil {
			found = append(found, processRecord{Name: "process " + queue[0], Pid: child, Started: started})
		}
	}
	return found
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
		fields, err := readStat(thread)
		if err != nil {
			continue // it ended meanwhile
		}
		if !strings.Contains("TtZX", fields[statState]) {
			return false
		}
	}
	return true
}
