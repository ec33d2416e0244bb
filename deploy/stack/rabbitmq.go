package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// RabbitMQ is a private broker with its management API. The user guest, password guest, may do everything.
//
// RabbitMQ writes a new quorum queue into a register on disk up to half a second after it has confirmed the declaration.
// Version 3.10, when killed before that, starts again with a queue that never answers. Real machines do not crash that
// soon; a test that kills should let the queue take a message or two first.
type RabbitMQ struct {
	*Server
	programs rabbitPrograms
	config   string
	tls      *TLS
}

// The broker's ports, in the order of Server.port.
const (
	portAMQP = iota
	portManagement
	portDistribution
	portEpmd
	portTLS
	portsPerServer
)

// NewRabbitMQ finds or installs the broker alone, as New does for both servers. Its files are in Dir/rabbitmq.
func NewRabbitMQ(ctx context.Context, cfg Config) (*RabbitMQ, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	programs, err := locateRabbitMQ(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := cfg.TLS.fits(programs.image); err != nil {
		return nil, err
	}
	r := &RabbitMQ{programs: programs, config: cfg.RabbitConfig, tls: cfg.TLS}
	r.Server = &Server{
		name: "rabbitmq",
		dir:  filepath.Join(cfg.Dir, "rabbitmq"),
		port: []int{cfg.AMQPPort, cfg.ManagementPort, 0, 0, 0},
		base: cfg.Base,
		rec: record{
			Name: "rabbitmq", Version: programs.version,
			Set: cfg.Set, Root: programs.root.path(), Detached: cfg.Detached,
		},
		launch: r.launch,
		probe:  r.probe,
	}
	if err := r.open(); err != nil {
		return nil, err
	}
	return r, nil
}

// Version is the broker's version, such as 4.3.0.
func (r *RabbitMQ) Version() string { return r.rec.Version }

// Port is the loopback port for AMQP 0-9-1.
func (r *RabbitMQ) Port() int { return r.port[portAMQP] }

// Addr is the address for AMQP 0-9-1, host and port.
func (r *RabbitMQ) Addr() string { return loopback(r.Port()) }

// URL is the amqp URL of a virtual host, "/" being the one that is always there.
func (r *RabbitMQ) URL(vhost string) string {
	return "amqp://guest:guest@" + r.Addr() + "/" + url.PathEscape(vhost)
}

// TLSURL is the amqps URL of a virtual host on a host name that leads to this machine. It works when Config.TLS was given.
func (r *RabbitMQ) TLSURL(host, vhost string) string {
	return "amqps://guest:guest@" + net.JoinHostPort(host, strconv.Itoa(r.port[portTLS])) + "/" + url.PathEscape(vhost)
}

// node is the broker's name among the Erlang nodes; its folders carry it too, so it must not change between starts.
func (r *RabbitMQ) node() string { return "rabbit@localhost" }

// launch starts the broker's VM, and a port mapper (epmd) of its own before it.
func (r *RabbitMQ) launch(ctx context.Context) (instance, error) {
	if r.programs.image != "" {
		return r.launchContainer(ctx)
	}
	if err := r.writeConfig(); err != nil {
		return nil, err
	}
	epmd, err := r.startEpmd(ctx)
	if err != nil {
		return nil, err
	}
	path, args := r.programs.root.command(r.dir, filepath.Join(r.programs.bin, "rabbitmq-server"), nil)
	vm, err := Start(Command{
		Name: r.name, Path: path, Args: args, Dir: r.dir, Env: r.env(),
		LogFile: r.logFile(), Grace: serverGrace, Detached: r.rec.Detached,
	})
	if err != nil {
		return nil, errors.Join(err, epmd.Kill())
	}
	return &rabbitProcesses{Process: vm, epmd: epmd}, nil
}

// writeConfig writes the files the broker reads at its start.
func (r *RabbitMQ) writeConfig() error {
	if err := os.MkdirAll(filepath.Join(r.dir, "data"), 0o755); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	config := r.serverConfig()
	if r.programs.image == "" {
		config += r.localConfig()
	}
	if r.tls != nil {
		folder := filepath.Join(r.dir, "tls")
		if err := r.tls.Save(folder); err != nil {
			return err
		}
		config += r.tls.brokerConfig(folder, loopback(r.port[portTLS]))
	}
	files := map[string]string{
		"rabbitmq.conf":   config + r.config + "\n",
		"enabled_plugins": "[rabbitmq_management].\n",
		"advanced.config": "[].\n",
		"env.conf":        "",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write broker configuration: %w", err)
		}
	}
	return nil
}

// serverConfig is what does not depend on where the broker runs. Nobody looks at statistics, so none are gathered; a
// smaller write-ahead log of the quorum queues saves memory and start time.
func (r *RabbitMQ) serverConfig() string {
	return `management.disable_stats = true
management_agent.disable_metrics_collector = true
raft.wal_max_size_bytes = 67108864
disk_free_limit.absolute = 50MB
`
}

func (r *RabbitMQ) localConfig() string {
	return fmt.Sprintf(`management.tcp.ip = 127.0.0.1
management.tcp.port = %d
`, r.port[portManagement])
}

// probe opens an AMQP connection, and asks the API and the port for TLS, so that they are there as well.
func (r *RabbitMQ) probe(ctx context.Context) error {
	conn, err := amqp.DialConfig(r.URL("/"), amqp.Config{Dial: func(network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, network, addr)
		if err == nil {
			err = c.SetDeadline(time.Now().Add(5 * time.Second))
		}
		return c, err
	}})
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	if err := conn.Close(); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	if r.tls != nil { // its listener comes last
		c, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", loopback(r.port[portTLS]))
		if err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		_ = c.Close()
	}
	_, err = r.API(ctx, "GET", "/vhosts", nil)
	return err
}

// Ctl runs rabbitmqctl against this broker and returns what it prints. It takes a second or more, most of it to start.
func (r *RabbitMQ) Ctl(ctx context.Context, args ...string) (string, error) {
	path, line := "docker", append([]string{"exec", r.containerName(), "rabbitmqctl", "-q"}, args...)
	if r.programs.image == "" {
		args = append([]string{"-q", "-n", r.node()}, args...)
		path, line = r.programs.root.command(r.dir, filepath.Join(r.programs.bin, "rabbitmqctl"), args)
	}
	for began := time.Now(); ; {
		cmd := exec.CommandContext(ctx, path, line...)
		if r.programs.image == "" {
			cmd.Env, cmd.Dir = r.env(), r.dir
		}
		out, err := cmd.CombinedOutput()
		switch {
		case err == nil:
			return string(out), nil
		case strings.Contains(string(out), notBooted) && time.Since(began) < ctlPatience: // each try takes a second
		default:
			return string(out), fmt.Errorf("rabbitmqctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
	}
}

// notBooted is what rabbitmqctl says of a broker that serves already and has not come to the end of its start.
const notBooted = "requires the 'rabbit' app to be running"

const ctlPatience = 20 * time.Second
