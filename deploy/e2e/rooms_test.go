package e2e_test

import (
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// rooms says which packages of ours each room may import; a room that is not in it may import nothing of ours. A room
// stands for all folders below it that have no line of their own. main packages may wire the rooms of their service.
var rooms = map[string][]string{
	"schema":              {},
	"schema/schematest":   {"schema", "deploy/stack"},
	"api":                 {"schema", "deploy/ops", "api"},
	"cdc":                 {"schema", "deploy/ops", "cdc"},
	"cdc/binlog":          {"cdc/relay", "cdc/outbox", "schema"},
	"cdc/outbox":          {"schema"},
	"cdc/relay":           {"schema"},
	"cdc/relay/relaytest": {"cdc/relay", "schema"},
	"cdc/publish":         {"cdc/relay", "schema", "deploy/ops"},
	"cdc/checkpoint":      {"cdc/relay", "schema"},
	"cdc/trace":           {"cdc/relay", "deploy/ops"},
	"cdc/audit":           {},
	"cdc/console":         {"cdc/audit", "cdc/quarantine", "cdc/relay", "cdc/binlog", "cdc/checkpoint", "schema", "deploy/ops"},
	"cdc/retention":       {"cdc/binlog", "cdc/outbox", "cdc/relay"},
	"cdc/quarantine":      {"cdc/audit", "cdc/relay", "schema"},
	"worker":              {"schema", "deploy/ops", "worker"},
	"worker/effect":       {"schema", "deploy/ops"},
	"worker/inbox":        {"schema", "deploy/ops"},
	"deploy/ops":          {},
	"deploy/stack":        {},
	"deploy/mysql":        {},
	"deploy/services":     {"schema", "deploy/mysql", "deploy/stack"},
	"deploy/dev":          {"schema", "deploy/ops", "deploy/services", "deploy/stack"},
	"deploy/e2e":          {},
	"deploy/bench":        {},
	"deploy/openapitest":  {},
	"deploy/faults":       {},
	"deploy/browser":      {"deploy/stack"},
	"deploy/prometheus":   {},
	"deploy/healthcheck":  {},
}

// owners are the only rooms that may import a driver, besides tests and the kits for them.
var owners = map[string][]string{
	"github.com/go-mysql-org/go-mysql": {"cdc/binlog"},
	"github.com/rabbitmq/amqp091-go":   {"cdc/publish", "schema/topology", "worker/consume", "deploy/stack"},
	"github.com/gin-gonic/gin":         {"api/handler", "api"},
	"github.com/chromedp":              {"deploy/browser"},
}

type listed struct {
	ImportPath string
	Imports    []string
}

// TestRoomsImportOnlyWhatTheyMay: the test cache does not see a change of another package's imports, so `make test` and CI
// run this package with -count=1.
func TestRoomsImportOnlyWhatTheyMay(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "tailbox/...").Output()
	require.NoError(t, err)
	seen := 0
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; seen++ {
		var p listed
		if err := decoder.Decode(&p); err == io.EOF {
			break
		} else {
			require.NoError(t, err)
		}
		name := strings.TrimPrefix(p.ImportPath, "tailbox/")
		room, known := roomOf(name)
		require.True(t, known, "package %s belongs to no room: give it one in this test and in the README", name)
		for _, imported := range p.Imports {
			if ours, ok := strings.CutPrefix(imported, "tailbox/"); ok {
				require.True(t, within(ours, append(rooms[room], room)), "%s may not import %s", name, ours)
			}
			for driver, allowed := range owners {
				if imported == driver || strings.HasPrefix(imported, driver+"/") {
					require.True(t, within(name, allowed), "%s may not import %s: that driver belongs to %v", name, driver, allowed)
				}
			}
		}
	}
	require.Greater(t, seen, 15, "packages were looked at")
}

// roomOf is the longest line of the table that the package is in.
func roomOf(name string) (room string, known bool) {
	for candidate := range rooms {
		if (name == candidate || strings.HasPrefix(name, candidate+"/")) && len(candidate) > len(room) {
			room, known = candidate, true
		}
	}
	return room, known
}

func within(name string, rooms []string) bool {
	return slices.ContainsFunc(rooms, func(room string) bool { return name == room || strings.HasPrefix(name, room+"/") })
}
