use super::*;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::AUTHORIZATION;
use std::process::Command;
use test_needs::needs;

/// What crypt(3) makes of `builder`.
const BUILDER: &str = "$2y$04$LBYa0lJ0GtfEWl8LNN/IEuGRioK7L4Ys9Eg5j9wNC6qtJstaPg53e";

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn write(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join("web.yml");
        // By rename, so that it is another file even where the clock has not gone on.
        fs::write(self.dir.path().join("new"), text).unwrap();
        fs::rename(self.dir.path().join("new"), &path).unwrap();
        path
    }

    /// A certificate that signs itself, and its key.
    fn certificate(&self, name: &str) {
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ])
            .args([
                "-subj",
                &format!("/CN={name}"),
                "-keyout",
                "new.key",
                "-out",
                "new.crt",
            ])
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        for end in ["key", "crt"] {
            fs::rename(
                self.dir.path().join(format!("new.{end}")),
                self.dir.path().join(format!("{name}.{end}")),
            )
            .unwrap();
        }
    }

    fn load(&self, text: &str) -> Result<WebConfig, String> {
        WebConfig::load(&self.write(text), |_| {})
    }
}

fn admit(config: &WebConfig, user: &str, password: &str) -> Result<(), Refusal> {
    let mut headers = HeaderMap::new();
    let value = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&value).unwrap());
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(config.admit(&headers))
}

fn users(user: &str) -> String {
    format!("basic_auth_users:\n  {user}: {BUILDER}\n")
}

const TLS: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

#[test]
fn what_is_wrong_at_the_start_is_said() {
    needs!("openssl");
    let files = Files::new();
    for (text, error) in [
        (
            "basic_auth_users:\n  bob: builder\n",
            "bob: the password is not hashed with bcrypt",
        ),
        (TLS, "cert_file"),
        ("tls: 1\n", "unknown field `tls`"),
    ] {
        let failure = files.load(text).err().unwrap();
        let start = format!("--web.config.file {}/web.yml: ", files.dir.path().display());
        assert!(
            failure.starts_with(&start) && failure.contains(error),
            "{failure}"
        );
    }
    let missing = WebConfig::load(&files.dir.path().join("none.yml"), |_| {})
        .err()
        .unwrap();
    assert!(missing.contains("No such file"), "{missing}");
    assert!(WebConfig::load(files.dir.path(), |_| {}).is_err());

    files.certificate("server");
    assert!(files.load(TLS).unwrap().has_tls());
    fs::write(files.dir.path().join("server.crt"), "no certificate").unwrap();
    assert!(files.load(TLS).err().unwrap().contains("no certificate in it"));
    files.certificate("server");
    files.certificate("other");
    let mixed = TLS.replace("server.key", "other.key");
    assert!(files.load(&mixed).is_err(), "a certificate and another's key");
    fs::write(files.dir.path().join("server.key"), "").unwrap();
    assert!(files.load(TLS).err().unwrap().contains("no private key"));
}

#[test]
fn what_tls_cannot_do_is_said() {
    needs!("openssl");
    let files = Files::new();
    files.certificate("server");
    for (line, error) in [
        (
            "cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]",
            "cipher_suites: TLS_RSA_WITH_AES_128_CBC_SHA is not",
        ),
        (
            "curve_preferences: [CurveP521]",
            "curve_preferences: CurveP521 is not",
        ),
        (
            "client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: none.pem",
            "client_ca_file",
        ),
    ] {
        let failure = files.load(&format!("{TLS}  {line}\n")).err().unwrap();
        assert!(failure.contains(error), "{failure}");
    }
    for line in [
        "cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]",
        "cipher_suites: [TLS_AES_128_GCM_SHA256]",
        "curve_preferences: [CurveP256, X25519]",
        "max_version: TLS12",
        "min_version: TLS13",
        "client_auth_type: RequestClientCert",
        "client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: server.crt\n  client_allowed_sans: [a]",
    ] {
        assert!(files.load(&format!("{TLS}  {line}\n")).is_ok(), "{line}");
    }
}

#[test]
fn a_changed_file_counts_at_once_and_a_broken_one_answers_nobody() {
    let files = Files::new();
    let config = files.load(&users("bob")).unwrap();
    assert_eq!(admit(&config, "bob", "builder"), Ok(()));
    assert_eq!(admit(&config, "alice", "builder"), Err(Refusal::Unauthorized));
    files.write(&users("alice"));
    assert_eq!(admit(&config, "alice", "builder"), Ok(()));
    assert_eq!(admit(&config, "bob", "builder"), Err(Refusal::Unauthorized));
    for broken in ["users: {}", "basic_auth_users:\n  bob: builder\n", TLS] {
        files.write(broken);
        assert_eq!(
            admit(&config, "alice", "builder"),
            Err(Refusal::Broken),
            "{broken}"
        );
        assert_eq!(
            admit(&config, "alice", "builder"),
            Err(Refusal::Broken),
            "{broken}"
        );
    }
    fs::remove_file(files.dir.path().join("web.yml")).unwrap();
    assert_eq!(admit(&config, "alice", "builder"), Err(Refusal::Broken));
    files.write("http_server_config:\n  headers:\n    X-Frame-Options: deny\n");
    assert_eq!(admit(&config, "anybody", ""), Ok(()));
    assert_eq!(config.headers().len(), 1);
}

#[test]
fn a_rate_limit_holds() {
    let files = Files::new();
    let config = files.load("rate_limit:\n  interval: 1h\n  burst: 2\n").unwrap();
    let answers = [(); 3].map(|()| admit(&config, "", ""));
    assert_eq!(answers, [Ok(()), Ok(()), Err(Refusal::TooManyRequests)]);
}

#[test]
fn certificates_are_read_again_and_broken_ones_passed_over() {
    needs!("openssl");
    let files = Files::new();
    files.certificate("server");
    let config = files.load(TLS).unwrap();
    let served = || Arc::as_ptr(config.acceptor().unwrap().config());
    let first = served();
    assert_eq!(served(), first, "made once");
    files.certificate("server");
    let second = served();
    assert_ne!(second, first);
    // In the middle of being renewed.
    files.certificate("next");
    fs::rename(
        files.dir.path().join("next.crt"),
        files.dir.path().join("server.crt"),
    )
    .unwrap();
    assert_eq!(served(), second);
    fs::rename(
        files.dir.path().join("next.key"),
        files.dir.path().join("server.key"),
    )
    .unwrap();
    let third = served();
    assert_ne!(third, second);
    // A file that says something else, and cannot be followed, is another matter.
    files.write(&format!(
        "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: none.pem\n"
    ));
    assert!(config.acceptor().is_none());
    fs::copy(
        files.dir.path().join("server.crt"),
        files.dir.path().join("none.pem"),
    )
    .unwrap();
    assert!(config.acceptor().is_some(), "what was missing has come");
    files.write("");
    assert!(
        config.acceptor().is_none(),
        "TLS is not turned off by an empty file"
    );
    files.write(TLS);
    assert!(config.acceptor().is_some());
}
