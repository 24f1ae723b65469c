// What Go says of a client's certificate, as crypto/tls asks (handshake_server.go, processCertsFromClient): the answer
// that the tests of exporter-web expect. Run it as: go run oracle.go ROOT,... LEAF,INTERMEDIATE,... [ROOT,... LEAF,...]
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"time"
)

func certificates(names string) (all []*x509.Certificate) {
	for _, name := range strings.FieldsFunc(names, func(r rune) bool { return r == ',' }) {
		text, err := os.ReadFile(name + ".pem")
		if err != nil {
			panic(err)
		}
		block, _ := pem.Decode(text)
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			panic(fmt.Sprint(name, ": ", err))
		}
		all = append(all, certificate)
	}
	return all
}

func main() {
	for i := 1; i+1 < len(os.Args); i += 2 {
		options := x509.VerifyOptions{
			Roots:         x509.NewCertPool(),
			Intermediates: x509.NewCertPool(),
			CurrentTime:   time.Unix(1_800_000_000, 0),
			KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
		for _, root := range certificates(os.Args[i]) {
			options.Roots.AddCert(root)
		}
		chain := certificates(os.Args[i+1])
		for _, intermediate := range chain[1:] {
			options.Intermediates.AddCert(intermediate)
		}
		_, err := chain[0].Verify(options)
		fmt.Printf("%s by %s: %v\n", os.Args[i+1], os.Args[i], err)
	}
}
