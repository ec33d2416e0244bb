package checkpoint

import (
	"hash/crc32"
	"testing"

	"tailbox/cdc/relay"
)

// FuzzDecode reads what the column position may hold, with a checksum that fits and with one that may not: no panic, and what
// is read is written and read again as the same place.
func FuzzDecode(f *testing.F) {
	for _, place := range []relay.Position{
		{Flavor: "mysql", ServerUUID: "u", GTID: true, GTIDSet: "u:1-5", File: "binlog.000001", Pos: 1 << 40, SkipRows: 3, SkipGTID: "u:6", Late: 1},
		{Flavor: "mariadb", GTID: true, GTIDSet: "0-1-5,1-1-1"},
	} {
		text, sum, err := encode(place)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, sum)
	}
	f.Add(`{"format":2}`, uint32(0))
	f.Add(`{"format":1,"pos":-1}`, uint32(0))
	f.Fuzz(func(t *testing.T, text string, sum uint32) {
		fits := crc32.ChecksumIEEE([]byte(text))
		if _, err := decode(text, sum); err == nil && sum != fits {
			t.Fatal("a place with a checksum that does not fit is used")
		}
		place, err := decode(text, fits)
		if err != nil {
			return
		}
		again, sum, err := encode(place)
		if err != nil {
			return // a time that no JSON has
		}
		same, err := decode(again, sum)
		if err != nil || !same.CommittedAt.Equal(place.CommittedAt) || !same.FileMade.Equal(place.FileMade) {
			t.Fatalf("%+v is read back as %+v: %v", place, same, err)
		}
		same.CommittedAt, same.FileMade = place.CommittedAt, place.FileMade // compared above: their zones may differ
		if same != place {
			t.Fatalf("%+v is read back as %+v", place, same)
		}
	})
}
