//go:build planted_wallclock

package relay_test

const wallClock = true
