package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// TLS is the certificate that servers show and the authority that they know, each as text in PEM.
type TLS struct{ CA, Cert, Key []byte }

// fits tells when TLS was asked of a container, which would not see the files.
func (t *TLS) fits(image string) error {
	if t != nil && image != "" {
		return errors.New("check stack configuration: TLS needs servers in PATH, there are only containers")
	}
	return nil
}

// Save writes ca.pem, cert.pem and key.pem into a folder, which it makes.
func (t *TLS) Save(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("make the folder for certificates: %w", err)
	}
	for name, pem := range map[string][]byte{"ca.pem": t.CA, "cert.pem": t.Cert, "key.pem": t.Key} {
		if err := os.WriteFile(filepath.Join(folder, name), pem, 0o600); err != nil {
			return fmt.Errorf("write a certificate: %w", err)
		}
	}
	return nil
}

func (t *TLS) brokerConfig(folder, addr string) string {
	return fmt.Sprintf(`listeners.ssl.default = %s
ssl_options.cacertfile = %s
ssl_options.certfile = %s
ssl_options.keyfile = %s
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
`, addr, filepath.Join(folder, "ca.pem"), filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem"))
}

func (t *TLS) databaseOptions(folder string) []string {
	return []string{
		"--ssl-ca=" + filepath.Join(folder, "ca.pem"),
		"--ssl-cert=" + filepath.Join(folder, "cert.pem"),
		"--ssl-key=" + filepath.Join(folder, "key.pem"),
	}
}
