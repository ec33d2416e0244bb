// Package prometheus_test holds the rules of Prometheus and the dashboard of Grafana against the metrics that the services
// really give, and lets promtool look at the rules.
package prometheus_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"tailbox/api/handler"
	"tailbox/api/handler/handlertest"
	"tailbox/cdc/binlog"
	"tailbox/cdc/checkpoint"
	"tailbox/cdc/console"
	"tailbox/cdc/relay"
	"tailbox/deploy/ops"
	"tailbox/schema/topology"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

// exposed is every metric with its labels' values, as the three services give them from the start on.
type exposed map[string]map[string][]string

// perRequest are metrics that have no series before the first request.
var perRequest = []string{"tailbox_api_requests_total", "tailbox_api_request_seconds"}

func gather(t *testing.T) exposed {
	t.Helper()
	registry := ops.Metrics()
	view := console.View{
		Relay: func() relay.Status {
			return relay.Status{Saved: relay.Position{ServerUUID: "u", File: "b.1", Pos: 4, CommittedAt: time.Now()}}
		},
		Members: func() []checkpoint.Member { return nil },
		Read:    func() binlog.ReadPlace { return binlog.ReadPlace{} },
		Repair:  func() (binlog.Repair, bool) { return binlog.Repair{}, false },
		Deleted: func() uint64 { return 0 },
		Source: func() binlog.Survey {
			survey := binlog.Survey{At: time.Now(), UUID: "u", Expiry: time.Hour} // so that there is a runway
			survey.Add("b.1", 100)
			survey.Add("b.2", 100)
			return survey
		},
		Now: time.Now,
	}
	registry.MustRegister(console.NewCollector(view))
	db, err := sql.Open("mysql", "nobody@tcp(127.0.0.1:1)/none")
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	_, err = consume.New(db, "amqp://127.0.0.1:1/", topology.Customers(topology.CustomersQueue), effect.Handlers(), consume.Config{Metrics: registry})
	require.NoError(t, err)
	description, err := os.ReadFile(filepath.Join("..", "..", "api", "openapi.yaml"))
	require.NoError(t, err)
	_, err = handler.New(&handlertest.Fake{}, description, handler.Config{Metrics: registry})
	require.NoError(t, err)

	names := exposed{"up": {"job": nil}}
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		names.add(family)
	}
	for _, name := range perRequest {
		require.Error(t, registry.Register(prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: "another"})), "%s is registered", name)
		names[name], names[name+"_bucket"] = map[string][]string{}, map[string][]string{}
		for _, label := range []string{"method", "route", "status"} {
			names[name][label], names[name+"_bucket"][label] = nil, nil
		}
	}
	return names
}

func (e exposed) add(family *dto.MetricFamily) {
	list := []string{family.GetName()}
	if family.GetType() == dto.MetricType_HISTOGRAM {
		list = []string{family.GetName() + "_bucket", family.GetName() + "_sum", family.GetName() + "_count"}
	}
	for _, name := range list {
		e[name] = map[string][]string{}
		for _, m := range family.GetMetric() {
			for _, pair := range m.GetLabel() {
				e[name][pair.GetName()] = append(e[name][pair.GetName()], pair.GetValue())
			}
		}
	}
}

