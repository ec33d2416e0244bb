package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	mysqlImage  = "mysql:9.7"
	rabbitImage = "rabbitmq:4.3-management"
	// baseLabel is on every container and volume of ours; its value is Config.Base.
	baseLabel = "tailbox.base"
	// dockerTimeout bounds a Docker command that is not expected to wait for anything.
	dockerTimeout = time.Minute
)

// dockerAnswers tells whether there is a Docker engine, which a client alone is not.
func dockerAnswers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, "docker", "info").Run() == nil
}

// docker runs a Docker command to its end.
func docker(ctx context.Context, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("docker %s: %w: %s", args[0], err, bytes.TrimSpace(out))
	}
	return out, nil
}

// fetchImage pulls an image unless it is there.
func fetchImage(ctx context.Context, out io.Writer, image string) error {
	if _, err := docker(ctx, "image", "inspect", image); err == nil {
		return nil
	}
	fmt.Fprintf(out, "pulling the Docker image %s: no such server in PATH\n", image)
	_, err := docker(ctx, "pull", "--quiet", image)
	return err
}

// imageVersion reads the version off an image's tag.
func imageVersion(image string) string {
	_, tag, _ := strings.Cut(image, ":")
	version, _, _ := strings.Cut(tag, "-")
	return version
}

// container is one run of a server as a Docker container: the process is the client that stays in the foreground and
// copies the server's log. The container does not die with us, so its name, made from the folder, finds it again.
type container struct {
	*Process
	name string
}

// containerName is the same for a folder at every start; the volume with the data has that name too.
func (s *Server) containerName() string {
	return fmt.Sprintf("tailbox-%s-%08x", filepath.Base(s.dir), crc32.ChecksumIEEE([]byte(s.dir)))
}

// runContainer runs an image with a volume for its data, in place of a container that an earlier run left.
func (s *Server) runContainer(ctx context.Context, image, data string, options, command []string) (instance, error) {
	name, label := s.containerName(), baseLabel+"="+s.base
	if err := removeContainer(ctx, name); err != nil {
		return nil, err
	}
	if _, err := docker(ctx, "volume", "create", "--label", label, name); err != nil {
		return nil, err
	}
	args := append([]string{"run", "--rm", "--name", name, "--label", label, "--volume", name + ":" + data}, options...)
	p, err := Start(Command{
		Name: s.name, Path: "docker", Args: append(append(args, image), command...),
		LogFile: s.logFile(), Detached: s.rec.Detached,
	})
	if err != nil {
		return nil, err
	}
	return &container{Process: p, name: name}, nil
}

// removeContainer kills and removes a container; there may be none.
func removeContainer(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, dockerTimeout)
	defer cancel()
	_, err := docker(ctx, "rm", "--force", name)
	if err != nil && strings.Contains(err.Error(), "No such container") {
		return nil
	}
	return err
}

// Stop stops the container politely. A paused one is resumed first, since it could not hear the request.
func (c *container) Stop(ctx context.Context) error {
	grace := strconv.Itoa(int(serverGrace.Seconds()))
	select {
	case <-c.Done():
	default:
		_ = c.Resume()
		_, _ = docker(ctx, "stop", "-t", grace, c.name)
	}
	return c.Kill()
}

// Kill ends the container with SIGKILL, then the client, which has nothing more to copy.
func (c *container) Kill() error {
	err := removeContainer(context.Background(), c.name)
	return errors.Join(err, c.Process.Kill())
}

// Pause freezes all processes of the container.
func (c *container) Pause() error { return c.do("pause") }

// Resume lets them go on.
func (c *container) Resume() error { return c.do("unpause") }

func (c *container) do(verb string) error {
	ctx, cancel := context.WithTimeout(context.Background(), dockerTimeout)
	defer cancel()
	_, err := docker(ctx, verb, c.name)
	return err
}

func (c *container) describe(rec *record) {
	c.Process.describe(rec)
	rec.Container = c.name
}

// publish is the option that makes a port of the container one of this machine's loopback ports.
func publish(port, inside int) string {
	return "--publish=" + loopback(port) + ":" + strconv.Itoa(inside)
}

func (m *MySQL) launchContainer(ctx context.Context) (instance, error) {
	return m.runContainer(ctx, m.programs.image, "/var/lib/mysql",
		[]string{publish(m.Port(), 3306), "--env=MYSQL_ALLOW_EMPTY_PASSWORD=yes", "--env=MYSQL_ROOT_HOST=%"},
		append(m.serverOptions(), m.options...))
}

func (r *RabbitMQ) launchContainer(ctx context.Context) (instance, error) {
	if err := r.writeConfig(); err != nil {
		return nil, err
	}
	return r.runContainer(ctx, r.programs.image, "/var/lib/rabbitmq", []string{
		publish(r.port[portAMQP], 5672), publish(r.port[portManagement], 15672),
		"--env=RABBITMQ_NODENAME=" + r.node(), "--env=RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=" + lightVM,
		"--volume=" + filepath.Join(r.dir, "rabbitmq.conf") + ":/etc/rabbitmq/conf.d/90-tailbox.conf:ro",
	}, nil)
}

// removeContainers removes every container and volume that belongs to a base folder.
func removeContainers(ctx context.Context, base string) error {
	filter := "--filter=label=" + baseLabel + "=" + base
	var errs []error
	for _, kind := range []struct{ list, remove []string }{
		{[]string{"ps", "--all", "--quiet", filter}, []string{"rm", "--force"}},
		{[]string{"volume", "ls", "--quiet", filter}, []string{"volume", "rm", "--force"}},
	} {
		out, err := docker(ctx, kind.list...)
		if names := strings.Fields(string(out)); err == nil && len(names) > 0 {
			_, err = docker(ctx, append(kind.remove, names...)...)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
