//go:build planted_unconfirmed

package relay_test

const checkpointBeforeConfirm = true
