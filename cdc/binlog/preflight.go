package binlog

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-sql-driver/mysql"

	"tailbox/cdc/outbox"
	"tailbox/cdc/relay"
)

// Finding is one thing about the server that keeps the relay from reading it safely.
type Finding struct {
	Problem string       // what is wrong, with the setting and its value
	Mend    string       // the statement or setting that mends it
	Reason  relay.Reason // for the state, when it is found while running
}

func (f Finding) String() string { return f.Problem + "; to mend it: " + f.Mend }

// Findings are all that preflight found. It is the error of Preflight.
type Findings []Finding

func (f Findings) Error() string {
	lines := make([]string, len(f))
	for i, finding := range f {
		lines[i] = finding.String()
	}
	return strings.Join(lines, "\n")
}

func (f Findings) halt() error { return &relay.Halt{Reason: f[0].Reason, Err: f} }

// Preflight connects once and returns Findings when the server, the user or the table is not fit, another error when the
// server cannot be reached, and nil when all is well. A refused login is a finding too.
func (r *Reader) Preflight(ctx context.Context) error {
	server, err := r.inspect(ctx)
	if refused := loginFinding(err); refused != nil {
		return Findings{*refused}
	}
	if err != nil {
		return err
	}
	if findings := server.findings(r.cfg); len(findings) > 0 {
		return findings
	}
	return nil
}

// findings compares what the server said with what the relay needs.
func (s *server) findings(cfg Config) (found Findings) {
	add := func(reason relay.Reason, problem, mend string) {
		found = append(found, Finding{Problem: problem, Mend: mend, Reason: reason})
	}

	// The binlog: written, as whole rows, with column names.
	if s.variables["log_bin"] != "ON" {
		add(relay.NotRowLogged, "log_bin is OFF: the server writes no binlog",
			"start the server with --log-bin (in [mysqld]: log_bin=binlog)")
	}
	for _, v := range []struct{ name, want string }{
		{"binlog_format", "ROW"}, {"binlog_row_image", "FULL"}, {"binlog_row_metadata", "FULL"},
	} {
		value, known := s.variables[v.name]
		if !known && v.name == "binlog_format" {
			continue // a server that has no other format has no variable for it
		}
		if !strings.EqualFold(value, v.want) {
			add(relay.NotRowLogged, fmt.Sprintf("%s is %s, the relay needs %s", v.name, value, v.want), s.setGlobal(v.name, v.want))
		}
	}

	// The user's rights.
	if s.dumpError != nil && s.variables["log_bin"] == "ON" {
		add(relay.NotRowLogged, "the user may not read the binlog ("+serverMessage(s.dumpError)+")",
			fmt.Sprintf("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '%s'@'...'", cfg.Server.User))
	}

	// The table.
	switch {
	case len(s.columns) == 0:
		add(relay.SchemaMismatch, fmt.Sprintf("the table %s does not exist, or the user may not see it", cfg.Outbox),
			fmt.Sprintf("apply the migrations (start the api with MIGRATE=true), or GRANT SELECT ON %s TO '%s'@'...'", cfg.Outbox, cfg.Server.User))
	case !strings.EqualFold(s.engine, "InnoDB"):
		add(relay.SchemaMismatch, fmt.Sprintf("the table %s has the engine %s, which has no transactions", cfg.Outbox, s.engine),
			fmt.Sprintf("ALTER TABLE %s ENGINE=InnoDB", cfg.Outbox))
	default:
		if _, err := outbox.NewMapping(s.columns); err != nil {
			add(relay.SchemaMismatch, err.Error(), "add the column to the table, or set OUTBOX_TABLE to the right one")
		}
	}
	return found
}

// Warnings are settings under which a crash of the server's machine can take back what was published already.
func (r *Reader) Warnings(ctx context.Context) (Findings, error) {
	s, err := r.inspect(ctx)
	if err != nil {
		return nil, err
	}
	var found Findings
	for _, name := range []string{"sync_binlog", "innodb_flush_log_at_trx_commit"} {
		if value := s.variables[name]; value != "1" {
			found = append(found, Finding{
				Problem: fmt.Sprintf("%s is %s: after a power failure the server may have lost transactions that were published", name, value),
				Mend:    s.setGlobal(name, "1"),
			})
		}
	}
	return found, nil
}

// setGlobal is the statement that changes a variable for good, as the flavour spells it.
func (s *server) setGlobal(name, value string) string {
	if s.flavor == mariaDB {
		return fmt.Sprintf("SET GLOBAL %s=%s (and %s=%s in [mariadbd], so that it stays)", name, value, name, value)
	}
	return fmt.Sprintf("SET PERSIST %s=%s", name, value)
}

// loginFinding tells a refused login, which no retry mends.
func loginFinding(err error) *Finding {
	refused, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok {
		return nil
	}
	switch refused.Number {
	case 1044, 1045, 1049, 1698:
		return &Finding{
			Problem: "the server refuses the login (" + refused.Message + ")",
			Mend:    "give the right user, password and database in MYSQL_DSN",
			Reason:  relay.SchemaMismatch,
		}
	}
	return nil
}

// refusesBinlog tells the errors by which a server says that it will not show its binlog: no rights, or no binlog.
func refusesBinlog(err error) bool {
	refused, ok := errors.AsType[*mysql.MySQLError](err)
	return ok && (refused.Number == 1227 || refused.Number == 1142 || refused.Number == 1381)
}

// serverMessage is what the server said, without the words that wrapped it.
func serverMessage(err error) string {
	if refused, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return refused.Message
	}
	return err.Error()
}
