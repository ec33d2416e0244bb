package effect

import "fmt"

// GapError says that events before this one have not been applied yet. The event is good: try it again after them.
type GapError struct {
	Version uint64 // of the event
	Missing uint64 // the version that comes next
}

// Error tells both versions.
func (e *GapError) Error() string {
	return fmt.Sprintf("version %d is too early, version %d has not been applied", e.Version, e.Missing)
}

// MissingVersion is the version of the event that has to be applied next.
func (e *GapError) MissingVersion() uint64 { return e.Missing }

// DuplicateError says that an event of this version, or a later one, was applied before, or that this one was dropped. There is
// nothing to do.
type DuplicateError struct {
	Version uint64 // of the event
	Current uint64 // the last version applied
}

// Error tells both versions.
func (e *DuplicateError) Error() string {
	return fmt.Sprintf("version %d was applied or dropped before, the profile is at version %d", e.Version, e.Current)
}

// Duplicate marks the error.
func (e *DuplicateError) Duplicate() {}

// RefusedError says that the event can never be applied, however often it is tried.
type RefusedError struct {
	Code string // what is wrong with it; never holds anything of the payload
}

// Error tells the reason.
func (e *RefusedError) Error() string { return "the event is refused: " + e.Code }

// PermanentReason is the reason code.
func (e *RefusedError) PermanentReason() string { return e.Code }
