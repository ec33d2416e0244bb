package e2e_test

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/faults"
	"tailbox/deploy/services"
	"tailbox/deploy/stack"
	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/schema/topology"
)

// halting is one reason to halt, and how to give it.
type halting struct {
	reason string
	// hurt gives the reason: while the relay runs, or where stopped says so, before it starts.
	stopped bool
	hurt    func(h *haltWorld)
	// mend takes it back, while the relay is stopped; nil where a new place is enough.
	mend func(h *haltWorld)
}

// haltings are all reasons to halt.
var haltings = []halting{
	{reason: "not_row_logged", hurt: func(h *haltWorld) {
		h.session("SET binlog_format=STATEMENT", h.insert())
	}},
	{reason: "xa_unsupported", hurt: func(h *haltWorld) {
		h.session("XA START 'x'", h.insert(), "XA END 'x'", "XA PREPARE 'x'", "XA ROLLBACK 'x'")
	}},
	{reason: "schema_mismatch", hurt: func(h *haltWorld) {
		h.session("ALTER TABLE outbox DROP COLUMN type", "INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, payload, created_at) VALUES "+
			"('x', 'customer', '1', 1, '{}', NOW())")
	}, mend: func(h *haltWorld) {
		h.session("DELETE FROM outbox WHERE id = 'x'", "ALTER TABLE outbox ADD COLUMN type VARCHAR(150) NOT NULL AFTER aggregate_version")
	}},
	{reason: "source_incident", hurt: func(h *haltWorld) {
		h.proxy.Flip(faults.ToClient, 1<<20) // of each connection: only one that reads the binlog is told so much
		h.large(2 << 20)
	}, mend: func(h *haltWorld) { h.proxy.Flip(faults.ToClient, -1) }},
	{reason: "poison", hurt: func(h *haltWorld) { h.large(2 << 20) }},
	{reason: "checkpoint_missing", hurt: func(h *haltWorld) { h.session("DELETE FROM relay_checkpoint") },
		mend: func(h *haltWorld) {
			h.session("INSERT INTO relay_checkpoint (relay, holder, epoch) VALUES ('default', '', 0)")
		}},
	{reason: "checkpoint_corrupt", stopped: true, hurt: func(h *haltWorld) {
		h.session("UPDATE relay_checkpoint SET position = REPLACE(position, 'binlog', 'binlag')")
	}},
	{reason: "binlog_purged", stopped: true, hurt: func(h *haltWorld) {
		h.session(h.insert(), "FLUSH BINARY LOGS", h.insert())
		h.purge()
	}},
	{reason: "history_reset", stopped: true, hurt: func(h *haltWorld) { h.reset() }},
	{reason: "source_behind", stopped: true, hurt: func(h *haltWorld) {
		h.place(func(place map[string]any) { // made on a server that had more
			set := place["gtid_set"].(string)
			if h.stack.MySQL.Flavor() == stack.FlavorMariaDB {
				place["gtid_set"] = set + "0000"
				return
			}
			place["server_uuid"], place["gtid_set"] = "gone", "11111111-1111-1111-1111-111111111111:1-5,"+set
		})
	}},
	{reason: "source_changed", stopped: true, hurt: func(h *haltWorld) {
		h.place(func(place map[string]any) { place["server_uuid"], place["gtid"], place["gtid_set"] = "gone", false, "" })
	}},
}

// haltWorld is a relay that is given reasons to halt.
type haltWorld struct {
	*world
	proxy *faults.Proxy
}

// TestEveryReasonToHaltIsSaidWithinFiveSeconds gives a real relay each reason, one after the other. From the moment that the
// reason is there, or the relay is started, /readyz names it within five seconds, and /position says what to do.
func TestEveryReasonToHaltIsSaidWithinFiveSeconds(t *testing.T) {
	t.Parallel()
	h := &haltWorld{world: setup(t, option{noStart: true})}
	var err error
	h.proxy, err = faults.New(h.stack.MySQL.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.proxy.Close()) })
	cfg := h.config("cdc", "cdc", "START=latest", "ON_GAP=halt", "ON_POISON=halt", "MAX_MESSAGE_BYTES=1048576", "LEASE_TTL=2s")
	cfg.MySQLAddr = h.proxy.Addr()
	h.cdc = services.New(cfg)
	ch := h.channel()
	require.NoError(t, topology.DeclareExchange(ch, topology.Exchange))
	_, err = ch.QueueDeclare("all", true, false, false, false, nil)
	require.NoError(t, err)
	require.NoError(t, ch.QueueBind("all", "#", topology.Exchange, false, nil))

	for _, halting := range haltings {
		h.start(h.cdc)
		h.confirm()
		began := time.Now()
		if halting.stopped {
			h.end()
			halting.hurt(h)
			began = time.Now()
			require.NoError(t, h.cdc.Start())
		} else {
			halting.hurt(h)
		}
		h.halts(halting.reason, began)
		h.end()
		h.session("UPDATE relay_checkpoint SET position = NULL, event_id = NULL")
		if halting.mend != nil {
			halting.mend(h)
		}
	}
}

