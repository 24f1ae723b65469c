use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Result<Settings, String> {
    Settings::parse(text, Path::new("/etc/monitor")).map_err(|problem| problem.to_string())
}

const TLS: &str = "tls_server_config:\n  cert_file: c\n  key_file: k\n";

#[test]
fn reads_every_key() {
    let settings = parse(
        "# The keys of exporter-toolkit's documentation, all of them.\n\
         tls_server_config:\n  cert_file: server.crt\n  key_file: /keys/server.key\n  \
         client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  \
         client_allowed_sans: [prometheus.example, 10.0.0.1]\n  min_version: TLS12\n  max_version: TLS13\n  \
         cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]\n  \
         prefer_server_cipher_suites: no\n  curve_preferences: [CurveP521, X25519]\n\
         http_server_config:\n  http2: off\n  headers:\n    X-Frame-Options: deny\n    \
         X-XSS-Protection: 1\n    Strict-Transport-Security: \"\"\n\
         rate_limit:\n  interval: 1.5s\n  burst: 4\n\
         basic_auth_users:\n  alice: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze\n  \
         bob: $2y$10$hLqFl9jSjoAAy95Z/zw8Ye8wkdMBM8c5Bn1ptYqP/AXyV0.oy0S8m\n",
    )
    .unwrap();
    let tls = settings.tls.unwrap();
    assert_eq!(tls.certificate, Pem::File("/etc/monitor/server.crt".into()));
    assert_eq!(tls.key, Pem::File("/keys/server.key".into()));
    assert_eq!(tls.client_ca, Some(Pem::File("/etc/monitor/ca.pem".into())));
    assert_eq!(
        (tls.clients, tls.oldest, tls.newest, tls.own_order),
        (Clients::Verified, Version::Tls12, Version::Tls13, false)
    );
    assert_eq!(tls.client_names.unwrap(), ["prometheus.example", "10.0.0.1"]);
    assert_eq!(tls.suites, ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
    assert_eq!(tls.curves, ["X25519"]);
    let not_offered: Vec<_> = settings
        .not_offered
        .iter()
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(not_offered, ["TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "CurveP521"]);
    assert!(!settings.http2);
    let headers: Vec<_> = settings
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(
        headers,
        [("x-frame-options", "deny"), ("x-xss-protection", "1")],
        "one that is blank is not set"
    );
    assert_eq!(settings.users.len(), 2);
    assert!(settings.users["alice"].starts_with("$2y$10$mDwo"));
    let rate = Rate {
        interval: Duration::from_millis(1500),
        burst: 4,
    };
    assert_eq!(settings.rate, Some(rate));
}

#[test]
fn an_empty_file_protects_nothing() {
    let nothing = Settings {
        http2: true,
        ..Settings::default()
    };
    for text in [
        "",
        "# a comment\n",
        "{}",
        "tls_server_config:\nbasic_auth_users:\n",
        "tls_server_config: {}\nbasic_auth_users: {}",
        "tls_server_config:\n  cert_file: ''\n  key_file: ''\n",
        "tls_server_config:\n  min_version: TLS13\n",
        "rate_limit:\n  interval: 0\n  burst: 3\n",
    ] {
        assert_eq!(parse(text).as_ref(), Ok(&nothing), "{text:?}");
    }
}

/// The files below `web/testdata` of exporter-toolkit at 19a7c2d, by what they are about: what it accepts.
#[test]
fn what_exporter_toolkit_accepts_is_accepted() {
    for rest in [
        "",
        "  client_auth_type: RequestClientCert\n",
        "  client_auth_type: RequireAnyClientCert\n",
        "  client_auth_type: RequireClientCert\n",
        "  client_auth_type: VerifyClientCertIfGiven\n",
        "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca\n  client_allowed_sans: [one, two]\n",
        "  curve_preferences: [CurveP256, CurveP384, CurveP521, X25519]\n",
        "  min_version: TLS10\n",
        "  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]\n  \
         min_version: TLS12\n  max_version: TLS12\n",
        "  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]\n  max_version: TLS12\n\
         http_server_config:\n  http2: false\n",
        "http_server_config:\n  headers:\n    Strict-Transport-Security: max-age=31536000; includeSubDomains\n",
        "rate_limit:\n  interval: \"1s\"\n  burst: -1\n",
    ] {
        assert!(parse(&format!("{TLS}{rest}")).is_ok(), "{rest}");
    }
}

#[test]
fn what_exporter_toolkit_refuses_is_refused_with_the_reason() {
    let tls = TLS;
    for (text, error) in [
        ("hallo".to_string(), "not a web config file"),
        ("hallo: 1".to_string(), "unknown field `hallo`"),
        ("tls_server_config: [".to_string(), ""),
        (
            "tls_server_config:\n  cert_files: x\n".to_string(),
            "unknown field `cert_files`",
        ),
        (
            "http_server_config:\n  header: {}\n".to_string(),
            "unknown field `header`",
        ),
        (
            "http_server_config:\n  http2: perhaps\n".to_string(),
            "neither true nor false",
        ),
        (
            "tls_server_config:\n  cert_file: c\n".to_string(),
            "missing one of key or key_file",
        ),
        (
            "tls_server_config:\n  key_file: k\n".to_string(),
            "missing one of cert or cert_file",
        ),
        (
            "tls_server_config:\n  client_auth_type: NoClientCert\n".to_string(),
            "missing one of cert or cert_file",
        ),
        (
            format!("{tls}  client_ca_file: a\n"),
            "without a client_auth_type",
        ),
        (
            format!("{tls}  client_auth_type: Some\n"),
            "invalid ClientAuth: Some",
        ),
        (
            format!("{tls}  max_version: TLS14\n"),
            "unknown TLS version: TLS14",
        ),
        (
            format!("{tls}  min_version: TLS13\n  max_version: TLS12\n"),
            "no TLS version satisfies",
        ),
        (format!("{tls}  cert_file: d\n"), "duplicate"),
        ("basic_auth_users:\n  a: x\n  a: y\n".to_string(), "twice"),
        ("basic_auth_users: [a]\n".to_string(), "a map of texts"),
        (
            "http_server_config:\n  headers:\n    Server: x\n".to_string(),
            "can not be configured",
        ),
        (
            "http_server_config:\n  headers:\n    X-Frame-Options: maybe\n".to_string(),
            "invalid value for X-Frame-Options",
        ),
        (
            "http_server_config:\n  headers:\n    X-XSS-Protection: \"a\\nb\"\n".to_string(),
            "invalid value for X-XSS-Protection",
        ),
        (
            "rate_limit:\n  interval: soon\n".to_string(),
            "rate_limit: interval",
        ),
    ] {
        let failure = parse(&text).expect_err(&text);
        assert!(failure.contains(error), "{text:?}: {failure}");
    }
}

/// Each of these is in docs/reference-web-config.md.
#[test]
fn what_is_refused_on_purpose_says_why() {
    for (rest, error) in [
        (
            "  client_auth_type: RequireAndVerifyClientCert\n",
            "no client_ca_file to verify against",
        ),
        ("  client_allowed_sans: [a]\n", "anybody can have any name"),
        (
            "  client_auth_type: RequireAnyClientCert\n  client_allowed_sans: [a]\n",
            "anybody can have any name",
        ),
        ("  max_version: TLS11\n", "max_version: TLS11 is not offered"),
        (
            "  curve_preferences: [CurveP521]\n",
            "CurveP521 is not offered, and nothing else is named",
        ),
        (
            "  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]\n",
            "nothing else is named",
        ),
        ("rate_limit:\n  interval: -1s\n", "negative"),
    ] {
        let failure = parse(&format!("{TLS}{rest}")).expect_err(rest);
        assert!(failure.contains(error), "{rest:?}: {failure}");
    }
}

#[test]
fn certificates_may_be_given_in_the_file() {
    let settings = parse("tls_server_config:\n  cert: |\n    -----BEGIN\n    x\n  key: k\n").unwrap();
    let tls = settings.tls.unwrap();
    assert_eq!(tls.certificate, Pem::Text("-----BEGIN\nx\n".into()));
    assert!(!format!("{tls:?}").contains("BEGIN"), "a key is never printed");
    assert_eq!(tls.clients, Clients::NotAsked);
}

#[test]
fn a_key_in_place_of_the_file_is_not_printed() {
    let key = include_str!("../../../tests/certificates/server.key");
    for text in [key, &key.replace('\n', " "), "secret word\nmore of it"] {
        let failure = parse(text).expect_err(text);
        let secret = text
            .split_whitespace()
            .rev()
            .find(|word| word.len() > 20)
            .unwrap_or("secret");
        assert!(!failure.contains(secret), "{failure}");
    }
}

proptest! {
    #[test]
    fn never_panics(text in "\\PC*") {
        let _ = parse(&text);
        let _ = parse(&format!("tls_server_config:\n  cert_file: {text}\n"));
    }
}
