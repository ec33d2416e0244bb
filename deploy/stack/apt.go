package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// wanted is something that packages can bring.
type wanted struct {
	why string // what is told to the person who watches
	// choices are lines of packages, best first: the first line whose packages are all to be had is installed.
	choices [][]string
	missing func(context.Context) bool
}

var (
	mysqlWanted = wanted{
		why: "no database server in PATH and no Docker engine; no service is started",
		// Ubuntu puts the version into the names.
		choices: [][]string{
			{"mysql-server-core", "mysql-client-core"},
			{"mysql-server-core-8.4", "mysql-client-core-8.4"},
			{"mysql-server-core-8.0", "mysql-client-core-8.0"},
			{"mariadb-server-core", "mariadb-client-core"},
			{"mariadb-server-core-10.6", "mariadb-client-core-10.6"},
		},
		missing: func(ctx context.Context) bool {
			_, err := findMySQL(ctx, nil)
			return errors.Is(err, errMissing)
		},
	}
	rabbitWanted = wanted{
		why:     "no RabbitMQ in PATH and no Docker engine; its service is not started and stays off",
		choices: [][]string{{"rabbitmq-server"}},
		missing: func(context.Context) bool {
			_, err := findRabbitMQ(nil)
			return errors.Is(err, errMissing)
		},
	}
)

// aptInstall installs the first choice that the distribution has, unless another process has done so by the time it is
// our turn. An installation that has begun is not interrupted by ctx: half a package is worse than a late answer.
func aptInstall(ctx context.Context, out io.Writer, w wanted) error {
	l, err := waitLock(ctx, filepath.Join(machineLocks(), "apt"))
	if err != nil {
		return err
	}
	defer l.release()
	if !w.missing(ctx) {
		return nil
	}
	apt, err := findApt(ctx)
	if err != nil {
		return fmt.Errorf("install packages: %w; install %s yourself, or start a Docker engine", err, packageNames(w.choices))
	}
	packages := apt.choose(ctx, w.choices)
	if packages == nil {
		if err := apt.asRoot(ctx, "apt-get", "update"); err != nil {
			return fmt.Errorf("update package lists: %w", err)
		}
		packages = apt.choose(ctx, w.choices)
	}
	if packages == nil {
		return fmt.Errorf("install packages: apt-get has none of %s; install it yourself, or start a Docker engine", packageNames(w.choices))
	}
	fmt.Fprintf(out, "installing %s with apt-get: %s\n", strings.Join(packages, " "), w.why)
	if err := ctx.Err(); err != nil {
		return err
	}
	whole := context.WithoutCancel(ctx)
	if apt.install(whole, packages) == nil {
		return nil
	}
	// The lists may be older than the archive.
	if err := apt.asRoot(ctx, "apt-get", "update"); err != nil {
		return fmt.Errorf("update package lists: %w", err)
	}
	if err := apt.install(whole, packages); err != nil {
		return fmt.Errorf("install %s: %w", strings.Join(packages, " "), err)
	}
	return nil
}

func packageNames(choices [][]string) string {
	var names []string
	for _, packages := range choices {
		names = append(names, packages[0])
	}
	return strings.Join(names, " or ")
}

// apt is the package system, used as root.
type apt struct {
	sudo []string // what comes before a command to run it as root
}

// findApt tells whether packages can be installed: with apt-get, and as root or through sudo.
func findApt(ctx context.Context) (apt, error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return apt{}, errors.New("there is no apt-get here")
	}
	if os.Getuid() == 0 {
		return apt{}, nil
	}
	if _, err := exec.LookPath("sudo"); err != nil {
		return apt{}, errors.New("this needs root or sudo")
	}
	if exec.CommandContext(ctx, "sudo", "-n", "true").Run() == nil {
		return apt{sudo: []string{"sudo", "-n"}}, nil
	}
	if info, err := os.Stdin.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		return apt{sudo: []string{"sudo"}}, nil // somebody can type the password
	}
	return apt{}, errors.New("this needs root, or sudo without a password")
}

// choose returns the first choice whose packages all have a candidate for installation, or nil.
func (a apt) choose(ctx context.Context, choices [][]string) []string {
	for _, packages := range choices {
		cmd := exec.CommandContext(ctx, "apt-cache", append([]string{"policy"}, packages...)...)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		out, err := cmd.Output()
		known := bytes.Count(out, []byte("Candidate:")) - bytes.Count(out, []byte("Candidate: (none)"))
		if err == nil && known == len(packages) {
			return packages
		}
	}
	return nil
}

// install runs installScript with the packages as its arguments.
func (a apt) install(ctx context.Context, packages []string) error {
	return a.asRoot(ctx, "sh", append([]string{"-c", installScript, "sh"}, packages...)...)
}

// installScript installs packages and keeps their services off: policy-rc.d forbids a package to start what it brings, a
// runlevel of 1 says the same to older scripts, and what a new package has enabled for the next boot is disabled again.
const installScript = `set -e
units="rabbitmq-server.service epmd.service epmd.socket"
new=""
for unit in $units; do
	[ -e "/lib/systemd/system/$unit" ] || [ -e "/etc/systemd/system/$unit" ] || new="$new $unit"
done
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	trap 'exit 1' INT TERM HUP
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 NEEDRESTART_SUSPEND=1
apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 "$@" </dev/null
for unit in $new; do
	[ -e "/lib/systemd/system/$unit" ] || continue
	systemctl disable "$unit" >/dev/null 2>&1 || deb-systemd-helper disable "$unit" >/dev/null 2>&1 || true
	case $unit in *.service) update-rc.d "${unit%.service}" disable >/dev/null 2>&1 || true ;; esac
done
`

// asRoot runs a command as root; its output is part of the error and of nothing else.
func (a apt) asRoot(ctx context.Context, name string, args ...string) error {
	line := append(append(append([]string{}, a.sudo...), name), args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Stdin = os.Stdin // for sudo's question
	out, err := cmd.CombinedOutput()
	if err != nil {
		lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
		return fmt.Errorf("%w:\n%s", err, bytes.Join(lines[max(0, len(lines)-tailLines):], []byte("\n")))
	}
	return nil
}
