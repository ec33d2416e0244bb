package binlog

import "time"

// Target says where a relay is to go on from: exactly one of a GTID set, a file with an offset, a time and a snapshot.
type Target struct {
	GTIDSet  string    // every transaction that is behind the place
	File     string    // of the server's binlog
	Pos      uint64    // where a transaction in File ends or begins
	Time     time.Time // the first transaction committed at or after it comes next
	Snapshot bool      // send what the table holds, then what is committed from now on
}

// TargetError is returned by Locate for a target that the server cannot serve as it is. It says what is wrong, and which
// other target would do.
type TargetError struct{ Problem string }

func (e *TargetError) Error() string { return e.Problem }

// Difference is what a move from one place to another means.
type Difference struct {
	Again   Count // rows behind the old place that come again
	Skipped Count // rows that the old place has not passed and the new one has, or a snapshot has not
}

// Count is a number of outbox rows.
type Count struct {
	Rows    uint64
	AtLeast bool // there may be more: the time for counting was over
}
