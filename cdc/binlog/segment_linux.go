package binlog

import (
	"strings"
	"syscall"
)

// maxSegment is far below the receive window and above what any real network carries in one segment.
const maxSegment = 8 << 10

// smallSegments keeps the server from being asleep when the relay reads again after it held the stream back. On loopback a
// segment is as large as the whole receive window (64 KiB). A reader that empties its buffer then frees less than twice
// what it had announced, so that Linux sends no window update, and the server goes on only with its next window probe: by
// then it has doubled the time between two of them up to half the length of the hold.
func smallSegments(network, _ string, raw syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, maxSegment)
	}); err != nil {
		return err
	}
	return failed
}