// halts waits until /readyz names the reason.
func (h *haltWorld) halts(reason string, began time.Time) {
	h.t.Helper()
	h.waitFor("/readyz to say "+reason, 30*time.Second, func() bool {
		err := h.call(h.t.Context(), http.MethodGet, h.cdc.URL("/readyz"), "", http.StatusOK, nil)
		return err != nil && strings.Contains(err.Error(), "503") && strings.Contains(err.Error(), reason)
	})
	took := time.Since(began)
	require.Less(h.t, took, 5*time.Second, reason)
	h.t.Logf("%s after %s", reason, took.Round(time.Millisecond))
	var p struct{ State, Reason, Detail string }
	require.NoError(h.t, h.call(h.t.Context(), http.MethodGet, h.cdc.URL("/position"), "", http.StatusOK, &p))
	require.Equal(h.t, "halted", p.State)
	require.Equal(h.t, reason, p.Reason)
	require.NotEmpty(h.t, p.Detail)
}

// confirm commits an event and waits until the checkpoint has passed it.
func (h *haltWorld) confirm() {
	h.t.Helper()
	h.waitFor("the relay to have a place", 30*time.Second, func() bool { return h.position().State == "streaming" })
	e := schematest.Event()
	require.NoError(h.t, insert(h.t.Context(), h.db, true, e))
	h.waitFor("the checkpoint", 30*time.Second, func() bool { return h.checkpointed() == e.ID })
}

func (h *haltWorld) end() {
	h.t.Helper()
	require.NoError(h.t, h.cdc.Process().Stop(h.t.Context()))
	require.Zero(h.t, h.cdc.Process().ExitCode())
}

// session runs statements in a session of their own, as root.
func (h *haltWorld) session(statements ...string) {
	h.t.Helper()
	conn, err := h.db.Conn(h.t.Context())
	require.NoError(h.t, err)
	defer conn.Close()
	defer func() { _ = conn.Raw(func(any) error { return driver.ErrBadConn }) }() // what it was set to goes with it
	for _, s := range statements {
		_, err := conn.ExecContext(h.t.Context(), s)
		require.NoError(h.t, err, s)
	}
}

func (h *haltWorld) insert() string {
	return fmt.Sprintf("INSERT INTO outbox VALUES ('%s', 'customer', '1', 1, 'T', '{}', NULL, NOW(6))", schema.NewID())
}

// large commits an event of that size, which schema.Insert would refuse.
func (h *haltWorld) large(size int) {
	h.t.Helper()
	h.session(fmt.Sprintf("INSERT INTO outbox VALUES ('%s', 'customer', '1', 1, 'T', CONCAT('\"', REPEAT('x', %d), '\"'), NULL, NOW(6))", schema.NewID(), size))
}

// reset begins the binlog anew.
func (h *haltWorld) reset() {
	h.t.Helper()
	statement := "RESET BINARY LOGS AND GTIDS"
	if h.stack.MySQL.Flavor() == stack.FlavorMariaDB {
		statement = "RESET MASTER"
	}
	h.session(statement)
}

// place changes the stored checkpoint, and its checksum with it.
func (h *haltWorld) place(change func(place map[string]any)) {
	h.t.Helper()
	var text string
	require.NoError(h.t, h.db.QueryRowContext(h.t.Context(), "SELECT position FROM relay_checkpoint").Scan(&text))
	var place map[string]any
	require.NoError(h.t, json.Unmarshal([]byte(text), &place))
	change(place)
	changed, err := json.Marshal(place)
	require.NoError(h.t, err)
	_, err = h.db.ExecContext(h.t.Context(), "UPDATE relay_checkpoint SET position = ?, crc32 = ?", string(changed), crc32.ChecksumIEEE(changed))
	require.NoError(h.t, err)
}
