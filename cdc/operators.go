package main

import (
	"database/sql"
	_ "embed" // openapi.yaml

	"tailbox/cdc/audit"
	"tailbox/cdc/binlog"
	"tailbox/cdc/console"
	"tailbox/cdc/quarantine"
	"tailbox/cdc/relay"
)

//go:embed openapi.yaml
var description []byte

// operators is what people change a relay by. Its database connections are its own: a long list must not keep the checkpoint
// from being saved.
type operators struct {
	audit      *audit.Log
	quarantine *quarantine.Store
	engine     *relay.Relay // set before the first call
}

func newOperators(cfg Config, db *sql.DB, reader *binlog.Reader, publisher relay.Publisher) *operators {
	o := &operators{audit: audit.New(db, cfg.RelayName)}
	o.quarantine = quarantine.New(db, cfg.RelayName, quarantine.Config{
		Publisher: publisher, Audit: o.audit, Payload: reader.Payload,
		Leading: func() (uint64, bool) { return o.engine.Leading() },
	})
	return o
}

// forPoison is where events go that cannot be messages; nil, which halts the relay, if that is what ON_POISON says.
func (o *operators) forPoison(cfg Config) relay.Quarantine {
	if cfg.OnPoison == onPoisonHalt {
		return nil
	}
	return o.quarantine
}

func (o *operators) calls(cfg Config, view console.View, reader *binlog.Reader) console.Admin {
	return console.Admin{Token: cfg.AdminToken, View: view, Course: o.engine, Places: reader, Quarantine: o.quarantine, Audit: o.audit}
}
