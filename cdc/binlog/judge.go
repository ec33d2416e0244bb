package binlog

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"

	"tailbox/cdc/relay"
)

// failure is how a stream ended because of what it read, not because of the link.
type failure struct {
	place, text string
	times       int
}

// maxFailures is how often the same place may fail in the same way. What a server, or a link, says once can be bad luck.
const maxFailures = 3

// judge says what the end of a stream means. The same bytes give the same failure for ever: a checksum that does not fit, an
// event that cannot be decoded, one that is larger than the server is willing to send.
func (r *Reader) judge(h *handler, err error) error {
	judged := classify(err)
	if halt := (*relay.Halt)(nil); errors.As(judged, &halt) || !ofContent(err) {
		return judged
	}
	now := failure{place: fmt.Sprint(r.ledger.readPlace().Position), text: judged.Error()}
	if now.place != r.failed.place || now.text != r.failed.text {
		r.failed = now
	}
	r.failed.times++
	if r.failed.times < maxFailures {
		return judged
	}
	r.failed = failure{} // who makes the relay go on is given as many tries again
	return relay.Haltf(relay.SourceIncident, "what is behind %s:%d cannot be read, %d times in a row with the same result (%w): "+
		"look at it with mysqlbinlog --start-position=%d %s; then raise max_allowed_packet if it is too large, or move the relay behind it",
		h.file, h.pos, maxFailures, judged, h.pos, h.file)
}

// ofContent tells an error that comes from what was read; all others are of the link or of the server's state.
func ofContent(err error) bool {
	if refused, ok := errors.AsType[*mysql.MyError](err); ok {
		return refused.Code == mysql.ER_MASTER_FATAL_ERROR_READING_BINLOG && !strings.Contains(refused.Message, sameServerID)
	}
	_, ofNetwork := errors.AsType[net.Error](err)
	for _, of := range []error{mysql.ErrBadConn, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, errStopped, errElsewhere} {
		ofNetwork = ofNetwork || errors.Is(err, of)
	}
	return !ofNetwork
}
