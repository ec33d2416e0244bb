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
type RabbitMQ struct {
	*Server
	programs rabbitPrograms
	config   string
}

// The broker's ports, in the order of Server.wanted.
const (
	portAMQP = iota
	portManagement
	portDistribution
	portEpmd
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
	r := &RabbitMQ{programs: programs, config: cfg.RabbitConfig}
	r.Server = &Server{
		name:   "rabbitmq",
		dir:    filepath.Join(cfg.Dir, "rabbitmq"),
		wanted: []int{cfg.AMQPPort, cfg.ManagementPort, 0, 0},
		base:   cfg.Base,
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
func (r *RabbitMQ) Port() int { return r.wanted[portAMQP] }

// Addr is the address for AMQP 0-9-1, host and port.
func (r *RabbitMQ) Addr() string { return loopback(r.Port()) }

// URL is the amqp URL of a virtual host, "/" being the one that is always there.
func (r *RabbitMQ) URL(vhost string) string {
	return "amqp://guest:guest@" + r.Addr() + "/" + url.PathEscape(vhost)
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
		LogFile: r.logFile(), Detached: r.rec.Detached,
	})
	if err != nil {
		return nil, errors.Join(err, epmd.Kill())
	}
	return &rabbitProcesses{Process: vm, epmd: epmd}, nil
}

// startEpmd starts the port mapper and returns when it listens. Left to itself, Erlang would start one that outlives
// everything and serves every node of the machine.
func (r *RabbitMQ) startEpmd(ctx context.Context) (*Process, error) {
	found := r.programs.root.programs("epmd")
	if len(found) == 0 {
		return nil, fmt.Errorf("find epmd, which belongs to Erlang: %w", errMissing)
	}
	port, log := strconv.Itoa(r.wanted[portEpmd]), filepath.Join(r.dir, "epmd.log")
	path, args := r.programs.root.command(r.dir, found[0], []string{"-port", port, "-address", "127.0.0.1"})
	epmd, err := Start(Command{
		Name: "epmd", Path: path, Args: args, Dir: r.dir, Env: plainEnv(r.dir), LogFile: log, Detached: r.rec.Detached,
	})
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for portFree(r.wanted[portEpmd]) {
		select {
		case <-tick.C:
		case <-epmd.Done():
			return nil, fmt.Errorf("start epmd: it ended at once; last lines of %s:\n%s", log, tail(log))
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("start epmd: %w", ctx.Err()), epmd.Kill())
		}
	}
	return epmd, nil
}

// helperTimeout is how long the VM's helpers may take to notice its end.
const helperTimeout = 3 * time.Second

// rabbitProcesses is one run of the broker: the VM, which is the process that counts, and its port mapper.
type rabbitProcesses struct {
	*Process
	epmd *Process
}

// Stop stops the VM, then the port mapper, which has nothing to lose.
func (p *rabbitProcesses) Stop(ctx context.Context) error {
	return p.end(func() error { return p.Process.Stop(ctx) })
}

// Kill kills both.
func (p *rabbitProcesses) Kill() error { return p.end(p.Process.Kill) }

// end ends the VM and waits for its helpers, such as the one that starts programs for it. They are in sessions of their
// own and go by themselves when they see the VM gone, a moment later.
func (p *rabbitProcesses) end(endVM func() error) error {
	helpers := descendants(p.pid)
	errs := []error{endVM(), p.epmd.Kill()}
	ctx, cancel := context.WithTimeout(context.Background(), helperTimeout)
	defer cancel()
	for _, rec := range helpers {
		helper, err := adopt(rec.Name, rec.Pid, rec.Started)
		if err == nil && helper.Wait(ctx) != nil {
			errs = append(errs, helper.Kill())
		}
	}
	return errors.Join(errs...)
}

func (p *rabbitProcesses) describe(rec *record) {
	rec.Processes = []processRecord{p.Process.record(), p.epmd.record()}
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
`, r.wanted[portManagement])
}

// env is the whole environment of the broker and of its command line tools.
func (r *RabbitMQ) env() []string {
	file := func(name string) string { return filepath.Join(r.dir, name) }
	return plainEnv(r.dir,
		"RABBITMQ_NODENAME="+r.node(),
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		"RABBITMQ_NODE_PORT="+strconv.Itoa(r.wanted[portAMQP]),
		"RABBITMQ_DIST_PORT="+strconv.Itoa(r.wanted[portDistribution]),
		"RABBITMQ_BASE="+r.dir,
		"RABBITMQ_MNESIA_BASE="+file("data"),
		"RABBITMQ_LOG_BASE="+r.dir,
		"RABBITMQ_LOGS=-",
		"RABBITMQ_CONF_ENV_FILE="+file("env.conf"),
		"RABBITMQ_CONFIG_FILE="+file("rabbitmq.conf"),
		"RABBITMQ_ADVANCED_CONFIG_FILE="+file("advanced.config"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+file("enabled_plugins"),
		"RABBITMQ_GENERATED_CONFIG_DIR="+file("data/config"),
		"RABBITMQ_SCHEMA_DIR="+file("data/schema"),
		// The script then becomes the VM instead of staying before it, so that our signals reach the VM.
		"RABBITMQ_ALLOW_INPUT=1",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-noinput "+loopbackOnly+" "+lightVM,
		"RABBITMQ_CTL_ERL_ARGS="+loopbackOnly,
		"RABBITMQ_CTL_DIST_PORT_MIN=0",
		"RABBITMQ_CTL_DIST_PORT_MAX=0",
		// No Erlang program may start a port mapper when ours is not there, rabbitmqctl least of all.
		"ERL_AFLAGS=-start_epmd false",
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_EPMD_PORT="+strconv.Itoa(r.wanted[portEpmd]),
		"ERL_CRASH_DUMP_SECONDS=0",
	)
}

const (
	// loopbackOnly keeps Erlang's distribution on this machine.
	loopbackOnly = "-kernel inet_dist_use_interface {127,0,0,1}"
	// lightVM is for a machine with two cores that has other work to do: few schedulers, which spin for a moment only.
	// No spinning at all (none) doubles the start time and costs more: every file access then waits for a thread to wake.
	lightVM = "+S 2:2 +SDcpu 2:2 +sbwt very_short +sbwtdio very_short +sbwtdcpu none"
)

// probe opens an AMQP connection, and asks the API so that it is there as well.
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
	cmd := exec.CommandContext(ctx, path, line...)
	if r.programs.image == "" {
		cmd.Env, cmd.Dir = r.env(), r.dir
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("rabbitmqctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
