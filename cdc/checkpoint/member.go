package checkpoint

import (
	"context"
	"fmt"
	"time"
)

// MemberTable is the name of the table of the instances, beside Table.
const MemberTable = "relay_member"

// Member is one instance of a relay, as it said of itself last.
type Member struct {
	Name     string
	ServerID uint32 // as which it reads the binlog
	State    string
	SeenAt   time.Time // by the database's clock
}

// Members that said nothing for memberTimeout are taken for gone. Those that are gone for memberKept are forgotten, but for
// the last one: it is the mark that the relay has run before.
const (
	MemberInterval = 2 * time.Second
	memberTimeout  = 5 * MemberInterval
	memberKept     = 24 * time.Hour
)

// Announce says that this instance lives and what it does.
func (s *Store) Announce(ctx context.Context, serverID uint32, state string) error {
	_, err := s.db.ExecContext(ctx, `INSERT INTO relay_member (relay, member, server_id, state, seen_at) VALUES (?, ?, ?, ?, UTC_TIMESTAMP(6))
		ON DUPLICATE KEY UPDATE server_id = VALUES(server_id), state = VALUES(state), seen_at = VALUES(seen_at)`, s.relay, s.holder, serverID, state)
	if err != nil {
		return fmt.Errorf("announce this instance: %w", err)
	}
	_, err = s.db.ExecContext(ctx, "DELETE FROM relay_member WHERE relay = ? AND member <> ? AND seen_at < UTC_TIMESTAMP(6) - INTERVAL ? SECOND",
		s.relay, s.holder, int(memberKept.Seconds()))
	if err != nil {
		return fmt.Errorf("forget old instances: %w", err)
	}
	return nil
}

// Members are the instances that live, the one that was heard of last first.
func (s *Store) Members(ctx context.Context) (members []Member, err error) {
	rows, err := s.db.QueryContext(ctx, `SELECT member, server_id, state, seen_at FROM relay_member WHERE relay = ? AND state <> 'stopped'
		AND seen_at > UTC_TIMESTAMP(6) - INTERVAL ? SECOND ORDER BY seen_at DESC`, s.relay, int(memberTimeout.Seconds()))
	if err != nil {
		return nil, fmt.Errorf("list the instances: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var m Member
		if err := rows.Scan(&m.Name, &m.ServerID, &m.State, &m.SeenAt); err != nil {
			return nil, fmt.Errorf("list the instances: %w", err)
		}
		members = append(members, m)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list the instances: %w", err)
	}
	return members, nil
}
