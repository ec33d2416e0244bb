// Package mysql holds what the database needs besides its tables: the least-privileged users of the three services and of
// the migrations. The same file makes the users of `make dev`, of the tests and, through init.sh, of Docker Compose, so what
// is tested is what is deployed.
package mysql

import (
	"context"
	"database/sql"
	_ "embed" // users.sql
	"fmt"
	"os"
	"strings"
)

//go:embed users.sql
var users string

// Database is the name that users.sql grants on.
const Database = "tailbox"

// CreateUsers makes the users owner, api, cdc and worker on the server, each with its own name as password plus "-dev", and
// grants what they need on the database. For servers on loopback only.
func CreateUsers(ctx context.Context, root *sql.DB) error {
	text := os.Expand(users, func(name string) string { return Password(strings.ToLower(strings.TrimSuffix(name, "_PASSWORD"))) })
	for statement := range strings.SplitSeq(text, ";\n") {
		statement = withoutComments(statement)
		if statement == "" {
			continue
		}
		if _, err := root.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("create the services' users: %w", err)
		}
	}
	return nil
}

// Password is the one that CreateUsers gives to a user.
func Password(user string) string { return user + "-dev" }

func withoutComments(statement string) string {
	var lines []string
	for line := range strings.Lines(statement) {
		if !strings.HasPrefix(line, "--") {
			lines = append(lines, line)
		}
	}
	return strings.TrimSpace(strings.Join(lines, ""))
}
