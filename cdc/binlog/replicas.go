package binlog

import (
	"context"
	"fmt"
	"strconv"

	"tailbox/cdc/relay"
)

// replica is one line of the server's list of its replicas.
type replica struct {
	serverID uint32
	name     string
}

// replicas lists who is registered at the server as a replica; refused where the user may not ask.
func replicas(ctx context.Context, q queryer) (list []replica, refused bool, err error) {
	rows, err := allRows(ctx, q, "SHOW REPLICAS")
	if isNumber(err, syntaxError) {
		rows, err = allRows(ctx, q, "SHOW SLAVE HOSTS")
	}
	switch {
	case refusesBinlog(err):
		return nil, true, nil
	case err != nil:
		return nil, false, fmt.Errorf("list the server's replicas: %w", err)
	}
	for _, row := range rows {
		id, err := strconv.ParseUint(row["server_id"], 10, 32)
		if err != nil {
			return nil, false, fmt.Errorf("read the id of a replica: %w", err)
		}
		list = append(list, replica{serverID: uint32(id), name: row["host"]})
	}
	return list, false, nil
}

// ServerIDError says that the number of this process is another replica's. A server takes the two for one: it ends the
// stream of the older one, or lists one of them. It may pass by itself, when the other is about to end.
type ServerIDError struct {
	ServerID uint32
	Other    string // the other's name, as the server lists it
}

func (e *ServerIDError) Error() string {
	return fmt.Sprintf("the server id %d is in use by %s: give each instance a SERVER_ID of its own, or 0 for a random one", e.ServerID, e.Other)
}

// claimServerID makes sure that no other replica has our number. A random one is drawn again; one that was set is refused.
func (r *Reader) claimServerID(ctx context.Context, s *server) error {
	for {
		other, _, err := r.sameServerID(ctx, s)
		if err != nil || other == "" {
			return err
		}
		if r.cfg.ServerID != 0 {
			return &ServerIDError{ServerID: r.ServerID(), Other: other}
		}
		r.serverID.Store(randomServerID())
	}
}

// sameServerID names who else has our number: the server itself or another replica of it.
func (r *Reader) sameServerID(ctx context.Context, s *server) (other string, refused bool, err error) {
	if s.variables["server_id"] == strconv.FormatUint(uint64(r.ServerID()), 10) {
		return "the server itself", false, nil
	}
	list, refused, err := replicas(ctx, s.q)
	for _, replica := range list {
		if replica.serverID == r.ServerID() && replica.name != r.cfg.Name {
			return fmt.Sprintf("the replica %q", replica.name), false, nil
		}
	}
	return "", refused, err
}

func (r *Reader) checkServerID(ctx context.Context, s *server) relay.Check {
	check := relay.Check{Name: "server_id", Level: relay.CheckOK, Found: fmt.Sprintf("%d is no other replica's", r.ServerID())}
	if r.cfg.ServerID == 0 {
		check.Found = "is drawn at random, and again if another replica has it"
	}
	other, refused, err := r.sameServerID(ctx, s)
	switch {
	case err != nil:
		check.Level, check.Found = relay.CheckWarn, "the server's replicas cannot be listed ("+serverMessage(err)+")"
	case other != "" && r.cfg.ServerID != 0:
		clash := &ServerIDError{ServerID: r.ServerID(), Other: other}
		check.Level, check.Found, check.Mend = relay.CheckFail, clash.Error(), "set SERVER_ID to another number, or to 0"
	case refused && r.cfg.ServerID != 0:
		check.Level, check.Found = relay.CheckWarn, "the user may not list the server's replicas, so a clash of SERVER_ID would not be seen"
		check.Mend = fmt.Sprintf("GRANT REPLICATION MASTER ADMIN ON *.* TO '%s'@'...', or set SERVER_ID to 0", r.cfg.Server.User)
	}
	return check
}
