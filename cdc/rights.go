package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"tailbox/cdc/checkpoint"
	"tailbox/cdc/relay"
	"tailbox/deploy/ops"
)

// use is what the relay does to a table besides reading the outbox's changes.
type use struct {
	table  string
	rights []string
}

// uses are the tables of the relay's own, all in the database of MYSQL_DSN.
var uses = []use{
	{checkpoint.Table, []string{"SELECT", "INSERT", "UPDATE"}},
	{"relay_member", []string{"SELECT", "INSERT", "UPDATE", "DELETE"}},
	{"relay_quarantine", []string{"SELECT", "INSERT", "UPDATE", "DELETE"}},
	{"relay_audit", []string{"SELECT", "INSERT"}},
}

// checkRights asks the server to explain each statement that the relay needs: that takes the same rights as running it, and
// changes nothing.
func checkRights(ctx context.Context, db *sql.DB, user string) ([]relay.Check, error) {
	var checks []relay.Check
	for _, use := range uses {
		check, err := use.check(ctx, db, user)
		if err != nil {
			return nil, fmt.Errorf("try the rights on %s: %w", use.table, err)
		}
		checks = append(checks, check)
	}
	return checks, nil
}

const (
	errNoTable      = 1146
	errTableDenied  = 1142
	errColumnDenied = 1143
)

func (u use) check(ctx context.Context, db *sql.DB, user string) (relay.Check, error) {
	check := relay.Check{Name: "table " + u.table, Level: relay.CheckOK, Found: "the user may " + strings.Join(u.rights, ", ")}
	var column string
	err := db.QueryRowContext(ctx, `SELECT column_name FROM information_schema.columns
		WHERE table_schema = DATABASE() AND table_name = ? ORDER BY ordinal_position LIMIT 1`, u.table).Scan(&column)
	if errors.Is(err, sql.ErrNoRows) {
		check.Level, check.Reason = relay.CheckFail, relay.SchemaMismatch
		check.Found = "the table " + u.table + " does not exist, or the user may not see it"
		check.Mend = fmt.Sprintf("apply the migrations (start with MIGRATE=true), or %s", u.grant(u.rights, user))
		return check, nil
	}
	if err != nil {
		return check, err
	}
	var missing []string
	for _, right := range u.rights {
		may, err := explain(ctx, db, u.statement(right, column))
		if err != nil {
			return check, err
		}
		if !may {
			missing = append(missing, right)
		}
	}
	if len(missing) > 0 {
		check.Level, check.Reason = relay.CheckFail, relay.SchemaMismatch
		check.Found = fmt.Sprintf("the user may not %s", strings.Join(missing, ", "))
		check.Mend = u.grant(missing, user)
	}
	return check, nil
}

func (u use) grant(rights []string, user string) string {
	return fmt.Sprintf("GRANT %s ON %s TO '%s'@'...'", strings.Join(rights, ", "), u.table, user)
}

// statement needs the right, and no other one that the relay has not.
func (u use) statement(right, column string) string {
	switch right {
	case "INSERT":
		return fmt.Sprintf("INSERT INTO `%s` () VALUES ()", u.table)
	case "UPDATE":
		return fmt.Sprintf("UPDATE `%s` SET `%s` = DEFAULT(`%s`)", u.table, column, column)
	case "DELETE":
		return fmt.Sprintf("DELETE FROM `%s`", u.table)
	default:
		return fmt.Sprintf("SELECT `%s` FROM `%s`", column, u.table)
	}
}

// explain tells whether the user may run a statement. The server looks at rights first: another complaint is no denial.
func explain(ctx context.Context, db *sql.DB, statement string) (may bool, err error) {
	rows, err := db.QueryContext(ctx, "EXPLAIN "+statement)
	switch ops.MySQLCode(err) {
	case 0:
	case errTableDenied, errColumnDenied, errNoTable:
		return false, nil
	default:
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer rows.Close()
	for rows.Next() { // what the plan says is of no interest
	}
	return true, rows.Err()
}
