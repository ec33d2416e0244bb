package ops

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Bounds of a connection to one address: for TCP and TLS alone, and with the login behind them.
const (
	brokerDial  = 5 * time.Second
	brokerLogin = 10 * time.Second
)

const brokerForm = "amqp://user:password@host:5672/vhost"

// Brokers are the addresses of one RabbitMQ cluster. They may be used from any goroutine.
type Brokers struct {
	all  []broker
	turn atomic.Uint64
}

type broker struct {
	addr string // host:port
	url  string // for the library: amqp:// with the port
	tls  *tls.Config
}

// BrokerLink is a connection to one broker, encrypted if its URL says amqps://.
type BrokerLink struct {
	net.Conn
	// Socket is the connection below the encryption: once it is closed, every call on Conn returns.
	Socket net.Conn
	// URL is what the AMQP library is told: always amqp://, since what is to be encrypted is encrypted already.
	URL Secret
}

// ParseBrokers reads AMQP_URL, one URL or several with commas between them, and the files AMQP_TLS_*. It tells all that is
// wrong at once, and quotes nothing of a URL: what cannot be read may be the password.
func ParseBrokers(urls Secret, files TLSFiles) (*Brokers, error) {
	cfg, err := files.load("AMQP_TLS_")
	errs := []error{err}
	b := &Brokers{}
	var first *url.URL
	list := splitURLs(urls.Reveal())
	for i, text := range list {
		u, err := parseBroker(text)
		if err == nil && first == nil {
			first = u
		}
		if err == nil {
			err = sameCluster(first, u)
		}
		if err != nil {
			name := "AMQP_URL"
			if len(list) > 1 {
				name += ", address " + strconv.Itoa(i+1)
			}
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		b.all = append(b.all, newBroker(u, cfg))
	}
	if first != nil && first.Scheme != "amqps" && files.any() {
		errs = append(errs, errors.New("AMQP_URL does not say amqps://, so AMQP_TLS_CA, AMQP_TLS_CERT and AMQP_TLS_KEY would not be used"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return b, nil
}

// splitURLs cuts at commas that a URL follows: a password may hold a comma.
func splitURLs(text string) []string {
	var list []string
	for i, piece := range strings.Split(text, ",") {
		if i > 0 && !strings.Contains(piece, "://") {
			list[len(list)-1] += "," + piece
			continue
		}
		list = append(list, strings.TrimSpace(piece))
	}
	return list
}

func parseBroker(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || strings.ContainsAny(text, " \t\r\n") || u.Fragment != "" || u.Opaque != "" {
		return nil, errors.New("it is not of the form " + brokerForm + "; in a user, a password or a vhost, characters such as / : @ # ? % are written as %2F and so on")
	}
	port, portErr := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case u.Scheme != "amqp" && u.Scheme != "amqps":
		return nil, errors.New("it begins with neither amqp:// nor amqps://")
	case u.Hostname() == "":
		return nil, errors.New("it names no host: write it as " + brokerForm)
	case strings.Contains(u.Host+u.EscapedPath(), ","):
		return nil, errors.New("it has a comma that no URL follows: give each address as a whole URL")
	case u.Port() != "" && (portErr != nil || port == 0):
		return nil, errors.New("its port is not a number from 1 to 65535")
	case u.RawQuery != "":
		return nil, errors.New("it has parameters behind a question mark, and none is known: certificates are set by AMQP_TLS_CA, AMQP_TLS_CERT and AMQP_TLS_KEY")
	}
	return u, nil
}

// sameCluster tells when two addresses cannot be those of one cluster, or when one of them lacks the encryption.
func sameCluster(a, b *url.URL) error {
	switch {
	case a.Scheme != b.Scheme:
		return errors.New("some addresses say amqps:// and some amqp://: all are encrypted, or none")
	case vhost(a) != vhost(b):
		return errors.New("its vhost is another one than that of the first address: all lead to one vhost of one cluster")
	}
	return nil
}

func vhost(u *url.URL) string {
	if len(u.Path) < 2 {
		return "/"
	}
	return u.Path[1:]
}

func newBroker(u *url.URL, cfg *tls.Config) broker {
	port := u.Port()
	if port == "" {
		port = map[string]string{"amqp": "5672", "amqps": "5671"}[u.Scheme]
	}
	b := broker{addr: net.JoinHostPort(u.Hostname(), port)}
	if u.Scheme == "amqps" {
		b.tls = cfg.Clone()
		b.tls.ServerName = u.Hostname()
	}
	plain := *u
	plain.Scheme, plain.Host = "amqp", b.addr
	b.url = plain.String()
	return b
}

// Turn is the order in which one session tries the addresses.
type Turn []broker

// Turn is the order for the next session: it begins with the address behind the one that the last session began with, the
// first session with the first.
func (b *Brokers) Turn() Turn {
	first := int((b.turn.Add(1) - 1) % uint64(len(b.all)))
	return append(append(Turn{}, b.all[first:]...), b.all[:first]...)
}

// Connect dials one address after the other until open takes a link. The context that open gets is bounded; a link that it
// did not take is closed. The error has what each address said, and no secret unless open puts one in.
func (t Turn) Connect(ctx context.Context, open func(ctx context.Context, link BrokerLink) error) error {
	var errs []error
	for _, b := range t {
		err := b.connect(ctx, open)
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", b.addr, err))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

func (b broker) connect(ctx context.Context, open func(context.Context, BrokerLink) error) error {
	ctx, cancel := context.WithTimeout(ctx, brokerLogin)
	defer cancel()
	link, err := b.dial(ctx)
	if err != nil {
		return err
	}
	if err := open(ctx, link); err != nil {
		_ = link.Socket.Close() // cutting it is the point
		return err
	}
	return nil
}

func (b broker) dial(ctx context.Context) (BrokerLink, error) {
	ctx, cancel := context.WithTimeout(ctx, brokerDial)
	defer cancel()
	socket, err := (&net.Dialer{}).DialContext(ctx, "tcp", b.addr)
	if err != nil {
		return BrokerLink{}, fmt.Errorf("connect: %w", err)
	}
	link := BrokerLink{Conn: socket, Socket: socket, URL: Secret(b.url)}
	if b.tls == nil {
		return link, nil
	}
	encrypted := tls.Client(socket, b.tls)
	if err := encrypted.HandshakeContext(ctx); err != nil {
		_ = socket.Close() // what is wrong is known already
		return BrokerLink{}, fmt.Errorf("encrypt: %w", err)
	}
	link.Conn = encrypted
	return link, nil
}
