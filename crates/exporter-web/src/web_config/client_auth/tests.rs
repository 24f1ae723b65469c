//! The certificates are those of `tests/certificates/make.sh`; what is expected of each is what Go's crypto/x509 says
//! of it (`tests/certificates/oracle.go`), or a stricter answer that the test names as such.

use super::*;
use proptest::prelude::*;
use std::path::Path;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;

/// In 2027.
const NOW: u64 = 1_800_000_000;

fn pem(name: &str) -> CertificateDer<'static> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/certificates/{name}.pem"));
    CertificateDer::from_pem_file(path).unwrap()
}

fn verifier(roots: &[&str], names: Option<&[&str]>) -> ClientVerifier {
    let roots = roots.iter().copied().map(pem).collect();
    let names = names.map(|names| names.iter().map(|name| name.to_string()).collect());
    let algorithms = ring::default_provider().signature_verification_algorithms;
    ClientVerifier::verified(true, roots, names, algorithms).unwrap()
}

/// `Ok`, or why the chain is refused: a client's certificate, and the others that it sends.
fn verify(roots: &[&str], chain: &[&str]) -> Result<(), String> {
    let chain: Vec<_> = chain.iter().copied().map(pem).collect();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    let verified = verifier(roots, None).verify_client_cert(&chain[0], &chain[1..], now);
    verified.map(drop).map_err(|error| match error {
        Error::InvalidCertificate(CertificateError::Other(reason)) => reason.0.to_string(),
        other => other.to_string(),
    })
}

#[test]
fn what_go_accepts_is_accepted() {
    for (roots, chain) in [
        (&["ca"][..], &["client"][..]),
        (&["ca"], &["client-v1"]),
        (&["ca"], &["client-is-ca"]),
        (&["ca"], &["client-any-usage"]),
        (&["ca"], &["client-rsa"]),
        (&["ca-rsa"], &["client-of-ca-rsa"]),
        (&["ca-rsa"], &["client-of-ca-rsa-pss"]),
        (&["ca-ed25519"], &["client-of-ca-ed25519"]),
        (&["ca-p384"], &["client-of-ca-p384"]),
        (&["ca"], &["client", "ca"]),
        (&["self-signed-ca"], &["self-signed-ca"]),
        (&["self-signed"], &["self-signed"]),
        (&["client"], &["client"]),
        (&["client-v1"], &["client-v1"]),
        (&["ca-v1"], &["client-of-ca-v1"]),
        (&["ca"], &["client-of-intermediate", "intermediate"]),
        (&["intermediate"], &["client-of-intermediate"]),
        (&["ca-no-intermediates"], &["client-of-ca-no-intermediates"]),
        (&["ca-constrained"], &["client-inside-constraints"]),
        (&["ca-of-same-name", "ca"], &["client"]),
        (&["ca-expired", "ca"], &["client"]),
    ] {
        assert_eq!(verify(roots, chain), Ok(()), "{chain:?} by {roots:?}");
    }
}

