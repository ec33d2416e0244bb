package binlog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"tailbox/cdc/relay"
)

// Checks looks at all that the relay needs of the source: the server's settings, the user's rights, the table. Where a
// server refuses the login, that is the only check. An error says that the server cannot be reached.
func (r *Reader) Checks(ctx context.Context) ([]relay.Check, error) {
	server, err := r.inspect(ctx, r.cfg.DB)
	if refused := loginCheck(err); refused != nil {
		return []relay.Check{*refused}, nil
	}
	if err != nil {
		return nil, err
	}
	checks := list{{Name: "source", Level: relay.CheckOK, Found: "is " + server.flavor + " " + server.version}}
	checks = append(checks, server.checks(r.cfg)...)
	checks = append(checks, r.checkServerID(ctx, server))
	if server.logged() {
		checks = append(checks, r.checkDump(ctx, server))
	}
	return checks, nil
}

// list gathers checks.
type list []relay.Check

func (l *list) ok(name, found string) {
	*l = append(*l, relay.Check{Name: name, Level: relay.CheckOK, Found: found})
}

func (l *list) warn(name, found, mend string) {
	*l = append(*l, relay.Check{Name: name, Level: relay.CheckWarn, Found: found, Mend: mend})
}

func (l *list) fail(reason relay.Reason, name, found, mend string) {
	*l = append(*l, relay.Check{Name: name, Level: relay.CheckFail, Found: found, Mend: mend, Reason: reason})
}

// checks compares what the server said with what the relay needs.
func (s *server) checks(cfg Config) []relay.Check {
	var checks list
	s.checkBinlog(&checks)
	s.checkFilters(&checks, cfg)
	s.checkDurability(&checks)
	s.checkRetention(&checks)
	s.checkReadOnly(&checks)
	s.checkRights(&checks, cfg)
	s.checkTable(&checks, cfg)
	return checks
}

func (s *server) logged() bool { return s.variables["log_bin"] == "ON" && s.dumpError == nil }

// checkBinlog: written, as whole rows, with column names, by transactions that have a name on every server.
func (s *server) checkBinlog(checks *list) {
	if s.variables["log_bin"] != "ON" {
		checks.fail(relay.NotRowLogged, "log_bin", "log_bin is OFF: the server writes no binlog",
			"start the server with --log-bin (in [mysqld]: log_bin=binlog)")
	}
	for _, v := range []struct{ name, want string }{
		{"binlog_format", "ROW"}, {"binlog_row_image", "FULL"}, {"binlog_row_metadata", "FULL"},
	} {
		value, known := s.variables[v.name]
		switch {
		case !known && v.name == "binlog_format": // a server that has no other format has no variable for it
		case strings.EqualFold(value, v.want):
			checks.ok(v.name, "is "+v.want)
		default:
			checks.fail(relay.NotRowLogged, v.name, fmt.Sprintf("%s is %s, the relay needs %s", v.name, value, v.want), s.setGlobal(v.name, v.want))
		}
	}
	if strings.EqualFold(s.variables["binlog_checksum"], "NONE") {
		checks.warn("binlog_checksum", "binlog_checksum is NONE: what was damaged on a disk or on the way is not noticed for certain", s.setGlobal("binlog_checksum", "CRC32"))
	} else {
		checks.ok("binlog_checksum", "is "+s.variables["binlog_checksum"])
	}
	switch {
	case s.gtid:
		checks.ok("gtid", "transactions have GTIDs: the relay can go on at another server")
	default:
		checks.warn("gtid", fmt.Sprintf("gtid_mode is %s: the relay halts when it finds another server", s.variables["gtid_mode"]),
			"SET PERSIST enforce_gtid_consistency=ON, then SET PERSIST gtid_mode=OFF_PERMISSIVE, ON_PERMISSIVE and ON, one after the other")
	}
}

