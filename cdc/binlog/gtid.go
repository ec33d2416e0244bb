package binlog

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/google/uuid"
)

// gtid names one transaction, or with last > first a run of them. The zero gtid is a transaction without a name.
type gtid struct {
	// MySQL: source uuid, tag (8.4 and later) and a range of numbers.
	source      uuid.UUID
	tag         mysql.Tag
	first, last int64
	// MariaDB: one GTID.
	maria mysql.MariadbGTID
}

func gtidOfMySQL(e *replication.GTIDEvent) (gtid, error) {
	source, err := uuid.FromBytes(e.SID)
	if err != nil {
		return gtid{}, fmt.Errorf("read the source uuid of a GTID event: %w", err)
	}
	return gtid{source: source, tag: e.Tag, first: e.GNO, last: e.GNO}, nil
}

func (g gtid) String() string {
	switch {
	case g == gtid{}:
		return ""
	case g.maria != mysql.MariadbGTID{}:
		return g.maria.String()
	case g.tag != mysql.Tag{}:
		return fmt.Sprintf("%s:%s:%d", g.source, g.tag, g.first)
	}
	return g.source.String() + ":" + strconv.FormatInt(g.first, 10)
}

// join adds one transaction to a list, lengthening a run where it can, so that a million transactions of one source cost
// no more than one.
func join(list []gtid, next gtid) []gtid {
	if next == (gtid{}) {
		return list
	}
	for i := range slices.Backward(list) {
		have := &list[i]
		if next.maria != (mysql.MariadbGTID{}) {
			if have.maria.DomainID == next.maria.DomainID {
				have.maria = next.maria // a MariaDB position is the last GTID of each domain
				return list
			}
			continue
		}
		if have.source == next.source && have.tag == next.tag && have.last+1 == next.first {
			have.last = next.last
			return list
		}
	}
	return append(list, next)
}

// gtidSet is every transaction up to a place: a set of ranges in MySQL, the last GTID of each domain in MariaDB. The nil
// set belongs to a server without GTIDs.
type gtidSet struct{ set mysql.GTIDSet }

func parseGTIDSet(flavor, text string) (gtidSet, error) {
	if text == "" && flavor == mySQL {
		empty := mysql.NewMysqlGTIDSet() // the parser takes no empty text
		return gtidSet{set: &empty}, nil
	}
	set, err := mysql.ParseGTIDSet(flavor, text)
	if err != nil {
		return gtidSet{}, fmt.Errorf("parse GTID set: %w", err)
	}
	return gtidSet{set: set}, nil
}

func (s gtidSet) String() string {
	if s.set == nil {
		return ""
	}
	return s.set.String()
}

func (s gtidSet) clone() gtidSet {
	if s.set == nil {
		return s
	}
	return gtidSet{set: s.set.Clone()}
}

// add puts transactions into the set.
func (s gtidSet) add(list []gtid) {
	for _, g := range list {
		switch set := s.set.(type) {
		case *mysql.MariadbGTIDSet:
			set.Sets[g.maria.DomainID] = g.maria.Clone()
		case *mysql.MysqlGTIDSet:
			tags := (*set)[g.source]
			if tags == nil {
				tags = make(map[mysql.Tag]mysql.IntervalSlice)
				(*set)[g.source] = tags
			}
			tags[g.tag] = append(tags[g.tag], mysql.Interval{Start: g.first, Stop: g.last + 1}).Normalize()
		}
	}
}
