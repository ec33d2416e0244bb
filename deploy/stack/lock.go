package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// errLocked is returned by tryLock when another holder has the lock.
var errLocked = errors.New("locked")

// fileLock is an exclusive lock on a file, for as long as it is open. The kernel drops it when its process ends, however
// that happens, so that no lock is ever stale. The file itself stays.
type fileLock struct{ f *os.File }

// waitLock takes the lock, waiting for as long as another holder has it and ctx lasts.
func waitLock(ctx context.Context, path string) (*fileLock, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		l, err := tryLock(path)
		if !errors.Is(err, errLocked) {
			return l, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for lock %s: %w", path, ctx.Err())
		}
	}
}

// tryLock takes the lock, or returns errLocked at once.
func tryLock(path string) (*fileLock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make lock folder: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &fileLock{f: f}, nil
}

// release drops the lock. A nil lock is released already.
func (l *fileLock) release() {
	if l != nil {
		_ = l.f.Close()
	}
}

// machineLocks is the folder of the locks that all our processes of one user share, whatever module they run from and
// wherever their TMPDIR is.
func machineLocks() string {
	return filepath.Join("/tmp", "tailbox-locks-"+strconv.Itoa(os.Getuid()))
}