#[test]
fn what_go_refuses_is_refused_with_the_reason() {
    for (roots, chain, reason) in [
        (
            &["ca"][..],
            &["self-signed-ca"][..],
            "neither in client_ca_file nor signed",
        ),
        (&[], &["client"], "neither in client_ca_file nor signed"),
        (&["ca-rsa"], &["client-sha1"], "its signature is not its issuer's"),
        (&["ca"], &["client-forged"], "its signature is not its issuer's"),
        (
            &["ca"],
            &["client-forged", "ca-of-same-name"],
            "its signature is not its issuer's",
        ),
        (
            &["ca"],
            &["client-of-intermediate"],
            "neither in client_ca_file nor signed",
        ),
        (
            &["ca"],
            &["client-expired"],
            "valid from 2020-01-01T00:00:00Z to 2021-01-01T00:00:00Z",
        ),
        (
            &["client-expired"],
            &["client-expired"],
            "to 2021-01-01T00:00:00Z",
        ),
        (&["ca"], &["client-for-servers"], "extended key usage"),
        (
            &["client-for-servers"],
            &["client-for-servers"],
            "extended key usage",
        ),
        (
            &["ca"],
            &["client-critical"],
            "critical extension 1.2.3.4 is not understood",
        ),
        (
            &["client-critical"],
            &["client-critical"],
            "critical extension 1.2.3.4",
        ),
        (&["ca"], &["client-other-names"], "critical extension 2.5.29.17"),
        (
            &["ca-expired"],
            &["client-of-ca-expired"],
            "issuer's certificate in client_ca_file is not accepted: it is valid",
        ),
        (
            &["ca-without-signing"],
            &["client-of-ca-without-signing"],
            "it may not sign certificates",
        ),
        (
            &["not-a-ca"],
            &["client-of-not-a-ca"],
            "it may not sign certificates",
        ),
        (
            &["ca-unsaid"],
            &["client-of-ca-unsaid"],
            "it may not sign certificates",
        ),
        (&["client"], &["client-of-client"], "it may not sign certificates"),
        (
            &["ca"],
            &["client-of-client", "client"],
            "neither in client_ca_file nor signed",
        ),
        (
            &["ca-for-servers"],
            &["client-of-ca-for-servers"],
            "extended key usage",
        ),
        (
            &["ca-no-intermediates"],
            &["client-too-deep", "intermediate-of-ca-no-intermediates"],
            "neither in client_ca_file nor signed",
        ),
        (
            &["ca-expired"],
            &[
                "client-of-intermediate-of-ca-expired",
                "intermediate-of-ca-expired",
            ],
            "neither in client_ca_file nor signed",
        ),
        (
            &["ca-constrained"],
            &["client-outside-constraints"],
            "is not accepted",
        ),
        (
            &["ca-constrained-otherwise"],
            &["client-of-ca-constrained-otherwise"],
            "critical extension 2.5.29.30",
        ),
        (
            &["ca"],
            &[
                "client-of-intermediate-constrained-otherwise",
                "intermediate-constrained-otherwise",
            ],
            "neither in client_ca_file nor signed",
        ),
    ] {
        let refusal = verify(roots, chain).expect_err(&format!("{chain:?} by {roots:?}"));
        assert!(refusal.contains(reason), "{chain:?} by {roots:?}: {refusal}");
    }
}

#[test]
fn a_certificate_needs_one_of_the_allowed_names() {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    let verify = |client: &str, names: &[&str]| {
        let verified = verifier(&["ca"], Some(names)).verify_client_cert(&pem(client), &[], now);
        verified.map_err(|error| format!("{error:?}"))
    };
    for name in [
        "prometheus.example",
        "me@example",
        "10.1.2.3",
        "::1",
        "10.1.2.4",
        "spiffe://a/b",
    ] {
        assert!(verify("client", &["other", name]).is_ok(), "{name}");
    }
    for names in [
        &[][..],
        &["example"],
        &["client"],
        &["*.example"],
        &["PROMETHEUS.EXAMPLE"],
    ] {
        let refusal = verify("client", names).unwrap_err();
        assert!(
            refusal.contains("prometheus.example"),
            "it says which names there are: {refusal}"
        );
    }
    assert!(
        verify("client-v1", &["client-v1", ""]).is_err(),
        "a common name is none"
    );
    assert!(verify("client-forged", &["prometheus.example"]).is_err());
}

#[test]
fn names_need_a_certificate_to_be_in() {
    let algorithms = ring::default_provider().signature_verification_algorithms;
    let mandatory = |names| {
        let verifier = ClientVerifier::verified(false, vec![pem("ca")], names, algorithms);
        verifier.unwrap().client_auth_mandatory()
    };
    assert!(!mandatory(None));
    assert!(mandatory(Some(vec!["a".to_string()])));
}

/// A certificate that was tampered with is refused, wherever it was.
#[test]
fn no_changed_bit_is_accepted() {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    let verifier = verifier(&["ca"], None);
    for name in ["client", "client-v1", "client-is-ca"] {
        let bytes = pem(name).to_vec();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let verified = verifier.verify_client_cert(&changed.into(), &[], now);
            assert!(verified.is_err(), "{name}: bit {} of byte {}", bit % 8, bit / 8);
        }
    }
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
        prop_assert!(verifier(&["ca"], None).verify_client_cert(&bytes.into(), &[], now).is_err());
    }
}
