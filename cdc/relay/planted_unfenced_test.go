//go:build planted_unfenced

package relay_test

const unfencedSave = true
