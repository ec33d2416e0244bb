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
	"regexp"
	"strings"
)

// mysqlPrograms is a database that can be run: programs here or in a root folder, or a container image.
type mysqlPrograms struct {
	root    *root  // nil on this machine itself
	server  string // mysqld or mariadbd
	install string // mariadb-install-db; MySQL needs none
	flavor  string
	version string
	image   string // set instead of the programs
}

// rabbitPrograms is a broker that can be run.
type rabbitPrograms struct {
	root    *root
	bin     string // the folder with rabbitmq-server and rabbitmqctl
	version string
	image   string
}

// errMissing says that a server is not on the machine.
var errMissing = errors.New("not found")

// locateMySQL finds the database of a set: on the machine, as a container, or by installing it.
func locateMySQL(ctx context.Context, cfg Config) (mysqlPrograms, error) {
	if cfg.Set == Newest {
		root, err := newestRoot(ctx, cfg)
		if err != nil {
			return mysqlPrograms{}, err
		}
		return findMySQL(ctx, root)
	}
	found, err := findMySQL(ctx, nil)
	if !cfg.Docker && !errors.Is(err, errMissing) {
		return found, err
	}
	if cfg.Docker || dockerAnswers(ctx) {
		found = mysqlPrograms{image: mysqlImage, flavor: FlavorMySQL, version: imageVersion(mysqlImage)}
		return found, fetchImage(ctx, cfg.Log, mysqlImage)
	}
	if err := aptInstall(ctx, cfg.Log, mysqlWanted); err != nil {
		return mysqlPrograms{}, err
	}
	return findMySQL(ctx, nil)
}

// locateRabbitMQ finds the broker of a set in the same way.
func locateRabbitMQ(ctx context.Context, cfg Config) (rabbitPrograms, error) {
	if cfg.Set == Newest {
		root, err := newestRoot(ctx, cfg)
		if err != nil {
			return rabbitPrograms{}, err
		}
		return findRabbitMQ(root)
	}
	found, err := findRabbitMQ(nil)
	if !cfg.Docker && !errors.Is(err, errMissing) {
		return found, err
	}
	if cfg.Docker || dockerAnswers(ctx) {
		found = rabbitPrograms{image: rabbitImage, version: imageVersion(rabbitImage)}
		return found, fetchImage(ctx, cfg.Log, rabbitImage)
	}
	if err := aptInstall(ctx, cfg.Log, rabbitWanted); err != nil {
		return rabbitPrograms{}, err
	}
	return findRabbitMQ(nil)
}

// findMySQL looks for MySQL first, then for MariaDB. The name does not tell: Debian's mysqld is a link to mariadbd.
func findMySQL(ctx context.Context, r *root) (mysqlPrograms, error) {
	var mariadb mysqlPrograms
	for _, name := range []string{"mysqld", "mariadbd"} {
		for _, path := range r.programs(name) {
			p, err := askVersion(ctx, r, path)
			if err != nil {
				return p, err
			}
			if p.flavor == FlavorMySQL {
				return p, nil
			}
			if mariadb.server == "" {
				mariadb = p
			}
		}
	}
	if mariadb.server == "" {
		return mariadb, fmt.Errorf("find mysqld or mariadbd: %w", errMissing)
	}
	for _, name := range []string{"mariadb-install-db", "mysql_install_db"} {
		if found := r.programs(name); len(found) > 0 {
			mariadb.install = found[0]
			return mariadb, nil
		}
	}
	return mariadb, fmt.Errorf("find mariadb-install-db, which belongs to %s: %w", mariadb.server, fs.ErrNotExist)
}

var versionPattern = regexp.MustCompile(`Ver (\d+\.\d+\.\d+\S*)`)

// askVersion lets a server program say what it is, as in "mysqld  Ver 10.11.14-MariaDB-0+deb12u2 for debian-linux-gnu".
func askVersion(ctx context.Context, r *root, path string) (mysqlPrograms, error) {
	program, args := r.command("", path, []string{"--no-defaults", "--version"})
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		return mysqlPrograms{}, fmt.Errorf("ask %s for its version: %w", path, err)
	}
	match := versionPattern.FindSubmatch(out)
	if match == nil {
		return mysqlPrograms{}, fmt.Errorf("ask %s for its version: cannot read %q", path, bytes.TrimSpace(out))
	}
	p := mysqlPrograms{root: r, server: path, flavor: FlavorMySQL, version: string(match[1])}
	if strings.Contains(p.version, "MariaDB") {
		p.flavor = FlavorMariaDB
	}
	return p, nil
}

// findRabbitMQ looks for the scripts that the broker's own package brings. The wrappers that distributions put into PATH
// are of no use: they insist on the system's user, folders and log files.
func findRabbitMQ(r *root) (rabbitPrograms, error) {
	folders := []string{"/usr/lib/rabbitmq/bin", "/usr/lib64/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"}
	for _, path := range r.programs("rabbitmq-server") {
		folders = append(folders, filepath.Dir(path))
	}
	for _, dir := range folders {
		script := r.resolve(filepath.Join(dir, "rabbitmq-server"))
		// rabbitmq-defaults stands beside the real script only.
		if _, err := os.Stat(r.path() + filepath.Join(filepath.Dir(script), "rabbitmq-defaults")); err != nil {
			continue
		}
		home := filepath.Base(filepath.Dir(filepath.Dir(script)))
		return rabbitPrograms{root: r, bin: filepath.Dir(script), version: strings.TrimPrefix(home, "rabbitmq_server-")}, nil
	}
	return rabbitPrograms{}, fmt.Errorf("find rabbitmq-server: %w", errMissing)
}
