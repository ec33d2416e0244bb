package binlog

import "github.com/go-sql-driver/mysql"

// HoldLess makes a reader read transactions with more than so many bytes of rows twice.
func HoldLess(r *Reader, bytes int) { r.hold = bytes }

// AskAt makes a reader ask its questions elsewhere than it reads, so that a fault on the way hits the dump alone.
func AskAt(r *Reader, server *mysql.Config) { r.asked = server }
