package faults_test

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"tailbox/deploy/faults"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers each byte with the same byte, behind its name.
func echo(t *testing.T, name string) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer conn.Close()
				_, _ = conn.Write([]byte(name))
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		group.Wait()
	})
	return listener.Addr().String()
}

func setup(t *testing.T) (p *faults.Proxy, dial func() net.Conn) {
	t.Helper()
	p, err := faults.New(echo(t, "a"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p, func() net.Conn {
		conn, err := net.Dial("tcp", p.Addr())
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
}

// hears tells whether the text arrives.
func hears(t *testing.T, conn net.Conn, text string) bool {
	t.Helper()
	return arrives(t, conn, text, 20*time.Second)
}

// hearsInVain tells whether nothing arrives for a moment.
func hearsInVain(t *testing.T, conn net.Conn, text string) bool {
	t.Helper()
	return !arrives(t, conn, text, 300*time.Millisecond)
}

func arrives(t *testing.T, conn net.Conn, text string, within time.Duration) bool {
	t.Helper()
	got := make([]byte, len(text))
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(within)))
	_, err := io.ReadFull(conn, got)
	return err == nil && string(got) == text
}

func say(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	_, err := conn.Write([]byte(text))
	require.NoError(t, err)
}

func TestForwardsUntouchedWithoutAFault(t *testing.T) {
	t.Parallel()
	p, dial := setup(t)
	conn := dial()
	require.True(t, hears(t, conn, "a"))
	say(t, conn, "hello")
	require.True(t, hears(t, conn, "hello"))
	require.Equal(t, 1, p.Connections())
}

func TestSwallowedBytesNeverArrive(t *testing.T) {
	t.Parallel()
	p, dial := setup(t)
	conn := dial()
	require.True(t, hears(t, conn, "a"))
	p.Swallow(faults.ToClient, true)
	say(t, conn, "lost")
	require.True(t, hearsInVain(t, conn, "lost"))
	p.Swallow(faults.ToClient, false)
	say(t, conn, "heard")
	require.True(t, hears(t, conn, "heard"))
}

func TestASwallowedEndIsNotTold(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, err = io.Copy(io.Discard, conn)
			conn.Close()
		}
		ended <- err
	}()
	p, err := faults.New(listener.Addr().String())
	require.NoError(t, err)
	conn, err := net.Dial("tcp", p.Addr())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return p.Connections() == 1 }, 5*time.Second, time.Millisecond)
	p.Swallow(faults.ToServer, true)
	p.Swallow(faults.ToClient, true)
	require.NoError(t, conn.Close())
	require.Eventually(t, func() bool { return p.Orphans() == 1 }, 5*time.Second, time.Millisecond)
	p.Swallow(faults.ToServer, false)
	p.Swallow(faults.ToClient, false)
	select {
	case <-ended:
		t.Fatal("the server was told of the end")
	case <-time.After(200 * time.Millisecond):
	}
	require.NoError(t, p.Close())
	<-ended
	require.NoError(t, listener.Close())
}

func TestStoppedBytesArriveWhenItIsOver(t *testing.T) {
	t.Parallel()
	p, dial := setup(t)
	conn := dial()
	require.True(t, hears(t, conn, "a"))
	p.Stop(faults.ToServer, true)
	say(t, conn, "late")
	require.True(t, hearsInVain(t, conn, "late"))
	p.Stop(faults.ToServer, false)
	require.True(t, hears(t, conn, "late"))
}

func TestStoppedReadingHoldsTheWriterBack(t *testing.T) {
	t.Parallel()
	p, dial := setup(t)
	conn := dial()
	require.True(t, hears(t, conn, "a"))
	p.Stop(faults.ToServer, true)
	require.NoError(t, conn.SetWriteDeadline(time.Now().Add(300*time.Millisecond)))
	_, err := conn.Write(make([]byte, 64<<20))
	require.Error(t, err)
}

func TestCutsBehindTheByte(t *testing.T) {
	t.Parallel()
	p, dial := setup(t)
	p.CutAfter(faults.ToServer, 3)
	conn := dial()
	require.True(t, hears(t, conn, "a"))
	say(t, conn, "12345")
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
	got, _ := io.ReadAll(conn)
	require.True(t, bytes.HasPrefix([]byte("123"), got), "%q", got)
	require.Equal(t, int64(3), p.Passed(faults.ToServer))
}

func TestFlipsABitOfThatByte(t *testing.T) {
	t.Parallel()
	p, dial := setup(t)
	p.Flip(faults.ToServer, 1)
	conn := dial()
	require.True(t, hears(t, conn, "a"))
	say(t, conn, "bbb")
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
	got := make([]byte, 3)
	_, err := io.ReadFull(conn, got)
	require.NoError(t, err)
	require.Equal(t, "bcb", string(got))
}

func TestTricklesInOrder(t *testing.T) {
	t.Parallel()
	p, dial := setup(t)
	p.Trickle(faults.ToClient, 1, time.Millisecond)
	conn := dial()
	say(t, conn, "slowly")
	require.True(t, hears(t, conn, "aslowly"))
}

func TestLeadsToAnotherServerAfterAReset(t *testing.T) {
	t.Parallel()
	p, dial := setup(t)
	conn := dial()
	require.True(t, hears(t, conn, "a"))
	p.Target(echo(t, "b"))
	p.Reset()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
	_, err := conn.Read(make([]byte, 1))
	require.Error(t, err)
	require.True(t, hears(t, dial(), "b"))
	p.Refuse(true)
	require.True(t, hearsInVain(t, dial(), "b"))
}
