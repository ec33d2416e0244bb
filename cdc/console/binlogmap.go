package console

import "tailbox/cdc/binlog"

// mostEdges is how many files are drawn apart from each other.
const mostEdges = 64

// binlogs is the document of the event binlog: the source's binlog files as one stretch of bytes, and where on it the relay
// stands. A place is absent when its file is not among those that the server has.
type binlogs struct {
	Files      int      `json:"files"`
	Bytes      uint64   `json:"bytes"`
	Edges      []uint64 `json:"edges"` // where the newest files begin
	Read       *uint64  `json:"read,omitempty"`
	Confirmed  *uint64  `json:"confirmed,omitempty"`
	Checkpoint *uint64  `json:"checkpoint,omitempty"`
}

func binlogMap(source binlog.Survey, p Position) binlogs {
	m := binlogs{Files: len(source.Files), Edges: []uint64{}}
	begins := make(map[string]uint64, len(source.Files))
	for i, file := range source.Files {
		begins[file.Name] = m.Bytes
		if i >= len(source.Files)-mostEdges {
			m.Edges = append(m.Edges, m.Bytes)
		}
		m.Bytes += file.Size
	}
	on := func(place Place) *uint64 {
		begin, known := begins[place.File]
		if !known {
			return nil
		}
		at := min(begin+place.Pos, m.Bytes)
		return &at
	}
	m.Read, m.Confirmed, m.Checkpoint = on(p.Read.Place), on(p.Confirmed.Place), on(p.Checkpoint.Place)
	return m
}
