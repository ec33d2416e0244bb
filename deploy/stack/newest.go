package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	// defaultMirror is used when the host itself has no Debian mirror to take over.
	defaultMirror  = "http://deb.debian.org/debian"
	newestFolder   = "newest-root" // in Config.Base
	newestSuite    = "sid"
	newestDatabase = "mysql-server-core,mysql-client-core"
	newestBroker   = "rabbitmq-server"
)

// newestRoot returns the root folder of the Newest set, and makes it on first use. It is built under another name and
// renamed when it is complete; a file lock lets one process build while the others wait.
func newestRoot(ctx context.Context, cfg Config) (*root, error) {
	r := &root{dir: filepath.Join(cfg.Base, newestFolder), base: cfg.Base}
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		return nil, fmt.Errorf("use the %s servers: they run in a root folder of their own, which takes Linux and the root user", Newest)
	}
	l, err := waitLock(ctx, r.dir+".lock")
	if err != nil {
		return nil, err
	}
	defer l.release()
	if _, err := os.Stat(r.dir); !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	build := &root{dir: r.dir + ".new", base: r.base}
	fmt.Fprintf(cfg.Log, "making %s with debootstrap: MySQL and RabbitMQ of Debian %s, about 1 GB, once\n", r.dir, newestSuite)
	if err := build.bootstrap(ctx, cfg, r.dir+".log"); err != nil {
		return nil, fmt.Errorf("make %s: %w", r.dir, err)
	}
	if err := os.Rename(build.dir, r.dir); err != nil {
		return nil, fmt.Errorf("keep newest root: %w", err)
	}
	return r, nil
}

// bootstrap fills the root with a minimal Debian, the database and the broker.
func (r *root) bootstrap(ctx context.Context, cfg Config, log string) error {
	err := aptInstall(ctx, cfg.Log, debootstrapWanted)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(r.dir); err != nil {
		return fmt.Errorf("remove half a root: %w", err)
	}
	_ = os.Remove(log)

	host := readHostApt(ctx)
	env := append(plainEnv("/root", host.proxies...), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "RUNLEVEL=1",
		"DPKG_FORCE=unsafe-io") // no fsync for each file: on a busy disk that takes minutes
	err = runToEnd(ctx, Command{
		Name: "debootstrap", Path: "unshare", Env: env, LogFile: log,
		Args: append(buildAlone(), "debootstrap", "--variant=minbase", "--include="+newestDatabase,
			newestSuite, r.dir, host.mirror),
	})
	if err != nil {
		return err
	}
	if err := r.settle(host); err != nil {
		return err
	}
	_, args := r.command("", "sh", []string{"-ec", "apt-get update -q; " +
		"apt-get install -y -q --no-install-recommends -o Dpkg::Use-Pty=0 " + newestBroker + "; apt-get clean"})
	return runToEnd(ctx, Command{
		Name: "install " + newestBroker, Path: "unshare", Args: append(buildAlone(), args[len(ownMounts):]...), Env: env, LogFile: log,
	})
}

// buildAlone is unshare's arguments for building: mounts of its own, because debootstrap mounts things in the folder that
// it fills, and processes of its own, so that none of its many children lives on to write into what the next one builds.
func buildAlone() []string {
	return append([]string{"--pid", "--fork", "--kill-child"}, ownMounts...)
}

var debootstrapWanted = wanted{
	why:     "it makes the root folder of the newest servers",
	choices: [][]string{{"debootstrap", "debian-archive-keyring"}},
	missing: func(context.Context) bool { return len((*root)(nil).programs("debootstrap")) == 0 },
}

// settle writes the files that the fresh root needs before packages can be installed in it: how to reach the archive, a
// policy that starts no service, and the name of this machine.
func (r *root) settle(host hostApt) error {
	files := []struct {
		path, text string
		mode       fs.FileMode
	}{
		{"/etc/apt/apt.conf.d/99host", host.acquire, 0o600},
		{"/etc/ssl/certs/ca-certificates.crt", host.certificates, 0o644},
		{"/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755},
		{"/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n", 0o644},
	}
	for _, f := range files {
		err := os.MkdirAll(filepath.Dir(r.dir+f.path), 0o755)
		if err == nil && f.text != "" {
			err = os.WriteFile(r.dir+f.path, []byte(f.text), f.mode)
		}
		if err != nil {
			return fmt.Errorf("settle root: %w", err)
		}
	}
	return nil
}

// hostApt is what this machine's package system knows about reaching the archive.
type hostApt struct {
	mirror       string
	acquire      string   // its settings about fetching: proxies, certificates, checks
	proxies      []string // the same for programs that read the environment
	certificates string
}

// readHostApt asks apt itself, which has read every file and format it takes. Where it has no answer the default holds.
func readHostApt(ctx context.Context) hostApt {
	host := hostApt{mirror: defaultMirror}
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)",
		"Created-By: Packages", "Origin: Debian", "Label: Debian").Output()
	if mirrors := strings.Fields(string(out)); err == nil && len(mirrors) > 0 {
		host.mirror = mirrors[0]
	}
	settings, _ := exec.CommandContext(ctx, "apt-config", "dump").Output()
	for line := range bytes.Lines(settings) {
		if bytes.HasPrefix(line, []byte("Acquire::")) && !bytes.HasPrefix(line, []byte("Acquire::IndexTargets")) {
			host.acquire += string(line)
		}
	}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		value := os.Getenv(name)
		if value == "" && name == "http_proxy" {
			proxy, _ := exec.CommandContext(ctx, "apt-config", "shell", "p", "Acquire::http::Proxy").Output()
			value = strings.Trim(strings.TrimPrefix(strings.TrimSpace(string(proxy)), "p="), "'")
		}
		if value != "" {
			host.proxies = append(host.proxies, name+"="+value)
		}
	}
	certificates, _ := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	host.certificates = string(certificates)
	return host
}
