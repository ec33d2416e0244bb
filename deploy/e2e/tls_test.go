package e2e_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/mysql"
	"tailbox/deploy/stack"
	"tailbox/schema/schematest"
)

// TestEveryConnectionIsEncryptedAndShowsACertificate: servers of a private authority that let nobody in without a certificate,
// at none of their doors: the pools, the replica connection, the publishing and the consuming session.
func TestEveryConnectionIsEncryptedAndShowsACertificate(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	server, err := stack.Certify(folder, "localhost")
	require.NoError(t, err)

	w := setup(t, option{tls: server, noStart: true})
	encrypted := func(name string) []string {
		_, err := w.db.ExecContext(t.Context(), "ALTER USER '"+name+"'@'%' REQUIRE X509")
		require.NoError(t, err)
		env := []string{
			fmt.Sprintf("MYSQL_DSN=%s:%s@tcp(localhost:%d)/%s?tls=true", name, mysql.Password(name), w.stack.MySQL.Port(), mysql.Database),
			"AMQP_URL=" + w.stack.Rabbit.TLSURL("localhost", "/"),
		}
		for _, file := range []string{"ca", "cert", "key"} {
			path := filepath.Join(folder, file+".pem")
			env = append(env, "MYSQL_TLS_"+strings.ToUpper(file)+"="+path, "AMQP_TLS_"+strings.ToUpper(file)+"="+path)
		}
		return env
	}
	w.api = w.service("api", encrypted("api")...)
	w.worker = w.service("worker", encrypted("worker")...)
	w.cdc = w.service("cdc", encrypted("cdc")...)
	w.start(w.api, w.worker, w.cdc)
	id, err := w.post(t.Context(), 1)
	require.NoError(t, err)
	require.NoError(t, w.patch(t.Context(), id, 1))
	w.everythingOnce(2)

	plain := schematest.Open(t, fmt.Sprintf("cdc:%s@tcp(%s)/%s", mysql.Password("cdc"), w.stack.MySQL.Addr(), mysql.Database))
	require.ErrorContains(t, plain.PingContext(t.Context()), "Access denied", "the database lets nobody in without a certificate")
}