var (
	named   = regexp.MustCompile(`\b(?:(?:tailbox|go|process)_[a-z0-9_]+|up)\b(?:\{([^}]*)\})?`)
	matcher = regexp.MustCompile(`(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
)

// check holds one expression against what there is: each metric, each label that is asked for, and each of its values.
func (e exposed) check(t *testing.T, where, expression string) (used []string) {
	t.Helper()
	for _, found := range named.FindAllStringSubmatch(expression, -1) {
		name, _, _ := strings.Cut(found[0], "{")
		labels, known := e[name]
		require.True(t, known, "%s: no service gives %s", where, name)
		used = append(used, name)
		for _, m := range matcher.FindAllStringSubmatch(found[1], -1) {
			if m[1] == "job" || m[1] == "instance" {
				continue
			}
			values, known := labels[m[1]]
			require.True(t, known, "%s: %s has no label %s", where, name, m[1])
			for value := range strings.SplitSeq(m[3], "|") {
				require.True(t, values == nil || slices.Contains(values, value), "%s: %s has no %s=%q", where, name, m[1], value)
			}
		}
	}
	return used
}

type rules struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr         string
			Labels, Annotations map[string]string
		}
	}
}

func TestAlertsAskForMetricsThatExist(t *testing.T) {
	t.Parallel()
	there := gather(t)
	text, err := os.ReadFile("alerts.yml")
	require.NoError(t, err)
	var r rules
	require.NoError(t, yaml.Unmarshal(text, &r))
	var names []string
	for _, group := range r.Groups {
		for _, rule := range group.Rules {
			names = append(names, rule.Alert)
			require.NotEmpty(t, there.check(t, rule.Alert, rule.Expr), rule.Alert)
			require.Contains(t, []string{"critical", "warning"}, rule.Labels["severity"], rule.Alert)
			require.NotEmpty(t, rule.Annotations["summary"], rule.Alert)
			require.NotEmpty(t, rule.Annotations["description"], rule.Alert)
		}
	}
	require.Subset(t, names, []string{"TailboxHalted", "TailboxLag", "TailboxRunwayShort", "TailboxRunwayGone", "TailboxCheckpointOld",
		"TailboxUnroutable", "TailboxDeadLetters", "TailboxNoLeader"})
}

type panel struct {
	Title, Type string
	Targets     []struct{ Expr string }
}

func readDashboard(t *testing.T) []panel {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "grafana", "dashboards", "tailbox.json"))
	require.NoError(t, err)
	var dashboard struct{ Panels []panel }
	require.NoError(t, json.Unmarshal(text, &dashboard))
	return dashboard.Panels
}

func asRules(t *testing.T) []byte {
	t.Helper()
	var list []map[string]string
	for _, panel := range readDashboard(t) {
		for _, target := range panel.Targets {
			list = append(list, map[string]string{"record": fmt.Sprintf("panel_%d", len(list)), "expr": strings.ReplaceAll(target.Expr, "$__rate_interval", "1m")})
		}
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": list}}})
	require.NoError(t, err)
	return text
}

// TestTheDashboardShowsEveryMetricOfOurs: it asks for nothing else, and leaves none out that it is a pity to miss.
func TestTheDashboardShowsEveryMetricOfOurs(t *testing.T) {
	t.Parallel()
	there := gather(t)
	used := map[string]bool{}
	for _, panel := range readDashboard(t) {
		require.True(t, panel.Type == "row" || len(panel.Targets) > 0, "%s shows nothing", panel.Title)
		for _, target := range panel.Targets {
			for _, name := range there.check(t, panel.Title, target.Expr) {
				used[strings.TrimSuffix(name, "_bucket")] = true
			}
		}
	}
	for name := range there {
		name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		if strings.HasPrefix(name, "tailbox_") && !slices.Contains(unshown, name) {
			require.True(t, used[name], "no panel shows %s", name)
		}
	}
}

// unshown are metrics that nobody has to watch: what is not ours, and rows deleted because their time was over.
var unshown = []string{"tailbox_relay_ignored_total", "tailbox_relay_deleted_total", "tailbox_worker_inbox_pruned_total"}

// contract are the names that are promised.
var contract = []string{
	"tailbox_relay_state", "tailbox_relay_lag_seconds", "tailbox_relay_lag_bytes", "tailbox_relay_in_flight", "tailbox_relay_events_total",
	"tailbox_relay_commit_to_confirm_seconds_bucket", "tailbox_relay_checkpoint_age_seconds", "tailbox_relay_runway_bytes",
	"tailbox_relay_reconnects_total", "tailbox_relay_leader", "tailbox_relay_epoch", "tailbox_worker_messages_total",
	"tailbox_worker_handle_seconds_bucket", "tailbox_worker_end_to_end_seconds_bucket", "tailbox_api_requests_total", "tailbox_api_request_seconds_bucket",
}

func TestWhatIsPromisedIsExposed(t *testing.T) {
	t.Parallel()
	there := gather(t)
	for _, name := range contract {
		require.Contains(t, there, name)
	}
	for _, stage := range []string{"read", "published", "confirmed", "returned", "nacked", "quarantined", "repaired"} {
		require.Contains(t, there["tailbox_relay_events_total"]["stage"], stage)
	}
	for _, outcome := range []string{"applied", "duplicate", "retried", "dead"} {
		require.Contains(t, there["tailbox_worker_messages_total"]["outcome"], outcome)
	}
}

func TestPromtoolAcceptsTheRulesAndTheirStories(t *testing.T) {
	t.Parallel()
	promtool := findPromtool(t)
	recorded := filepath.Join(t.TempDir(), "dashboard.yml") // its expressions as rules, which promtool can read
	require.NoError(t, os.WriteFile(recorded, asRules(t), 0o600))
	for _, args := range [][]string{{"check", "rules", recorded}, {"check", "config", "prometheus.yml"}, {"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput()
		require.NoError(t, err, "promtool %v:\n%s", args, out)
	}
}

// findPromtool is the path of promtool: of the machine's, or else of Debian's, which is unpacked and not installed, because an
// installed Prometheus would run.
func findPromtool(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("promtool"); err == nil {
		return path
	}
	dir := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "install promtool, which comes with Prometheus (Debian package prometheus): %s", out)
	}
	if exec.CommandContext(t.Context(), "apt-get", "--print-uris", "download", "prometheus").Run() != nil {
		run("apt-get", "update") // a bare machine has no lists of packages
	}
	run("apt-get", "download", "prometheus")
	packages, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	require.NoError(t, err)
	require.Len(t, packages, 1)
	run("dpkg-deb", "--extract", packages[0], dir)
	return filepath.Join(dir, "usr", "bin", "promtool")
}

// TestComposeMountsWhatIsThere: a file that is not there becomes an empty folder in a container.
func TestComposeMountsWhatIsThere(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	require.NoError(t, err)
	var compose struct {
		Services map[string]struct {
			Volumes  []string
			Profiles []string
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &compose))
	for _, name := range []string{"prometheus", "grafana"} {
		require.Equal(t, []string{"observability"}, compose.Services[name].Profiles, name)
	}
	for name, service := range compose.Services {
		for _, volume := range service.Volumes {
			if from, _, _ := strings.Cut(volume, ":"); strings.HasPrefix(from, "./") {
				_, err := os.Stat(filepath.Join(root, from))
				require.NoError(t, err, name)
			}
		}
	}
}
