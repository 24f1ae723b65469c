use super::*;
use crate::protection::TlsFiles;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::AUTHORIZATION;
use std::os::unix::net::UnixListener;

/// What crypt(3) makes of `builder`.
const BUILDER: &str = "$2y$04$LBYa0lJ0GtfEWl8LNN/IEuGRioK7L4Ys9Eg5j9wNC6qtJstaPg53e";

/// A directory with a web config file and what it names.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// By rename, so that it is another file even where the clock has not gone on.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
        self.path(name)
    }

    /// One of the certificates or keys that the tests have, under a name of its own.
    fn copy(&self, from: &str, to: &str) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/certificates")
            .join(from);
        self.write(to, &fs::read_to_string(from).unwrap());
    }

    fn server_certificate(&self) {
        self.copy("server.pem", "server.crt");
        self.copy("server.key", "server.key");
    }

    fn load(&self, text: &str) -> Result<WebConfig, String> {
        self.load_telling(text, |_| {})
    }

    fn load_telling(
        &self,
        text: &str,
        tell: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<WebConfig, String> {
        WebConfig::load(WebConfigSource::File(self.write("web.yml", text)), Arc::new(tell))
            .map_err(|error| error.to_string())
    }
}

async fn admit(config: &WebConfig, user: &str, password: &str) -> Result<(), Refusal> {
    let mut headers = HeaderMap::new();
    let value = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&value).unwrap());
    config.admit(&headers).await
}

fn users(user: &str) -> String {
    format!("basic_auth_users:\n  {user}: {BUILDER}\n")
}

const TLS: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

#[test]
fn what_is_wrong_at_the_start_is_said() {
    let files = Files::new();
    for (text, error) in [
        (
            "basic_auth_users:\n  bob: builder\n",
            "bob: the password is not hashed with bcrypt",
        ),
        (TLS, "server.crt: No such file"),
        ("tls: 1\n", "unknown field `tls`"),
    ] {
        let failure = files.load(text).err().unwrap();
        let start = format!("--web.config.file {}: ", files.path("web.yml").display());
        assert!(
            failure.starts_with(&start) && failure.contains(error),
            "{failure}"
        );
    }
    let load = |path: &Path| {
        let error = WebConfig::load(WebConfigSource::File(path.to_path_buf()), Arc::new(|_| {}))
            .err()
            .unwrap();
        error.to_string()
    };
    assert!(load(&files.path("none.yml")).contains("No such file"));
    assert!(load(files.dir.path()).contains("not a regular file"));

    files.server_certificate();
    assert!(files.load(TLS).unwrap().has_tls());
    files.write("server.crt", "no certificate");
    assert!(files.load(TLS).err().unwrap().contains("no certificate in it"));
    files.server_certificate();
    files.copy("client.key", "server.key");
    assert!(
        files.load(TLS).err().unwrap().contains("server.key"),
        "another's key"
    );
    files.write("server.key", "");
    assert!(files.load(TLS).err().unwrap().contains("no private key"));
}

#[test]
fn no_file_is_read_without_an_end() {
    let files = Files::new();
    files.server_certificate();
    let large = "# a comment\n".repeat((read::MAX_FILE as usize) / 12 + 1);
    assert!(files.load(&large).err().unwrap().contains("larger than 4 MiB"));
    files.write("server.crt", &large);
    assert!(
        files
            .load(TLS)
            .err()
            .unwrap()
            .contains("server.crt: larger than 4 MiB")
    );
    // What cannot be read, or would be waited for.
    fs::remove_file(files.path("server.crt")).unwrap();
    let _socket = UnixListener::bind(files.path("server.crt")).unwrap();
    assert!(files.load(TLS).err().unwrap().contains("not a regular file"));
}

