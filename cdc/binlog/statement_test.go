package binlog

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheTargetOfAnInsertIsFound(t *testing.T) {
	t.Parallel()
	for statement, want := range map[string]Table{
		"INSERT INTO outbox VALUES (1)":                             {"", "outbox"},
		"insert outbox(id) select 1":                                {"", "outbox"},
		"REPLACE LOW_PRIORITY INTO `a`.`outbox` SET x = 1":          {"a", "outbox"},
		"INSERT /* x */ IGNORE\n\tINTO /* y */ a . outbox SELECT 1": {"a", "outbox"},
		"/* x */ INSERT INTO `out``box` VALUES ()":                  {"", "out`box"},
		`INSERT DELAYED INTO "a"."outbox" VALUES ()`:                {"a", "outbox"},
		"-- x\nREPLACE INTO checksums SELECT * FROM outbox":         {"", "checksums"},
		"/*!50003 INSERT INTO outbox VALUES (1) */":                 {"", "outbox"},
		"INSERT INTO `outbox":                                       {"", "outbox"},
		"INSERT INTO ":                                              {"", ""},
	} {
		require.Equal(t, want, target(statement), statement)
	}
}

func TestANameIsMentionedAsAWordOfItsOwn(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"UPDATE outbox SET a = 1":           true,
		"UPDATE `OutBox` SET a = 1":         true,
		"UPDATE a JOIN m.outbox USING (id)": true,
		"UPDATE outbox_old SET a = 1":       false,
		"UPDATE myoutbox, outbox":           true,
		"UPDATE myoutbox":                   false,
		"UPDATE $outbox, outbox2, éoutbox":  false,
		"":                                  false,
	} {
		require.Equal(t, want, mentions(text, "outbox"), text)
	}
}

func TestSavepointsAreNamedInAnyCaseAndQuoting(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"`S``t`", " `s``T`", "\"s`t\""} {
		require.Equal(t, "s`t", identifier(text))
	}
	require.Equal(t, "s", identifier(" S "))
}
