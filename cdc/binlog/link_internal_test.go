package binlog

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestOnlyASearchingServerMayBeSilentForLong: the phases of a stream on one link, each with its patience.
func TestOnlyASearchingServerMayBeSilentForLong(t *testing.T) {
	t.Parallel()
	const short, long = time.Second, 4 * time.Second
	read := func(enter ...func(*link)) (took time.Duration, err error) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer listener.Close()
		l := newLink(Config{ReadTimeout: short, SearchTimeout: long})
		defer l.close()
		conn, err := l.dial(t.Context(), "tcp", listener.Addr().String())
		require.NoError(t, err)
		done := make(chan error, 1)
		began := time.Now()
		go func() {
			_, err := conn.Read(make([]byte, 1))
			done <- err
		}()
		require.Eventually(t, func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.reading }, 30*time.Second, time.Millisecond)
		for _, f := range enter {
			f(l)
		}
		require.Error(t, <-done)
		return time.Since(began), l.err()
	}

	took, err := read()
	require.Less(t, took, long)
	require.ErrorContains(t, err, "nothing came from the server for 1s")
	took, err = read((*link).search)
	require.GreaterOrEqual(t, took, long, "a read that waits already gets the longer time")
	require.ErrorContains(t, err, "for 4s")
	took, _ = read((*link).search, (*link).stream)
	require.Less(t, took, long)
	took, _ = read((*link).stream, (*link).search)
	require.Less(t, took, long, "the first event was quicker than the answer to the question for it")
	_, err = read((*link).close)
	require.NoError(t, err, "cut, not silent")
}

func TestADeadLinkIsNoticedWithin15Seconds(t *testing.T) {
	t.Parallel()
	cfg := Config{}.withDefaults()
	require.LessOrEqual(t, cfg.ReadTimeout, 15*time.Second)
	require.Greater(t, cfg.ReadTimeout, 3*cfg.Heartbeat, "two heartbeats may be late")
	require.GreaterOrEqual(t, cfg.SearchTimeout, time.Minute)
	require.Less(t, linkProbes.Idle+time.Duration(linkProbes.Count)*linkProbes.Interval, 15*time.Second)
}
