package stack

import (
	"bytes"
	"io"
)

// maxLine bounds what is kept of a line that does not end.
const maxLine = 64 << 10

// lineWriter passes on whole lines only, one Write each, so that the outputs of several processes can share a writer
// without cutting into each other's lines. It has one writer, the goroutine that copies a process's output.
type lineWriter struct {
	out  io.Writer
	rest []byte
}

func (w *lineWriter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n') + 1
		if end == 0 {
			w.rest = append(w.rest, b...)
			break
		}
		w.rest = append(w.rest, b[:end]...)
		b = b[end:]
		_, _ = w.out.Write(w.rest)
		w.rest = w.rest[:0]
	}
	if len(w.rest) > maxLine {
		w.flush()
	}
	// The sink's errors are its own affair: the process must not be stopped by a pipe that nobody reads.
	return n, nil
}

// flush ends the line that the process left open.
func (w *lineWriter) flush() {
	if len(w.rest) > 0 {
		_, _ = w.out.Write(append(w.rest, '\n'))
		w.rest = w.rest[:0]
	}
}
