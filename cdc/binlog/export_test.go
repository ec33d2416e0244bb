package binlog

// HoldLess makes a reader read transactions with more than so many bytes of rows twice.
func HoldLess(r *Reader, bytes int) { r.hold = bytes }
