package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"tailbox/cdc/console"
)

// columns writes lines whose parts are set apart by tabs, as columns.
func columns(out io.Writer, lines ...string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return w.Flush()
}

func showPosition(out io.Writer, p console.Position) error {
	leader := "nobody"
	if p.Leader.ID != "" {
		leader = fmt.Sprintf("%s, epoch %d", p.Leader.ID, p.Leader.Epoch)
	}
	if p.Leader.Me {
		leader += " (this instance)"
	}
	return columns(out,
		"relay\t"+p.Relay,
		"state\t"+state(p),
		"leader\t"+leader,
		"source\t"+placeText(console.Place{File: p.Source.File, Pos: p.Source.Pos, GTIDSet: p.Source.GTIDSet}),
		"read\t"+placeText(p.Read.Place),
		"confirmed\t"+placeText(p.Confirmed.Place),
		"checkpoint\t"+placeText(p.Checkpoint.Place),
		fmt.Sprintf("lag\t%.3f s, %d bytes, %d in flight", p.Lag.Seconds, p.Lag.Bytes, p.Lag.InFlight),
		fmt.Sprintf("totals\t%d read, %d confirmed, %d quarantined, %d repaired", p.Totals.Read, p.Totals.Confirmed, p.Totals.Quarantined, p.Totals.Repaired),
	)
}

func state(p console.Position) string {
	text := string(p.State)
	if p.Reason != "" {
		text += ": " + string(p.Reason)
	}
	if p.Detail != "" {
		text += " (" + p.Detail + ")"
	}
	return text
}

func placeText(p console.Place) string {
	if p.File == "" && p.GTIDSet == "" {
		return "-"
	}
	text := p.GTIDSet
	if p.File != "" {
		text = fmt.Sprintf("%s:%d\t%s", p.File, p.Pos, p.GTIDSet)
	}
	return text
}

func showState(out io.Writer, p console.Position) error {
	return columns(out, state(p))
}

func showMove(out io.Writer, m console.Move) error {
	to, done := placeText(m.To.Place), "the relay goes on from there: "+m.State
	if m.To.Snapshot {
		to = "a snapshot of the table"
	}
	switch {
	case m.DryRun && m.NeedsForce:
		done = "nothing was changed; it needs --force"
	case m.DryRun:
		done = "nothing was changed"
	}
	return columns(out, "from\t"+placeText(m.From), "to\t"+to, "sent again\t"+rowsText(m.SentAgain), "skipped\t"+rowsText(m.Skipped), done)
}

func rowsText(r console.Rows) string {
	text := fmt.Sprintf("%d rows", r.Rows)
	if r.AtLeast {
		return "at least " + text
	}
	return text
}

func showQuarantine(out io.Writer, list quarantineList) error {
	if len(list.Events) == 0 {
		return columns(out, fmt.Sprintf("nothing, of %d", list.Total))
	}
	lines := []string{"ID\tSINCE\tEVENT\tTYPE\tBYTES\tPOSITION\tATTEMPTS\tREASON"}
	for _, e := range list.Events {
		lines = append(lines, fmt.Sprintf("%d\t%s\t%s\t%s\t%d\t%s\t%d\t%s", e.ID, e.QuarantinedAt, short(e.EventID), short(e.AggregateType+"."+e.Type),
			e.PayloadBytes, e.SourcePosition, e.Attempts, e.Reason))
	}
	if list.Total > len(list.Events) {
		lines = append(lines, fmt.Sprintf("%d of %d; --after %d goes on", len(list.Events), list.Total, list.Events[len(list.Events)-1].ID))
	}
	return columns(out, lines...)
}

// short keeps a column narrow: what is in quarantine can be there because it is long.
func short(text string) string {
	const most = 40
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

func showEvent(done string) func(io.Writer, console.Quarantined) error {
	return func(out io.Writer, e console.Quarantined) error {
		return columns(out, fmt.Sprintf("%d\t%s\t%s", e.ID, short(e.EventID), done))
	}
}
