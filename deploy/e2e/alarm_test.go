package e2e_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// alarm is a resource of the broker that a test can make short: Erlang calls that do so and that end it.
type alarm struct{ name, begin, end string }

var (
	memoryAlarm = alarm{"memory", `vm_memory_monitor:set_vm_memory_high_watermark(0.0)`, `vm_memory_monitor:set_vm_memory_high_watermark(0.6)`}
	diskAlarm   = alarm{"disk", `rabbit_disk_monitor:set_disk_free_limit("1000000GB")`, `rabbit_disk_monitor:set_disk_free_limit("50MB")`}
)

// outlast is longer than any patience with a broker that says nothing: heartbeats and confirms run out before.
const outlast = 20 * time.Second

// TestAlarmsAreWaitedOutUnderLoad: memory and disk alarms, of which one lasts longer than heartbeats and confirms may be
// missing. The relay says why it sends nothing, keeps its connection, and goes on when the alarm is over.
func TestAlarmsAreWaitedOutUnderLoad(t *testing.T) {
	t.Parallel()
	w := setup(t)
	audit := w.audit("#")
	l := w.load(8, 0)
	w.recovers("the start")
	for i := range count(10) {
		length := 500 * time.Millisecond
		if i == 0 {
			length = outlast
		}
		l.goesOn(func() { w.raise(memoryAlarm, func() { pause(t, length) }) })
	}
	for range count(5) {
		l.goesOn(func() { w.raise(diskAlarm, func() { pause(t, 500*time.Millisecond) }) })
	}
	require.Zero(t, w.metric(w.cdc, brokerReconnects), "an alarm costs no connection")
	w.survived(l, audit)
}

// raise has the alarm last at least as long as meanwhile runs, and measures from its end until an event has its effect.
func (w *world) raise(a alarm, meanwhile func()) {
	w.t.Helper()
	w.evaluate(a.begin)
	w.blocked()
	meanwhile()
	w.blocked()
	over := w.evaluate(a.end)
	w.recoversSince(over, "a "+a.name+" alarm")
	w.waitFor("the relay to stream", recoveryLimit, func() bool { return w.position().State == "streaming" })
}

// blocked waits until the relay says that an alarm holds it up.
func (w *world) blocked() {
	w.t.Helper()
	w.waitFor("the relay to say that the broker raised an alarm", 20*time.Second, func() bool {
		var p position // no answer is one, too: the relay may just be starting
		err := w.call(w.t.Context(), http.MethodGet, w.cdc.URL("/position"), "", http.StatusOK, &p)
		return err == nil && p.State == "blocked" && p.Reason == "broker_alarm"
	})
}

// evaluate has the broker do something, and tells when it had.
func (w *world) evaluate(call string) time.Time {
	w.t.Helper()
	out, err := w.stack.Rabbit.Ctl(w.t.Context(), "eval", fmt.Sprintf("%s, os:system_time(millisecond).", call))
	require.NoError(w.t, err)
	at, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	require.NoError(w.t, err, out)
	return time.UnixMilli(at)
}

// TestARelayStopsAndStartsDuringAnAlarm: SIGTERM while the broker takes nothing ends the relay within its shutdown timeout,
// and the next one waits for the same alarm.
func TestARelayStopsAndStartsDuringAnAlarm(t *testing.T) {
	t.Parallel()
	const timeout = 3 * time.Second
	w := setup(t, option{cdcEnv: []string{fmt.Sprintf("SHUTDOWN_TIMEOUT=%v", timeout)}})
	audit := w.audit("#")
	l := w.load(8, 0)
	w.recovers("the start")
	l.goesOn(func() {
		w.raise(memoryAlarm, func() {
			require.Positive(t, w.position().Lag.InFlight)
			began := time.Now()
			require.NoError(t, w.cdc.Process().Signal(syscall.SIGTERM))
			require.NoError(t, w.cdc.Process().Wait(t.Context()))
			require.Less(t, time.Since(began), timeout+2*time.Second)
			require.Zero(t, w.cdc.Process().ExitCode())
			require.NoError(t, w.cdc.Start())
		})
	})
	w.survived(l, audit)
}