// checkFilters: nothing keeps the outbox out of the binlog.
func (s *server) checkFilters(checks *list, cfg Config) {
	named := func(databases string) bool {
		for name := range strings.SplitSeq(databases, ",") {
			if strings.EqualFold(strings.TrimSpace(name), cfg.Outbox.Schema) {
				return true
			}
		}
		return false
	}
	switch {
	case s.doDB != "" && !named(s.doDB):
		checks.fail(relay.NotRowLogged, "binlog_do_db", fmt.Sprintf("binlog_do_db is %s: changes of %s are not logged", s.doDB, cfg.Outbox.Schema),
			fmt.Sprintf("start the server with --binlog-do-db=%s, too, or without binlog_do_db", cfg.Outbox.Schema))
	case named(s.ignoreDB):
		checks.fail(relay.NotRowLogged, "binlog_ignore_db", fmt.Sprintf("binlog_ignore_db is %s: changes of %s are not logged", s.ignoreDB, cfg.Outbox.Schema),
			fmt.Sprintf("start the server without --binlog-ignore-db=%s", cfg.Outbox.Schema))
	case s.replica && s.variables["log_replica_updates"] == "OFF":
		checks.fail(relay.NotRowLogged, "log_replica_updates", "the server is a replica and log_replica_updates is OFF: what comes from its source is not logged",
			"start the server with --log-slave-updates=ON, or point MYSQL_DSN at its source")
	default:
		checks.ok("binlog filters", "changes of "+cfg.Outbox.Schema+" are logged")
	}
}

// checkDurability: what was published survives a crash of the server's machine.
func (s *server) checkDurability(checks *list) {
	for _, name := range []string{"sync_binlog", "innodb_flush_log_at_trx_commit"} {
		if value := s.variables[name]; value != "1" {
			checks.warn(name, fmt.Sprintf("%s is %s: after a power failure the server may have lost transactions that were published", name, value),
				s.setGlobal(name, "1"))
			continue
		}
		checks.ok(name, "is 1")
	}
}

// leastRetention is how long a relay may be down, over a night, without a gap.
const leastRetention = 24 * time.Hour

func (s *server) checkRetention(checks *list) {
	const name = "binlog_expire_logs_seconds"
	keep := s.expiry()
	switch {
	case keep == 0:
		checks.ok(name, "binlog files are not purged by age")
	case keep < leastRetention:
		checks.warn(name, fmt.Sprintf("binlog files are purged at the age of %s: a relay that is down for longer finds a gap", keep), s.setGlobal(name, "604800"))
	default:
		checks.ok(name, "binlog files are kept for "+keep.String())
	}
}

// CheckReadOnly is the name of the check whether the server takes writes.
const CheckReadOnly = "read_only"

func (s *server) checkReadOnly(checks *list) {
	if on := s.variables["read_only"]; on == "ON" || on == "1" {
		checks.fail("", CheckReadOnly, "the server is read-only: the checkpoint cannot be saved", "point MYSQL_DSN at the primary, or SET GLOBAL read_only=OFF")
		return
	}
	checks.ok(CheckReadOnly, "the server takes writes")
}

func (s *server) checkRights(checks *list, cfg Config) {
	if s.variables["log_bin"] != "ON" {
		return
	}
	if s.dumpError != nil {
		checks.fail(relay.NotRowLogged, "rights", "the user may not read the binlog ("+serverMessage(s.dumpError)+")", grantReplication(cfg))
		return
	}
	checks.ok("rights", "the user may ask for the binlog's files")
}

func grantReplication(cfg Config) string {
	return fmt.Sprintf("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '%s'@'...'", cfg.Server.User)
}

// setGlobal is the statement that changes a variable for good, as the flavour spells it.
func (s *server) setGlobal(name, value string) string {
	if s.flavor == mariaDB {
		return fmt.Sprintf("SET GLOBAL %s=%s (and %s=%s in [mariadbd], so that it stays)", name, value, name, value)
	}
	return fmt.Sprintf("SET PERSIST %s=%s", name, value)
}

// loginCheck tells a refused login, which no retry mends.
func loginCheck(err error) *relay.Check {
	refused, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok {
		return nil
	}
	switch refused.Number {
	case 1044, 1045, 1049, 1698:
		return &relay.Check{
			Name: "login", Level: relay.CheckFail,
			Found:  "the server refuses the login (" + refused.Message + ")",
			Mend:   "give the right user, password and database in MYSQL_DSN",
			Reason: relay.SchemaMismatch,
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
