package relay

// State is what a relay is doing, in one word.
type State string

// The states. From each a relay can come to Halted.
const (
	Starting  State = "starting"  // has not seen the lease yet, or leads and has no place to begin at
	Standby   State = "standby"   // another instance leads; this one is ready to take over
	Snapshot  State = "snapshot"  // sending what the table held before the place it streams from
	Repairing State = "repairing" // likewise, because the binlog did not lead on from the checkpoint
	Streaming State = "streaming" // sending each row as it is committed
	Stalled   State = "blocked"   // source or broker is away, or what was sent reached no queue
	Paused    State = "paused"    // told to send nothing; lease and checkpoint are kept
	Draining  State = "draining"  // stopping: waiting for confirms
	Halted    State = "halted"    // stopped for good, see the reason
)

// States are all of them, for the metric that has one series each.
var States = []State{Starting, Standby, Snapshot, Repairing, Streaming, Stalled, Paused, Draining, Halted}

// Reason says why a relay halted, or why it is blocked.
type Reason string

// Reasons of Halted.
const (
	BinlogPurged   Reason = "binlog_purged"   // transactions after the checkpoint are gone from the server
	HistoryReset   Reason = "history_reset"   // the server's binlog was reset, or its gtid_mode changed: the checkpoint means nothing to it
	SourceChanged  Reason = "source_changed"  // file and position belong to another server
	SourceBehind   Reason = "source_behind"   // the server has not seen what the checkpoint has
	SourceIncident Reason = "source_incident" // the server says that its binlog misses something
	NotRowLogged   Reason = "not_row_logged"  // changes of the outbox are not logged as whole rows
	XAUnsupported  Reason = "xa_unsupported"  // an outbox row was written in an XA transaction
	SchemaMismatch Reason = "schema_mismatch" // the outbox table lacks what an event needs
	CheckpointBad  Reason = "checkpoint_corrupt"
	CheckpointGone Reason = "checkpoint_missing" // the relay's row of relay_checkpoint was deleted
	PoisonEvent    Reason = "poison"             // an event cannot be a message
)

// Reasons of Stalled.
const (
	SourceDown    Reason = "source_unreachable"
	BrokerDown    Reason = "broker_unreachable"
	BrokerAlarm   Reason = "broker_alarm"           // out of memory or disk
	BrokerRefused Reason = "refused"                // the broker said no to a message
	Unroutable    Reason = "unroutable"             // a message reached no queue: a binding is missing
	QuarantineOff Reason = "quarantine_unreachable" // an event cannot be a message, and the quarantine does not take it
	Topology      Reason = "topology"               // the exchange or a queue of ours is missing or could lose messages
)
