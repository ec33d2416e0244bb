package stack

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"
)

// env is the whole environment of the broker and of its command line tools.
func (r *RabbitMQ) env() []string {
	file := func(name string) string { return filepath.Join(r.dir, name) }
	return plainEnv(r.dir,
		"RABBITMQ_NODENAME="+r.node(),
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		"RABBITMQ_NODE_PORT="+strconv.Itoa(r.port[portAMQP]),
		"RABBITMQ_DIST_PORT="+strconv.Itoa(r.port[portDistribution]),
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
		"ERL_EPMD_PORT="+strconv.Itoa(r.port[portEpmd]),
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

// startEpmd starts the port mapper and returns when it listens. Left to itself, Erlang would start one that outlives
// everything and serves every node of the machine.
func (r *RabbitMQ) startEpmd(ctx context.Context) (*Process, error) {
	found := r.programs.root.programs("epmd")
	if len(found) == 0 {
		return nil, fmt.Errorf("find epmd, which belongs to Erlang: %w", errMissing)
	}
	port, log := strconv.Itoa(r.port[portEpmd]), filepath.Join(r.dir, "epmd.log")
	path, args := r.programs.root.command(r.dir, found[0], []string{"-port", port, "-address", "127.0.0.1"})
	epmd, err := Start(Command{
		Name: "epmd", Path: path, Args: args, Dir: r.dir, Env: plainEnv(r.dir), LogFile: log, Detached: r.rec.Detached,
	})
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !portAnswers(ctx, r.port[portEpmd]) {
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
	rec.Processes = []processRecord{p.record(), p.epmd.record()}
}
