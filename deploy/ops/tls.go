package ops

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// TLSFiles are PEM files for encrypted connections to one kind of server. Embed them with kong's envprefix; none of them is
// needed where the system knows the server's authority and the server asks for no certificate.
type TLSFiles struct {
	CA   string `name:"ca" env:"CA" help:"PEM file of the authorities that may have signed the server's certificate. Defaults to those of the system."`
	Cert string `name:"cert" env:"CERT" help:"PEM file of the certificate to show to the server, with its chain. It is read anew for each connection, so that it can be renewed."`
	Key  string `name:"key" env:"KEY" help:"PEM file of that certificate's private key."`
}

// any tells whether one of the files is named.
func (f TLSFiles) any() bool { return f != TLSFiles{} }

// load makes the configuration of clients that verify the server, or tells all that is wrong with the files; prefix is what
// the names of the settings begin with.
func (f TLSFiles) load(prefix string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	return cfg, errors.Join(f.loadCA(prefix, cfg), f.loadCert(prefix, cfg))
}

func (f TLSFiles) loadCA(prefix string, cfg *tls.Config) error {
	if f.CA == "" {
		return nil
	}
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return fmt.Errorf("%sCA: %w", prefix, err)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%sCA: %s holds no certificate in PEM", prefix, f.CA)
	}
	return nil
}

func (f TLSFiles) loadCert(prefix string, cfg *tls.Config) error {
	switch {
	case f.Cert == "" && f.Key == "":
		return nil
	case f.Key == "":
		return fmt.Errorf("%sCERT is set and %sKEY is not: a certificate needs its private key", prefix, prefix)
	case f.Cert == "":
		return fmt.Errorf("%sKEY is set and %sCERT is not: a private key needs its certificate", prefix, prefix)
	}
	if _, err := tls.LoadX509KeyPair(f.Cert, f.Key); err != nil {
		return fmt.Errorf("%sCERT and %sKEY: %w", prefix, prefix, err)
	}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("read the certificate: %w", err)
		}
		return &pair, nil
	}
	return nil
}
