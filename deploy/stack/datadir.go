package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// initialize makes the data folder in one step: under another name first, so that one that was cut short is not used.
func (m *MySQL) initialize(ctx context.Context) error {
	if _, err := os.Stat(m.Data()); err == nil {
		return nil
	}
	fresh, tmp := m.Data()+".new", filepath.Join(m.dir, "tmp")
	grants := filepath.Join(m.dir, "grants.sql")
	err := errors.Join(
		os.RemoveAll(fresh),
		os.MkdirAll(tmp, 0o755),
		os.WriteFile(grants, []byte(rootGrants), 0o644),
	)
	if err != nil {
		return fmt.Errorf("prepare data folder: %w", err)
	}
	path, args := m.programs.root.command(m.dir, m.programs.initializer(), m.programs.initArgs(fresh, tmp, grants))
	err = runToEnd(ctx, Command{
		Name: "initialize " + m.name, Path: path, Args: args, Dir: m.dir, Env: plainEnv(m.dir), LogFile: m.logFile(),
	})
	if err != nil {
		return err
	}
	if err := os.Rename(fresh, m.Data()); err != nil {
		return fmt.Errorf("keep data folder: %w", err)
	}
	return nil
}

// rootGrants lets root in from loopback: without name resolution the account root@localhost does not match 127.0.0.1.
const rootGrants = `CREATE USER IF NOT EXISTS 'root'@'127.0.0.1';
GRANT ALL PRIVILEGES ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;
`

// initializer is the program that makes a data folder.
func (p mysqlPrograms) initializer() string {
	if p.flavor == FlavorMariaDB {
		return p.install
	}
	return p.server
}

// initArgs are its arguments: root gets an empty password. MariaDB lets root@127.0.0.1 in by itself, MySQL by the grants.
func (p mysqlPrograms) initArgs(data, tmp, grants string) []string {
	args := append([]string{"--no-defaults", "--datadir=" + data, "--tmpdir=" + tmp}, asRoot()...)
	if p.flavor == FlavorMariaDB {
		// --force: a machine whose own name does not resolve will do.
		return append(args, "--force", "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve",
			"--innodb-log-file-size=64M")
	}
	return append(args, "--initialize-insecure", "--init-file="+grants,
		"--loose-innodb-redo-log-capacity=64M", "--performance-schema=OFF")
}
