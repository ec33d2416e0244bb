package console

import (
	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
)

// mostEdges is how many files are drawn apart from each other.
const mostEdges = 64

// binlogs is the document of the event binlog: the source's binlog files as one stretch of bytes, and where on it the relay
// stands. A place is absent when its file is not among those that the server has, or is another server's.
type binlogs struct {
	Files      int      `json:"files"`
	Bytes      uint64   `json:"bytes"`
	Edges      []uint64 `json:"edges"` // where the newest files begin
	Read       *uint64  `json:"read,omitempty"`
	Confirmed  *uint64  `json:"confirmed,omitempty"`
	Checkpoint *uint64  `json:"checkpoint,omitempty"`
}

func binlogMap(source binlog.Survey, read, confirmed, checkpoint relay.Position) binlogs {
	m := binlogs{Files: len(source.Files), Edges: []uint64{}}
	for i, file := range source.Files {
		if i >= len(source.Files)-mostEdges {
			m.Edges = append(m.Edges, m.Bytes)
		}
		m.Bytes += file.Size
	}
	on := func(place relay.Position) *uint64 {
		runway := source.Runway(place)
		if runway.ToPurge+runway.ToEnd == 0 {
			return nil
		}
		return &runway.ToPurge
	}
	m.Read, m.Confirmed, m.Checkpoint = on(read), on(confirmed), on(checkpoint)
	return m
}
