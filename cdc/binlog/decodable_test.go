package binlog

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestADocumentHasNoPartThatIsNotBehindItsEntries: the bytes are a kind, then the count, the size, and the entries of a container.
func TestADocumentHasNoPartThatIsNotBehindItsEntries(t *testing.T) {
	t.Parallel()
	const object, array, literal = 0, 2, 4
	inside := []byte{1, 0, 7, 0, literal, 1, 0} // [true]
	fits := append([]byte{array, 1, 0, 14, 0, array, 7, 0}, inside...)
	for name, c := range map[string]struct {
		text []byte
		fits bool
	}{
		"a literal":                 {[]byte{literal, 1}, true},
		"an array in an array":      {fits, true},
		"itself in an array":        {[]byte{array, 1, 0, 7, 0, array, 0, 0}, false},
		"its own entry":             {[]byte{array, 1, 0, 7, 0, array, 4, 0}, false},
		"behind its end":            {[]byte{array, 1, 0, 7, 0, array, 8, 0}, false},
		"more entries than bytes":   {[]byte{array, 255, 255, 7, 0}, false},
		"an object without entries": {[]byte{object, 0, 0, 4, 0}, true},
		"no size":                   {[]byte{object, 0, 0}, false},
	} {
		require.Equal(t, c.fits, document(c.text), name)
	}
}

func TestWhatTheServerCompressedClaimsNoMoreThanItCanBe(t *testing.T) {
	t.Parallel()
	zipped := make([]byte, 100)
	copy(zipped, []byte{0x82, 0x10, 0x00}) // 4096 bytes
	require.NoError(t, sized(zipped))
	copy(zipped, []byte{0x84, 0x10, 0x00, 0x00, 0x00})
	require.ErrorIs(t, sized(zipped), errZippedLarge)
	require.ErrorIs(t, sized(nil), errZippedShort)
	require.ErrorIs(t, sized([]byte{0x84, 1}), errZippedShort)
	require.ErrorIs(t, sizedStatement(make([]byte, 13)), errZippedShort)
}
