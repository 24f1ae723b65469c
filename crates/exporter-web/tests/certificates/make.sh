#!/usr/bin/env bash
# Makes the certificates and keys beside it, which the tests of clients' certificates and of TLS read. Valid from 2020
# to 2119, so that no clock is wrong for them. Needs OpenSSL 3.0 (newer ones make no X.509 version 1).
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

key() { # NAME [ALGORITHM [OPTION...]]
    local name=$1
    shift
    [ $# -gt 0 ] || set -- EC -pkeyopt ec_paramgen_curve:P-256
    openssl genpkey -out "$work/$name.key" -algorithm "$@"
}

# certificate NAME ISSUER EXTENSIONS [OPTION...]: NAME.pem signed by ISSUER (- for itself); without extensions it is
# X.509 version 1. SUBJECT and END may be set. Keys that the tests need are kept beside it.
certificate() {
    local name=$1 issuer=$2 extensions=$3
    shift 3
    [ -e "$work/$name.key" ] || key "$name"
    openssl req -new -key "$work/$name.key" -subj "/CN=${SUBJECT-$name}" -out "$work/$name.csr"
    : >"$work/index"
    # -rand_serial, no database that would refuse two subjects of one name.
    printf '%s\n' '[ca]' 'default_ca=d' '[d]' "database=$work/index" "new_certs_dir=$work" 'default_md=sha256' \
        'policy=p' 'unique_subject=no' 'rand_serial=yes' '[p]' 'commonName=supplied' '[e]' >"$work/conf"
    printf '%b' "$extensions" >>"$work/conf"
    local signer=(-cert "$work/$issuer.pem" -keyfile "$work/$issuer.key")
    [ "$issuer" != - ] || signer=(-selfsign -keyfile "$work/$name.key")
    openssl ca -batch -notext -config "$work/conf" "${signer[@]}" ${extensions:+-extensions e} -preserveDN \
        -startdate 20200101000000Z -enddate "${END-21190101000000Z}" -in "$work/$name.csr" -out "$work/$name.pem" "$@"
    cp "$work/$name.pem" .
}
keep_key() { openssl pkcs8 -topk8 -nocrypt -in "$work/$1.key" -out "$1.key"; }

ca='basicConstraints=critical,CA:TRUE\n'
client='extendedKeyUsage=clientAuth\n'
names='subjectAltName=DNS:prometheus.example,email:me@example,IP:10.1.2.3,IP:::1,IP:::ffff:10.1.2.4,URI:spiffe://a/b\n'

certificate ca - "${ca}keyUsage=keyCertSign\n"
certificate server ca 'subjectAltName=IP:127.0.0.1,DNS:localhost\n'
keep_key server

# What Go accepts.
certificate client ca "$client$names"
keep_key client
certificate client-v1 ca ''
keep_key client-v1
certificate client-is-ca ca "$ca"
certificate client-any-usage ca 'extendedKeyUsage=anyExtendedKeyUsage\n'
certificate self-signed-ca - "$ca"
keep_key self-signed-ca
certificate self-signed - 'subjectKeyIdentifier=hash\n'
certificate ca-v1 - ''
certificate client-of-ca-v1 ca-v1 "$client"
key client-rsa RSA -pkeyopt rsa_keygen_bits:2048
certificate client-rsa ca "$client"
key ca-rsa RSA -pkeyopt rsa_keygen_bits:2048
certificate ca-rsa - "$ca"
certificate client-of-ca-rsa ca-rsa "$client"
certificate client-of-ca-rsa-pss ca-rsa "$client" -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32
key ca-ed25519 ED25519
certificate ca-ed25519 - "$ca" -md null
certificate client-of-ca-ed25519 ca-ed25519 "$client" -md null
key ca-p384 EC -pkeyopt ec_paramgen_curve:P-384
certificate ca-p384 - "$ca"
certificate client-of-ca-p384 ca-p384 "$client"
certificate intermediate ca "$ca"
certificate client-of-intermediate intermediate "$client"
certificate ca-no-intermediates - "${ca/TRUE/TRUE,pathlen:0}"
certificate client-of-ca-no-intermediates ca-no-intermediates "$client"
certificate ca-constrained - "${ca}nameConstraints=critical,permitted;DNS:example\n"
certificate client-inside-constraints ca-constrained 'subjectAltName=DNS:a.example\n'

# What Go refuses.
certificate client-sha1 ca-rsa "$client" -md sha1
SUBJECT=ca certificate ca-of-same-name - "$ca"
certificate client-forged ca-of-same-name "$client"
END=20210101000000Z certificate client-expired ca "$client"
certificate client-for-servers ca 'extendedKeyUsage=serverAuth\n'
certificate client-critical ca '1.2.3.4=critical,ASN1:NULL\n'
certificate client-other-names ca 'subjectAltName=critical,dirName:n\n[n]\nCN=x\n'
END=20210101000000Z certificate ca-expired - "$ca"
certificate client-of-ca-expired ca-expired "$client"
certificate ca-without-signing - "${ca}keyUsage=digitalSignature\n"
certificate client-of-ca-without-signing ca-without-signing "$client"
certificate not-a-ca - 'basicConstraints=CA:FALSE\n'
certificate client-of-not-a-ca not-a-ca "$client"
certificate ca-unsaid - 'subjectKeyIdentifier=hash\n'
certificate client-of-ca-unsaid ca-unsaid "$client"
certificate ca-for-servers - "${ca}extendedKeyUsage=serverAuth\n"
certificate client-of-ca-for-servers ca-for-servers "$client"
certificate intermediate-of-ca-no-intermediates ca-no-intermediates "$ca"
certificate client-too-deep intermediate-of-ca-no-intermediates "$client"
certificate client-of-client client "$client"
certificate client-outside-constraints ca-constrained 'subjectAltName=DNS:a.other\n'
certificate intermediate-of-ca-expired ca-expired "$ca"
certificate client-of-intermediate-of-ca-expired intermediate-of-ca-expired "$client"
certificate ca-constrained-otherwise - "${ca}nameConstraints=critical,permitted;dirName:n\n[n]\nCN=client\n"
SUBJECT=client certificate client-of-ca-constrained-otherwise ca-constrained-otherwise "$client"
certificate intermediate-constrained-otherwise ca "${ca}nameConstraints=critical,permitted;dirName:n\n[n]\nCN=client\n"
SUBJECT=client certificate client-of-intermediate-constrained-otherwise intermediate-constrained-otherwise "$client"
