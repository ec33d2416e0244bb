package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tailbox/cdc/console"
	"tailbox/deploy/ops"
)

// remoteCommands are the twins of the relay's HTTP calls.
type remoteCommands struct {
	Position struct {
		Show remote       `cmd:"" default:"withargs" help:"Print where the relay stands. This is what position does alone."`
		Set  positionFlag `cmd:"" help:"Make the relay go on from another place: exactly one of --gtid-set, --file with --pos, --time and --snapshot."`
	} `cmd:"" help:"Show or set the place in the binlog."`
	Pause      whyFlag `cmd:"" help:"Send nothing until resume. The place and the lease are kept."`
	Resume     whyFlag `cmd:"" help:"Send again."`
	Quarantine struct {
		List  quarantineFlag `cmd:"" default:"withargs" help:"List the events that cannot be messages. This is what quarantine does alone."`
		Retry eventFlag      `cmd:"" help:"Publish an event after all. It comes behind all that was published meanwhile."`
		Drop  eventFlag      `cmd:"" help:"Give an event up: it is deleted and never published."`
	} `cmd:"" help:"List, retry and drop events that cannot be messages."`
}

type whyFlag struct {
	remote
	Why string `name:"why" help:"The reason, for the audit."`
}

type positionFlag struct {
	whyFlag
	GTIDSet  *string `name:"gtid-set" help:"Every transaction before the place."`
	File     string  `name:"file" help:"Binlog file, with --pos."`
	Pos      uint64  `name:"pos" default:"4" help:"Offset in it, between two transactions."`
	Time     string  `name:"time" help:"The first transaction committed at or after this time comes next, as 2006-01-02T15:04:05Z."`
	Snapshot bool    `name:"snapshot" help:"Send all that the outbox table holds, then what is committed from then on."`
	DryRun   bool    `name:"dry-run" help:"Change nothing; say how many rows would be sent again and how many skipped."`
	Force    bool    `name:"force" help:"Do it even if rows are skipped that nobody has confirmed."`
}

type quarantineFlag struct {
	remote
	Limit int    `name:"limit" default:"100" help:"At most so many, up to 1000."`
	After uint64 `name:"after" help:"Only those with a greater id."`
}

type eventFlag struct {
	whyFlag
	ID uint64 `arg:"" help:"Number of the event in the quarantine."`
}

// remoteCall is one command that was given: what it asks of the relay, and how a person is shown the answer.
type remoteCall struct {
	remote
	method, path string
	body         any
	show         func(out io.Writer, answer []byte) error
}

// whyBody is the body of a call that needs no more.
type whyBody struct {
	Why string `json:"why,omitempty"`
}

// remote tells whether a command is one for a running relay, and which call it is.
func (c *remoteCommands) remote(command string) (call remoteCall, is bool) {
	switch strings.TrimSuffix(command, " <id>") { // which is not in it yet when it is missing
	case "position", "position show":
		return remoteCall{c.Position.Show, http.MethodGet, "/position", nil, shown(showPosition)}, true
	case "position set":
		f := c.Position.Set
		return remoteCall{f.remote, http.MethodPut, "/position?" + f.query(), f.body(), shown(showMove)}, true
	case "pause":
		return remoteCall{c.Pause.remote, http.MethodPost, "/pause", whyBody{c.Pause.Why}, shown(showState)}, true
	case "resume":
		return remoteCall{c.Resume.remote, http.MethodPost, "/resume", whyBody{c.Resume.Why}, shown(showState)}, true
	case "quarantine", "quarantine list":
		f := c.Quarantine.List
		query := url.Values{"limit": {strconv.Itoa(f.Limit)}, "after": {strconv.FormatUint(f.After, 10)}}
		return remoteCall{f.remote, http.MethodGet, "/quarantine?" + query.Encode(), nil, shown(showQuarantine)}, true
	case "quarantine retry":
		f := c.Quarantine.Retry
		return remoteCall{f.remote, http.MethodPost, fmt.Sprintf("/quarantine/%d/retry", f.ID), whyBody{f.Why}, shown(showEvent("published"))}, true
	case "quarantine drop":
		f := c.Quarantine.Drop
		return remoteCall{f.remote, http.MethodDelete, fmt.Sprintf("/quarantine/%d", f.ID), whyBody{f.Why}, shown(showEvent("dropped"))}, true
	}
	return remoteCall{}, false
}

// validate tells what is wrong with the flags of a command for a running relay.
func (c *remoteCommands) validate(command string) error {
	call, _ := c.remote(command)
	err := call.validate()
	if command == "position set" {
		err = errors.Join(err, c.Position.Set.validate())
	}
	return err
}

func (f positionFlag) validate() error {
	given := 0
	for _, is := range []bool{f.GTIDSet != nil, f.File != "", f.Time != "", f.Snapshot} {
		if is {
			given++
		}
	}
	var errs []error
	if given != 1 {
		errs = append(errs, errors.New("position set: give exactly one of --gtid-set, --file with --pos, --time and --snapshot"))
	}
	if f.Time != "" {
		if _, err := time.Parse(time.RFC3339, f.Time); err != nil {
			errs = append(errs, fmt.Errorf("--time: %q is not of the form 2006-01-02T15:04:05Z", f.Time))
		}
	}
	return errors.Join(errs...)
}

func (f positionFlag) query() string {
	return url.Values{"dry_run": {strconv.FormatBool(f.DryRun)}, "force": {strconv.FormatBool(f.Force)}}.Encode()
}

func (f positionFlag) body() any {
	body := map[string]any{}
	switch {
	case f.GTIDSet != nil:
		body["gtid_set"] = *f.GTIDSet
	case f.File != "":
		body["file"], body["pos"] = f.File, f.Pos
	case f.Time != "":
		body["time"] = f.Time
	default:
		body["snapshot"] = true
	}
	if f.Why != "" {
		body["why"] = f.Why
	}
	return body
}

// run makes the call and prints the answer.
func (c remoteCall) run(ctx context.Context, token ops.Secret, out io.Writer) error {
	answer, err := c.call(ctx, token, c.method, c.path, c.body)
	if err != nil {
		return err
	}
	if c.JSON {
		_, err = out.Write(answer)
	} else {
		err = c.show(out, answer)
	}
	if err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	return nil
}

// shown reads an answer for a printer.
func shown[T any](show func(out io.Writer, answer T) error) func(io.Writer, []byte) error {
	return func(out io.Writer, text []byte) error {
		var answer T
		if err := json.Unmarshal(text, &answer); err != nil {
			return fmt.Errorf("read the relay's answer: %w", err)
		}
		return show(out, answer)
	}
}

// quarantineList is the answer of GET /quarantine.
type quarantineList struct {
	Events []console.Quarantined `json:"events"`
	Total  int                   `json:"total"`
}