#[test]
fn what_tls_can_do_and_cannot_is_found_at_the_start() {
    let files = Files::new();
    files.server_certificate();
    files.copy("ca.pem", "ca.pem");
    for (line, error) in [
        (
            "cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]",
            "cipher_suites: unknown cipher: TLS_RSA_WITH_AES_128_CBC_SHA",
        ),
        (
            "cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]",
            "cipher_suites: HTTP/2 needs TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        ),
        (
            "curve_preferences: [CurveP257]",
            "curve_preferences: unknown curve: CurveP257",
        ),
        (
            "client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: none.pem",
            "client_ca_file: ",
        ),
        (
            "client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: /dev/null",
            "client_ca_file: /dev/null: not a regular file",
        ),
    ] {
        let failure = files.load(&format!("{TLS}  {line}\n")).err().unwrap();
        assert!(failure.contains(error), "{failure}");
    }
    for line in [
        "cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]",
        "cipher_suites: [TLS_AES_128_GCM_SHA256]\n  min_version: TLS13",
        "cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]\nhttp_server_config:\n  http2: false",
        "curve_preferences: [CurveP256, X25519]",
        "max_version: TLS12",
        "min_version: TLS13",
        "client_auth_type: RequestClientCert",
        "client_auth_type: VerifyClientCertIfGiven",
        "client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  client_allowed_sans: [a]",
    ] {
        let loaded = files.load(&format!("{TLS}  {line}\n"));
        assert!(loaded.is_ok(), "{line}: {:?}", loaded.err());
    }
}

#[tokio::test]
async fn a_changed_file_counts_at_once_and_a_broken_one_answers_nobody() {
    let files = Files::new();
    let config = files.load(&users("bob")).unwrap();
    assert_eq!(admit(&config, "bob", "builder").await, Ok(()));
    assert_eq!(
        admit(&config, "alice", "builder").await,
        Err(Refusal::Unauthorized)
    );
    files.write("web.yml", &users("alice"));
    assert_eq!(admit(&config, "alice", "builder").await, Ok(()));
    assert_eq!(admit(&config, "bob", "builder").await, Err(Refusal::Unauthorized));
    for broken in ["users: {}", "basic_auth_users:\n  bob: builder\n", TLS] {
        files.write("web.yml", broken);
        for _ in 0..2 {
            assert_eq!(
                admit(&config, "alice", "builder").await,
                Err(Refusal::Broken),
                "{broken}"
            );
        }
    }
    fs::remove_file(files.path("web.yml")).unwrap();
    assert_eq!(admit(&config, "alice", "builder").await, Err(Refusal::Broken));
    files.write(
        "web.yml",
        "http_server_config:\n  headers:\n    X-Frame-Options: deny\n",
    );
    assert_eq!(admit(&config, "anybody", "").await, Ok(()));
    assert_eq!(config.headers().len(), 1);
}

#[tokio::test]
async fn a_rate_limit_holds() {
    let files = Files::new();
    let config = files.load("rate_limit:\n  interval: 1h\n  burst: 2\n").unwrap();
    for expected in [Ok(()), Ok(()), Err(Refusal::TooManyRequests)] {
        assert_eq!(admit(&config, "", "").await, expected);
    }
}

#[test]
fn certificates_are_read_again_and_broken_ones_passed_over() {
    let files = Files::new();
    files.server_certificate();
    let config = files.load(TLS).unwrap();
    let served = || {
        config
            .rules()
            .and_then(|rules| rules.tls.as_ref().map(Arc::as_ptr))
    };
    let first = served();
    assert!(first.is_some());
    assert_eq!(served(), first, "made once");
    files.server_certificate();
    let second = served();
    assert_ne!(second, first);
    // In the middle of being renewed: the certificate is there, its key is not.
    files.copy("client.pem", "server.crt");
    assert_eq!(served(), second);
    files.copy("client.key", "server.key");
    let third = served();
    assert_ne!(third, second);
    // A file that says something else, and cannot be followed, is another matter.
    files.write(
        "web.yml",
        &format!("{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: none.pem\n"),
    );
    assert_eq!(served(), None);
    files.copy("ca.pem", "none.pem");
    assert!(served().is_some(), "what was missing has come");
    files.write("web.yml", "");
    assert_eq!(served(), None, "TLS is not turned off by an empty file");
    files.write("web.yml", TLS);
    assert!(served().is_some());
}

#[test]
fn what_changes_is_told_and_refusals_not_without_end() {
    let files = Files::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let tell = move |event: Event| tell.lock().unwrap().push(event.to_string());
    let config = files.load_telling(&users("bob"), tell).unwrap();
    let said = || std::mem::take(&mut *told.lock().unwrap());
    files.write("web.yml", &users("alice"));
    config.rules();
    config.rules();
    let path = files.path("web.yml");
    assert_eq!(said(), [format!("{}: read again", path.display())]);
    files.write("web.yml", "user: bob\n");
    config.rules();
    let lines = said();
    assert!(
        lines[0].contains("unknown field `user`") && lines[0].contains("no request is answered"),
        "{lines:?}"
    );
    for _ in 0..100 {
        config.refused("10.0.0.1:5".to_string(), "it does not speak TLS".to_string());
    }
    let lines = said();
    assert_eq!(lines.len(), 10);
    assert_eq!(
        lines[0],
        "TLS connection from 10.0.0.1:5 refused: it does not speak TLS"
    );
    assert_eq!(*config.untold.lock().unwrap(), 90);
}

#[test]
fn a_certificate_and_its_key_need_no_file_around_them() {
    let files = Files::new();
    let load = |cipher_suites: &[&str]| {
        let source = WebConfigSource::Tls(TlsFiles {
            cert_file: files.path("server.crt"),
            key_file: files.path("server.key"),
            tls13_only: false,
            cipher_suites: cipher_suites.iter().map(|name| name.to_string()).collect(),
        });
        WebConfig::load(source, Arc::new(|_| {})).map_err(|error| error.to_string())
    };
    let missing = load(&[]).err().unwrap();
    assert!(
        missing.starts_with("cert_file: ") && missing.contains("No such file"),
        "{missing}"
    );
    files.server_certificate();
    let config = load(&["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]).unwrap();
    assert!(config.has_tls() && !config.has_passwords());
    assert!(load(&["TLS_NONE"]).err().unwrap().contains("TLS_NONE"));
    let served = || {
        config
            .rules()
            .and_then(|rules| rules.tls.as_ref().map(Arc::as_ptr))
    };
    let first = served();
    files.server_certificate();
    assert_ne!(served(), first, "read again");
}
