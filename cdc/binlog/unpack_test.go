package binlog

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPackedTransactionIsFoundBehindItsFields(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"\x02\x01\x00\x03\x02\xff\x00\x01\x01\x04\x00data": "data",
		"\x00data":                   "data",
		"\x09\x02ab\x02\x01\x00\x00": "", // a field that is not known is passed over
	} {
		got, err := packed([]byte(text))
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	for _, text := range []string{"", "\x02", "\x02\x05ab", "\x01\x01"} {
		_, err := packed([]byte(text))
		require.ErrorIs(t, err, errShort, "%q", text)
	}
	_, err := packed([]byte("\x02\x01\x01\x00data"))
	require.ErrorContains(t, err, "not known")
}

func TestEventsComeOutOneByOneAndClaimNoMemoryThatIsNotThere(t *testing.T) {
	t.Parallel()
	one := func(size uint32, body string) string {
		head := make([]byte, 19)
		binary.LittleEndian.PutUint32(head[9:], size)
		return string(head) + body
	}
	stream := bytes.NewBufferString(one(22, "abc") + one(19, "") + one(1<<31, "short"))
	for _, want := range []int{22, 19} {
		data, err := nextEvent(stream)
		require.NoError(t, err)
		require.Len(t, data, want)
	}
	_, err := nextEvent(stream)
	require.ErrorIs(t, err, errShort)
	_, err = nextEvent(stream)
	require.ErrorIs(t, err, io.EOF)
	_, err = nextEvent(bytes.NewBufferString(one(3, "")))
	require.ErrorIs(t, err, errShort)
}
