package bench_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"tailbox/schema"
)

// Environment of the test binary when it runs as a publisher, in a process of its own.
const (
	envPublish  = "BENCH_PUBLISH_URL"
	envCount    = "BENCH_PUBLISH_COUNT"
	envGathered = "BENCH_PUBLISH_GATHERED" // through the relay's publishing session instead of plainly
	envTLS      = "BENCH_PUBLISH_TLS"      // folder with ca.pem, cert.pem and key.pem
	envPosition = "BENCH_PUBLISH_POSITION" // what the number of a transaction stands behind in a position; default 0-1-
	envServers  = "BENCH_PUBLISH_SERVERS"  // processes of the servers, with commas between them
)

func TestMain(m *testing.M) {
	if url := os.Getenv(envPublish); url != "" {
		send := publishPlainly
		if os.Getenv(envGathered) != "" {
			send = publishGathered
		}
		count, err := strconv.Atoi(os.Getenv(envCount))
		if err == nil {
			err = send(url, count)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// figures are what one publisher did.
type figures struct {
	PerSecond float64
	CPU       time.Duration // per message, user and system
	PeakBytes int64
	Writes    float64       // system calls per message
	Servers   time.Duration // CPU of broker and database per message
}

// publishPlainly is the ceiling: amqp091-go as its documentation shows it, from memory, one connection, one channel,
// mandatory and confirmed, with the window, the messages and the properties of the relay. It prints its figures as JSON.
func publishPlainly(url string, count int) error {
	config, err := plainTLS()
	if err != nil {
		return err
	}
	conn, err := amqp.DialTLS(url, config)
	if err != nil {
		return err
	}
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	returns := ch.NotifyReturn(make(chan amqp.Return, benchWindow))

	var waiting []*amqp.DeferredConfirmation
	meter := meter{middle: middleOf(count)}
	for i := range count + benchWindow {
		if i >= benchWindow {
			if !waiting[0].Wait() {
				return fmt.Errorf("message %d was refused", i-benchWindow)
			}
			waiting = waiting[1:]
			if err := meter.confirmed(i - benchWindow + 1); err != nil {
				return err
			}
		}
		if i >= count {
			continue
		}
		key, message := plainMessage(i)
		confirm, err := ch.PublishWithDeferredConfirm(benchExchange, key, true, false, message)
		if err != nil {
			return err
		}
		waiting = append(waiting, confirm)
	}
	if len(returns) > 0 {
		return fmt.Errorf("%d messages reached no queue", len(returns))
	}
	if err := conn.Close(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(meter.figures)
}

// middle is the part of a run that is measured, in events confirmed: neither the start of a process and of its connection, nor
// the end, when the window runs empty.
type middle struct{ from, to int }

func middleOf(events int) middle { return middle{events / 10, events - events/10} }

// meter measures the middle of a run from inside of the process.
type meter struct {
	middle
	began   used
	figures figures
}

// confirmed says how many events are confirmed by now.
func (m *meter) confirmed(count int) (err error) {
	switch {
	case m.began.events == 0 && count >= m.from:
		m.began, err = now(count)
	case m.figures.PerSecond == 0 && count >= m.to:
		var end used
		end, err = now(count)
		m.figures = end.since(m.began)
		m.figures.PeakBytes = peak()
	}
	return err
}

// used is what a process and the servers have used at a moment.
type used struct {
	events       int
	at           time.Time
	cpu, servers time.Duration
	writes       int
}

// now is what this process has used when so many events were confirmed.
func now(events int) (used, error) {
	u := used{events: events, at: time.Now(), cpu: cpu(), writes: writes()}
	for pid := range strings.SplitSeq(os.Getenv(envServers), ",") {
		if pid == "" {
			continue
		}
		spent, err := spentBy(pid)
		if err != nil {
			return u, err
		}
		u.servers += spent
	}
	return u, nil
}

// since tells what was done between two moments, but for the peak.
func (u used) since(began used) figures {
	events := time.Duration(u.events - began.events)
	return figures{
		PerSecond: float64(events) / u.at.Sub(began.at).Seconds(), CPU: (u.cpu - began.cpu) / events,
		Servers: (u.servers - began.servers) / events, Writes: float64(u.writes-began.writes) / float64(events),
	}
}

// writes is how often this process has called write(2), the few by which Go's runtime wakes itself among them.
func writes() (n int) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "syscw: "); ok {
			n, _ = strconv.Atoi(strings.TrimSpace(rest))
		}
	}
	return n
}

func plainMessage(i int) (key string, m amqp.Publishing) {
	e := benchEvent(i)
	return e.AggregateType + "." + e.Type, amqp.Publishing{
		MessageId: e.ID, Type: e.Type, Timestamp: e.CreatedAt, ContentType: "application/json", DeliveryMode: amqp.Persistent,
		AppId: "tailbox", Body: e.Payload,
		Headers: amqp.Table{
			schema.HeaderAggregateType: e.AggregateType, schema.HeaderAggregateID: e.AggregateID,
			schema.HeaderAggregateVersion: int64(e.AggregateVersion), schema.HeaderCreatedAt: e.CreatedAt.Format(schema.TimeFormat),
			schema.HeaderSourcePosition: cmp.Or(os.Getenv(envPosition), "0-1-") + strconv.Itoa(i),
		},
	}
}

// benchEvent is the i-th event of every run: a customer's, with a payload of about 200 bytes, in the form that a JSON column of
// MySQL gives back.
func benchEvent(i int) schema.Event {
	id := fmt.Sprintf("00000000-0000-7000-8000-%012d", i)
	at := time.Date(2026, 11, 23, 12, 0, 0, i*1000, time.UTC)
	return schema.Event{
		ID: id, AggregateType: "customer", AggregateID: id, AggregateVersion: 1, Type: "CustomerCreated", CreatedAt: at,
		Payload: fmt.Appendf(nil, `{"id": %q, "name": "Ada Lovelace", "email": "ada@example.com", "version": 1, "created_at": %q, "updated_at": %q}`,
			id, at.Format(schema.TimeFormat), at.Format(schema.TimeFormat)),
	}
}

// cpu is what this process has used.
func cpu() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func peak() int64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return usage.Maxrss << 10
}
