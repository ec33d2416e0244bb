package relay

import "strings"

// Level says what a Check means for a relay.
type Level string

// The levels.
const (
	CheckOK   Level = "ok"
	CheckWarn Level = "warn" // it can be lived with
	CheckFail Level = "fail" // the relay cannot do its job
)

// Check is one thing about a server, a user or a table that a relay depends on, and how it was found to be.
type Check struct {
	Name  string `json:"name"`
	Level Level  `json:"level"`
	Found string `json:"found"`          // with the setting and its value
	Mend  string `json:"mend,omitempty"` // the statement or setting that mends it
	// Reason is with what a relay halts over it. A failure without one may pass by itself, such as a server that is down.
	Reason Reason `json:"reason,omitempty"`
}

func (c Check) String() string {
	if c.Mend == "" {
		return c.Found
	}
	return c.Found + "; to mend it: " + c.Mend
}

// Findings are the checks over which a relay does not start, or halts.
type Findings []Check

// Fatal are the failures among the checks that no wait mends.
func Fatal(checks []Check) (found Findings) {
	for _, c := range checks {
		if c.Level == CheckFail && c.Reason != "" {
			found = append(found, c)
		}
	}
	return found
}

// Error tells all of them.
func (f Findings) Error() string {
	lines := make([]string, len(f))
	for i, check := range f {
		lines[i] = check.String()
	}
	return strings.Join(lines, "\n")
}

// Halt is what they are to a relay that runs.
func (f Findings) Halt() *Halt { return &Halt{Reason: f[0].Reason, Err: f} }
