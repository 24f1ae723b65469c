//! The subject alternative names of a certificate.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The tags of X.690 and RFC 5280 that are met on the way.
const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const EXTENSIONS: u8 = 0xa3;
const EMAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
const IP: u8 = 0x87;

/// The object identifier 2.5.29.17, subjectAltName, with its tag and length.
const SUBJECT_ALT_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x11];

/// The DNS names, mail addresses, URIs and IP addresses that a certificate (DER) is for, as texts. A certificate
/// that cannot be read has none.
pub fn alternative_names(certificate: &[u8]) -> Vec<String> {
    find(certificate).unwrap_or_default()
}

fn find(certificate: &[u8]) -> Option<Vec<String>> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut to_be_signed, _) = element(certificate)?;
    let extensions = loop {
        let (tag, content, rest) = element(to_be_signed)?;
        if tag == EXTENSIONS {
            break content;
        }
        to_be_signed = rest;
    };
    let (_, mut extensions, _) = element(extensions)?;
    while let Some((SEQUENCE, extension, rest)) = element(extensions) {
        extensions = rest;
        let Some(mut extension) = extension.strip_prefix(SUBJECT_ALT_NAME) else {
            continue;
        };
        // Before the value may stand whether it is critical.
        while let Some((tag, value, rest)) = element(extension) {
            if tag == OCTET_STRING {
                let (_, names, _) = element(value)?;
                return Some(general_names(names));
            }
            extension = rest;
        }
    }
    None
}

fn general_names(mut names: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let Some((tag, value, rest)) = element(names) {
        names = rest;
        let name = match tag {
            EMAIL | DNS | URI => std::str::from_utf8(value).ok().map(str::to_string),
            IP => address(value),
            _ => None,
        };
        found.extend(name);
    }
    found
}

fn address(bytes: &[u8]) -> Option<String> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes)
            .ok()
            .map(|bytes| Ipv4Addr::from(bytes).to_string()),
        16 => <[u8; 16]>::try_from(bytes)
            .ok()
            .map(|bytes| Ipv6Addr::from(bytes).to_string()),
        _ => None,
    }
}

/// The first element of a DER text: its tag, its content and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        let length = digits
            .iter()
            .fold(0, |length, digit| length << 8 | usize::from(*digit));
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;
    use std::process::Command;
    use test_needs::needs;

    /// A certificate with these names, made by openssl.
    fn certificate(names: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let mut openssl = Command::new("openssl");
        openssl
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args([
                "-keyout",
                "/dev/null",
                "-subj",
                "/CN=x",
                "-days",
                "2",
                "-outform",
                "PEM",
            ]);
        if !names.is_empty() {
            openssl.args(["-addext", &format!("subjectAltName={names}")]);
        }
        let made = openssl.current_dir(dir.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let pem = String::from_utf8(made.stdout).unwrap();
        let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        BASE64_STANDARD.decode(text).unwrap()
    }

    #[test]
    fn reads_names_of_every_kind() {
        needs!("openssl");
        let names = "DNS:a.example,email:me@b.example,IP:10.1.2.3,IP:::1,URI:spiffe://c/d,DNS:*.e.example";
        assert_eq!(
            alternative_names(&certificate(names)),
            [
                "a.example",
                "me@b.example",
                "10.1.2.3",
                "::1",
                "spiffe://c/d",
                "*.e.example"
            ]
        );
        let critical = certificate("critical,DNS:only.example");
        assert_eq!(alternative_names(&critical), ["only.example"]);
        assert_eq!(alternative_names(&certificate("")), [""; 0]);
        assert_eq!(alternative_names(b""), [""; 0]);
        for end in 0..critical.len() {
            assert_eq!(alternative_names(&critical[..end]), [""; 0], "cut off at {end}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = alternative_names(&bytes);
        }
    }
}
