package stack_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/stack"
)

// fakeDocker stands in for a Docker engine: it writes down how it was called, and a container is a process that sleeps.
const fakeDocker = `#!/bin/sh
echo "$*" >>"$FAKE_DOCKER/calls"
case $1 in
ps) echo deadbeef ;;
run) echo $$ >"$FAKE_DOCKER/pid"; exec sleep 1000 ;;
stop | rm) [ ! -e "$FAKE_DOCKER/pid" ] || kill -9 "$(cat "$FAKE_DOCKER/pid")"; rm -f "$FAKE_DOCKER/pid" ;;
esac
`

// dockerCalls puts the fake into PATH and returns a function that lists the calls since it was called last, with what
// differs from run to run left out.
func dockerCalls(t *testing.T, dir string) func() []string {
	t.Helper()
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "docker"), []byte(fakeDocker), 0o755))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("FAKE_DOCKER", bin)
	vary := regexp.MustCompile(`-[0-9a-f]{8}\b|127\.0\.0\.1:\d+|--server-id=\d+`)
	seen := 0
	return func() []string {
		text, err := os.ReadFile(filepath.Join(bin, "calls"))
		require.NoError(t, err)
		calls := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(text), dir, "DIR")), "\n")
		fresh := calls[seen:]
		seen = len(calls)
		for i := range fresh {
			fresh[i] = vary.ReplaceAllStringFunc(fresh[i], func(s string) string {
				return map[byte]string{'-': "-HASH", '1': "ADDR"}[s[0]]
			})
		}
		return slices.Compact(fresh) // a start that was cut short cleans up too
	}
}

// startInBackground starts a server that will never answer, and returns when its container runs.
func startInBackground(t *testing.T, s *stack.Server) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- s.Start(context.Background()) }()
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(os.Getenv("FAKE_DOCKER"), "pid"))
		return err == nil && s.Pid() != 0
	}, 10*time.Second, time.Millisecond)
	return ended
}

func TestDatabaseRunsInAContainer(t *testing.T) {
	dir := t.TempDir()
	calls := dockerCalls(t, dir)
	m, err := stack.NewMySQL(t.Context(), stack.Config{
		Dir: dir, Base: dir, Docker: true, MySQLOptions: []string{"--max-connections=77"},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Stop(context.Background())) })
	require.Equal(t, stack.FlavorMySQL, m.Flavor())
	require.Equal(t, "9.7", m.Version())
	require.Equal(t, []string{"image inspect mysql:9.7"}, calls())

	ended := startInBackground(t, m.Server)
	got := calls()
	require.Equal(t, []string{
		"rm --force tailbox-mysql-HASH",
		"volume create --label tailbox.base=DIR tailbox-mysql-HASH",
	}, got[:2])
	require.Equal(t, "run --rm --name tailbox-mysql-HASH --label tailbox.base=DIR --volume tailbox-mysql-HASH:/var/lib/mysql "+
		"--publish=ADDR:3306 --env=MYSQL_ALLOW_EMPTY_PASSWORD=yes --env=MYSQL_ROOT_HOST=% mysql:9.7 -HASH --log-bin=binlog "+
		"--binlog-format=ROW --binlog-row-image=FULL --binlog-row-metadata=FULL --sync-binlog=1 "+
		"--innodb-flush-log-at-trx-commit=1 --innodb-buffer-pool-size=128M --character-set-server=utf8mb4 "+
		"--default-time-zone=+00:00 --skip-name-resolve --performance-schema=OFF --gtid-mode=ON "+
		"--enforce-gtid-consistency=ON --secure-file-priv=NULL --loose-innodb-redo-log-capacity=64M --loose-mysqlx=OFF "+
		"--max-connections=77", got[2])

	require.NoError(t, m.Pause())
	require.NoError(t, m.Resume())
	require.NoError(t, m.Kill())
	require.ErrorContains(t, <-ended, "ended before it was ready")
	require.Equal(t, []string{
		"pause tailbox-mysql-HASH", "unpause tailbox-mysql-HASH", "rm --force tailbox-mysql-HASH",
	}, calls())

	ended = startInBackground(t, m.Server)
	calls()
	require.NoError(t, m.Stop(t.Context()))
	require.Error(t, <-ended)
	require.Equal(t, []string{
		"unpause tailbox-mysql-HASH", "stop -t 45 tailbox-mysql-HASH", "rm --force tailbox-mysql-HASH",
	}, calls())

	require.NoError(t, stack.Clean(t.Context(), dir))
	require.Equal(t, []string{
		"rm --force tailbox-mysql-HASH",
		"ps --all --quiet --filter=label=tailbox.base=DIR", "rm --force deadbeef",
		"volume ls --quiet --filter=label=tailbox.base=DIR",
	}, calls())
}

func TestBrokerRunsInAContainer(t *testing.T) {
	dir := t.TempDir()
	calls := dockerCalls(t, dir)
	r, err := stack.NewRabbitMQ(t.Context(), stack.Config{
		Dir: dir, Base: dir, Docker: true, RabbitConfig: "channel_max = 7",
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Stop(context.Background())) })
	require.Equal(t, "4.3", r.Version())

	ended := startInBackground(t, r.Server)
	_, err = r.Ctl(t.Context(), "list_vhosts")
	require.NoError(t, err)
	require.NoError(t, r.Kill())
	require.Error(t, <-ended)
	require.Equal(t, []string{
		"image inspect rabbitmq:4.3-management",
		"rm --force tailbox-rabbitmq-HASH",
		"volume create --label tailbox.base=DIR tailbox-rabbitmq-HASH",
		"run --rm --name tailbox-rabbitmq-HASH --label tailbox.base=DIR --volume tailbox-rabbitmq-HASH:/var/lib/rabbitmq " +
			"--publish=ADDR:5672 --publish=ADDR:15672 --env=RABBITMQ_NODENAME=rabbit@localhost " +
			"--env=RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 2:2 +SDcpu 2:2 +sbwt very_short +sbwtdio very_short +sbwtdcpu none " +
			"--volume=DIR/rabbitmq/rabbitmq.conf:/etc/rabbitmq/conf.d/90-tailbox.conf:ro rabbitmq:4.3-management",
		"exec tailbox-rabbitmq-HASH rabbitmqctl -q list_vhosts",
		"rm --force tailbox-rabbitmq-HASH",
	}, calls())
	config, err := os.ReadFile(filepath.Join(dir, "rabbitmq", "rabbitmq.conf"))
	require.NoError(t, err)
	require.Contains(t, string(config), "channel_max = 7\n")
	require.NotContains(t, string(config), "127.0.0.1", "a container's own loopback reaches nobody")
}
