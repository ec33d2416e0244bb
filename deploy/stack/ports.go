package stack

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strconv"
)

// Free ports are taken from below the range that Linux gives to outgoing connections (32768 and up): a server that was
// killed must find its port still free when it starts again, whatever its clients opened meanwhile.
const (
	firstPort = 18000
	lastPort  = 31999
)

// ports are loopback ports that belong to one server. Each is held by a file lock too, so that two processes which look
// for a free port at the same time never find the same one.
type ports struct {
	numbers []int
	locks   []*fileLock
}

// claim takes one more port: that very one, or a free one for 0.
func (p *ports) claim(want int) error {
	if want != 0 {
		ok, err := p.try(want)
		if err == nil && !ok {
			err = fmt.Errorf("claim port %d: in use", want)
		}
		return err
	}
	for range 200 {
		if ok, err := p.try(firstPort + rand.IntN(lastPort-firstPort+1)); ok || err != nil {
			return err
		}
	}
	return errors.New("claim a free port: none found")
}

// try takes the port if no other process of ours holds it and nothing listens on it.
func (p *ports) try(port int) (bool, error) {
	l, err := tryLock(filepath.Join(machineLocks(), "port-"+strconv.Itoa(port)))
	if errors.Is(err, errLocked) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !portFree(port) {
		l.release()
		return false, nil
	}
	p.numbers, p.locks = append(p.numbers, port), append(p.locks, l)
	return true, nil
}

// release gives up the claims; the numbers stay known.
func (p *ports) release() {
	for _, l := range p.locks {
		l.release()
	}
	p.locks = nil
}

// loopback is the address of a port on this machine.
func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// portAnswers tells whether something listens. It asks by connecting: to bind the port, even for a moment, can take it away
// from the very process that is about to listen.
func portAnswers(ctx context.Context, port int) bool {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", loopback(port))
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

func portFree(port int) bool {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", loopback(port)) // binding does not wait
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}
