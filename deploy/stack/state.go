package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// record is what server.json in a server's folder tells about its last run: enough to find the server again, and to be
// sure that it is the same one.
type record struct {
	Name      string          `json:"name"`
	Flavor    string          `json:"flavor,omitempty"`
	Version   string          `json:"version,omitempty"`
	Set       Set             `json:"set"`
	Root      string          `json:"root,omitempty"` // the Newest set's root folder
	Ports     []int           `json:"ports"`
	Detached  bool            `json:"detached"`
	Processes []processRecord `json:"processes,omitempty"`
	Container string          `json:"container,omitempty"`
}

// processRecord names one process. Pids are used again by the system; a pid with its start time is not.
type processRecord struct {
	Name    string `json:"name"`
	Pid     int    `json:"pid"`
	Started string `json:"started"`
}

func (p *Process) record() processRecord {
	return processRecord{Name: p.name, Pid: p.pid, Started: p.started}
}

// alive tells whether any process of the record still runs.
func (r record) alive() bool {
	for _, p := range r.Processes {
		if alive(p.Pid, p.Started) {
			return true
		}
	}
	return false
}

// kill ends what is alive of the record.
func (r record) kill() error {
	for _, rec := range r.Processes {
		if p, err := adopt(rec.Name, rec.Pid, rec.Started); err == nil {
			if err := p.Kill(); err != nil {
				return err
			}
		}
	}
	if r.Container != "" {
		return removeContainer(context.Background(), r.Container)
	}
	return nil
}

func recordPath(dir string) string { return filepath.Join(dir, "server.json") }

// loadRecord reads a folder's record; the zero record if there is none.
func loadRecord(dir string) (record, error) {
	var r record
	b, err := os.ReadFile(recordPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return record{}, fmt.Errorf("read server record: %w", err)
	}
	return r, nil
}

// save writes the record in one step, so that a reader never sees half of it.
func (r record) save(dir string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode server record: %w", err)
	}
	tmp := recordPath(dir) + ".new"
	if err = os.WriteFile(tmp, append(b, '\n'), 0o644); err == nil {
		err = os.Rename(tmp, recordPath(dir))
	}
	if err != nil {
		return fmt.Errorf("write server record: %w", err)
	}
	return nil
}
