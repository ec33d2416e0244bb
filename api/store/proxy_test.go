package store_test

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"
)

// cut says where a line breaks.
type cut int32

const (
	never        cut = iota
	beforeCommit     // the server does not hear COMMIT
	afterCommit      // the server commits, the client does not hear of it
	noAnswer         // the server commits, the line stays and carries nothing more back
)

// line is a TCP line to the server that breaks on demand.
type line struct {
	dsn  string
	next atomic.Int32
	mute chan struct{} // closed when the line carries nothing more back
	wait sync.WaitGroup
	mu   sync.Mutex
	open []net.Conn
}

func proxy(t *testing.T, dsn string) *line {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	network, server := cfg.Net, cfg.Addr
	cfg.Net, cfg.Addr = "tcp", listener.Addr().String()
	l := &line{dsn: cfg.FormatDSN(), mute: make(chan struct{})}
	l.wait.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial(network, server)
			if err != nil {
				_ = client.Close()
				continue
			}
			l.join(client, upstream)
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		l.mu.Lock()
		for _, conn := range l.open {
			_ = conn.Close()
		}
		l.mu.Unlock()
		l.wait.Wait()
	})
	return l
}

// cutNext breaks the line at the next COMMIT.
func (l *line) cutNext(where cut) { l.next.Store(int32(where)) }

func (l *line) join(client, server net.Conn) {
	l.mu.Lock()
	l.open = append(l.open, client, server)
	l.mu.Unlock()
	var deaf atomic.Bool
	hangUp := func() {
		_ = client.Close()
		_ = server.Close()
	}
	l.wait.Go(func() {
		defer hangUp()
		for {
			packet, err := readPacket(client)
			if err != nil {
				return
			}
			if string(packet[4:]) == "\x03COMMIT" {
				switch cut(l.next.Swap(int32(never))) {
				case beforeCommit:
					return
				case afterCommit:
					deaf.Store(true)
				case noAnswer:
					close(l.mute)
				case never:
				}
			}
			if _, err := server.Write(packet); err != nil {
				return
			}
		}
	})
	l.wait.Go(func() {
		defer hangUp()
		buffer := make([]byte, 64<<10)
		for {
			n, err := server.Read(buffer)
			if err != nil || deaf.Load() {
				return
			}
			select {
			case <-l.mute:
				continue
			default:
			}
			if _, err := client.Write(buffer[:n]); err != nil {
				return
			}
		}
	})
}

// readPacket reads one packet of MySQL's protocol, header included: three bytes of length, one of sequence.
func readPacket(r io.Reader) ([]byte, error) {
	header := make([]byte, 4)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint32([]byte{header[0], header[1], header[2], 0})
	packet := append(header, make([]byte, length)...)
	_, err := io.ReadFull(r, packet[4:])
	return packet, err
}
