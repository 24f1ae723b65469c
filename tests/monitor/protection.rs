//! TLS and passwords, with certificates that openssl makes and curl as the client.

#![cfg(feature = "web-config")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use test_needs::needs;

use crate::support::{Monitor, Node, eventually};

/// What crypt(3) makes of `builder`: at the lowest cost, and at one that takes a second or so.
const BUILDER: &str = "$2y$04$LBYa0lJ0GtfEWl8LNN/IEuGRioK7L4Ys9Eg5j9wNC6qtJstaPg53e";

/// A directory with a web config file and what it names.
pub struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    pub fn new() -> Self {
        let files = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        files.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=test authority",
            "-days",
            "2",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ]);
        files.certificate("server", "IP:127.0.0.1,DNS:localhost");
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate signed by the authority.
    pub fn certificate(&self, name: &str, names: &str) {
        fs::write(self.path("ext"), format!("subjectAltName={names}\n")).unwrap();
        let (key, request, certificate) = (
            format!("{name}.key"),
            format!("{name}.csr"),
            format!("{name}.crt"),
        );
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
            &key,
            "-out",
            &request,
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "ext",
            "-out",
            &certificate,
        ]);
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(self.dir.path())
            .output();
        let output = output.unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub fn write(&self, text: &str) -> String {
        let path = self.path("web.yml");
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), &path).unwrap();
        path.display().to_string()
    }

    pub fn monitor(&self, node: &Node, text: &str) -> Monitor {
        node.monitor_with(&[], &["--web.config.file", &self.write(text)])
    }

    /// The status that curl gets, and what it says where there is none.
    fn curl(&self, monitor: &Monitor, options: &[&str]) -> Result<String, String> {
        self.curl_to(&format!("https://{}/healthz", monitor.address()), options)
    }

    fn curl_to(&self, url: &str, options: &[&str]) -> Result<String, String> {
        let output = Command::new("curl")
            .args([
                "-sS",
                "-m",
                "20",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--cacert",
            ])
            .arg(self.path("ca.crt"))
            .args(options)
            .arg(url)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }
}

const TLS: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

fn users() -> String {
    format!("basic_auth_users:\n  bob: {BUILDER}\n")
}

fn ok(status: &str) -> Result<String, String> {
    Ok(status.to_string())
}

#[test]
fn tls_and_a_password() {
    needs!("openssl", "curl");
    let (node, files) = (Node::new(), Files::new());
    node.pod("pod1");
    let headers = "http_server_config:\n  headers:\n    X-Frame-Options: deny\n";
    let monitor = files.monitor(&node, &format!("{TLS}{}{headers}", users()));
    assert!(monitor.place.starts_with("https://"));
    assert_eq!(files.curl(&monitor, &["-u", "bob:builder"]), ok("200"));
    assert_eq!(files.curl(&monitor, &["-u", "bob:wrong"]), ok("401"));
    assert_eq!(files.curl(&monitor, &[]), ok("401"));
    assert!(
        files.curl(&monitor, &["--cacert", "/dev/null"]).is_err(),
        "curl does not know the authority"
    );
    assert!(files.curl(&monitor, &["--tls-max", "1.1"]).is_err());
    let plain = format!("http://{}/healthz", monitor.address());
    assert!(files.curl_to(&plain, &["-u", "bob:builder"]).is_err());
    // What is not answered tells nothing of what there is.
    for path in ["metrics", "sandboxes", "nowhere"] {
        assert_eq!(
            files.curl_to(&format!("https://{}/{path}", monitor.address()), &[]),
            ok("401")
        );
    }
}

#[test]
fn a_password_without_tls() {
    needs!("openssl", "curl");
    let (node, files) = (Node::new(), Files::new());
    let monitor = files.monitor(&node, &users());
    let refused = monitor.get("/metrics");
    assert_eq!(
        (refused.status, refused.header("www-authenticate")),
        (401, Some("Basic"))
    );
    // bob:builder
    let allowed = monitor.request("GET", "/healthz", &[("Authorization", "Basic Ym9iOmJ1aWxkZXI=")]);
    assert_eq!(allowed.status, 200);
}

#[test]
fn listening_to_the_world_is_warned_of_unless_something_protects() {
    needs!("openssl", "curl");
    let (node, files) = (Node::new(), Files::new());
    let listen = |text: &str| {
        let file = files.write(text);
        node.monitor_with(
            &[],
            &["--listen-address", "0.0.0.0:0", "--web.config.file", &file],
        )
    };
    let nothing = ["", "http_server_config:\n  headers:\n    X-Frame-Options: deny\n"];
    for text in nothing {
        let monitor = listen(text);
        eventually("it warns", || {
            monitor.said().contains("without TLS or a password")
        });
    }
    let monitor = listen(&users());
    eventually("it warns", || {
        monitor
            .said()
            .contains("passwords that other machines send to 0.0.0.0:")
    });
    let monitor = listen(&format!("{TLS}{}", users()));
    let url = format!("https://{}/", monitor.address().replace("0.0.0.0", "127.0.0.1"));
    assert_eq!(files.curl_to(&url, &["-u", "bob:builder"]), ok("200"));
    assert!(!monitor.said().contains("warning"), "{}", monitor.said());
}

#[test]
fn https_with_the_flags_of_kata_monitor() {
    needs!("openssl", "curl");
    let (node, files) = (Node::new(), Files::new());
    let path = |name: &str| files.path(name).display().to_string();
    let own = [
        format!("--tls-cert-file={}", path("server.crt")),
        format!("-tls-key-file={}", path("server.key")),
        "-tls-min-version=VersionTLS13".to_string(),
    ];
    let monitor = node.monitor_with(&[], &own.each_ref().map(String::as_str));
    assert!(monitor.place.starts_with("https://"));
    assert_eq!(files.curl(&monitor, &[]), ok("200"));
    assert!(files.curl(&monitor, &["--tls-max", "1.2"]).is_err());
    files.certificate("server", "IP:127.0.0.1");
    assert_eq!(files.curl(&monitor, &[]), ok("200"));
    eventually("it says so", || monitor.said().contains("server.crt: read again"));
}

#[test]
fn what_is_not_offered_is_said() {
    needs!("openssl", "curl");
    let (node, files) = (Node::new(), Files::new());
    let suites =
        "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]";
    let monitor = files.monitor(&node, &format!("{TLS}  min_version: TLS10\n  {suites}\n"));
    assert_eq!(files.curl(&monitor, &[]), ok("200"));
    let said = monitor.said();
    for line in [
        "warning: min_version: TLS10 is not offered",
        "warning: cipher_suites: TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA is not offered",
    ] {
        assert!(said.contains(line), "{said}");
    }
}

#[test]
fn http2_where_it_is_negotiated() {
    needs!("openssl", "curl");
    let (node, files) = (Node::new(), Files::new());
    node.pod("pod1");
    let monitor = files.monitor(&node, TLS);
    let version = ["-w", "%{http_version} %{http_code}", "--compressed"];
    let get = |option| files.curl(&monitor, &[&version[..], &[option]].concat());
    assert_eq!(get("--http2"), ok("2 200"));
    assert_eq!(get("--http1.1"), ok("1.1 200"));
    // Several requests at once on one connection.
    let metrics = format!("https://{}/metrics", monitor.address());
    let url = [
        metrics.as_str(),
        metrics.as_str(),
        "-o",
        "/dev/null",
        "-o",
        "/dev/null",
        "-Z",
        "--http2",
    ];
    assert_eq!(
        files.curl(&monitor, &[&version[..], &url].concat()),
        ok("2 2002 2002 200")
    );
    files.write(&format!("{TLS}http_server_config:\n  http2: false\n"));
    assert_eq!(get("--http2"), ok("1.1 200"));
}

/// What people make with one line of openssl, and Prometheus's own exporters accept.
#[test]
fn clients_with_simple_certificates() {
    needs!("openssl", "curl");
    let (node, files) = (Node::new(), Files::new());
    let new = [
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=prom",
    ];
    files.openssl(&[&new[..], &["-x509", "-keyout", "self.key", "-out", "self.crt"]].concat());
    files.openssl(&[&new[..], &["-keyout", "v1.key", "-out", "v1.csr"]].concat());
    let sign = [
        "x509",
        "-req",
        "-in",
        "v1.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
    ];
    files.openssl(&[&sign[..], &["-out", "v1.crt"]].concat());
    let path = |name: String| files.path(&name).display().to_string();
    let with = |name: &str| {
        [
            "--cert".into(),
            path(format!("{name}.crt")),
            "--key".into(),
            path(format!("{name}.key")),
        ]
    };
    let clients = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file:";
    for (ca, client) in [("self", "self"), ("ca", "v1")] {
        let monitor = files.monitor(&node, &format!("{TLS}{clients} {ca}.crt\n"));
        for version in ["1.2", "1.3"] {
            let with = with(client);
            let options: Vec<_> = with
                .iter()
                .map(String::as_str)
                .chain(["--tls-max", version])
                .collect();
            assert_eq!(
                files.curl(&monitor, &options),
                ok("200"),
                "{client} by TLS {version}"
            );
        }
    }
    let monitor = files.monitor(&node, &format!("{TLS}{clients} ca.crt\n"));
    let with = with("self");
    let stranger: Vec<_> = with.iter().map(String::as_str).collect();
    assert!(files.curl(&monitor, &stranger).is_err());
    assert!(files.curl(&monitor, &[]).is_err());
    let plain = format!("http://{}/healthz", monitor.address());
    assert!(files.curl_to(&plain, &[]).is_err());
    let reasons = [
        "refused: its certificate: it is neither in client_ca_file nor signed by a certificate in it",
        "refused: it has no client certificate",
        "refused: it does not speak TLS",
    ];
    eventually("the reasons are said", || {
        let said = monitor.said();
        reasons.iter().all(|reason| said.contains(reason))
    });
    let said = monitor.said();
    assert!(said.contains("TLS connection from 127.0.0.1:"), "{said}");
}

#[test]
fn clients_with_certificates() {
    needs!("openssl", "curl");
    let (node, files) = (Node::new(), Files::new());
    files.certificate("client", "DNS:prometheus.example");
    files.certificate("stranger", "DNS:other.example");
    let path = |name: &str| files.path(name).display().to_string();
    let with = |name: &str| {
        [
            "--cert".to_string(),
            path(&format!("{name}.crt")),
            "--key".to_string(),
            path(&format!("{name}.key")),
        ]
    };
    let text = format!("{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n");
    let monitor = files.monitor(&node, &text);
    let get =
        |options: &[String]| files.curl(&monitor, &options.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(get(&with("client")), ok("200"));
    assert!(get(&[]).is_err());
    // From now on only one of them, without a restart.
    files.write(&format!("{text}  client_allowed_sans: [prometheus.example]\n"));
    assert_eq!(get(&with("client")), ok("200"));
    assert!(get(&with("stranger")).is_err());
}

#[test]
fn certificates_are_read_again_when_they_change() {
    needs!("openssl", "curl");
    let (node, files) = (Node::new(), Files::new());
    let monitor = files.monitor(&node, TLS);
    let serial = || served_serial(monitor.address());
    let first = serial();
    assert_eq!(files.curl(&monitor, &[]), ok("200"));
    files.certificate("server", "IP:127.0.0.1");
    assert_ne!(serial(), first);
    assert_eq!(files.curl(&monitor, &[]), ok("200"));
    eventually("it says so", || monitor.said().contains("read again"));
}

/// The serial number of the certificate that is served.
fn served_serial(address: &str) -> String {
    let script =
        format!("openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -serial");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "no certificate");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_file_that_breaks_later_answers_nobody_until_it_is_mended() {
    needs!("openssl", "curl");
    let (node, files) = (Node::new(), Files::new());
    let monitor = files.monitor(&node, &users());
    let get = || {
        monitor
            .request("GET", "/healthz", &[("Authorization", "Basic Ym9iOmJ1aWxkZXI=")])
            .status
    };
    assert_eq!(get(), 200);
    files.write("basic_auth_user: {}\n");
    assert_eq!(get(), 500);
    files.write(&users());
    assert_eq!(get(), 200);
    eventually("it said why", || {
        monitor.said().contains("unknown field `basic_auth_user`")
    });
}

#[test]
fn a_file_that_cannot_be_used_is_an_error_at_the_start() {
    needs!("openssl", "curl");
    let (node, files) = (Node::new(), Files::new());
    for (text, error) in [
        (format!("{TLS}  max_version: TLS10\n"), "TLS10 is not offered"),
        (
            format!("{TLS}  cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]\n  min_version: TLS13\n"),
            "unknown cipher",
        ),
        (TLS.replace("server.key", "none.key"), "none.key"),
        ("users: {}\n".to_string(), "unknown field `users`"),
        (
            "basic_auth_users:\n  bob: builder\n".to_string(),
            "not hashed with bcrypt",
        ),
    ] {
        let path = files.write(&text);
        let ran = node.node.run(&[
            "monitor",
            "--listen-address",
            "127.0.0.1:0",
            "--web.config.file",
            &path,
        ]);
        assert_eq!(ran.status, Some(1), "{}", ran.stderr);
        assert!(
            ran.stderr.contains(error) && ran.stderr.contains("web.yml"),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn guessing_passwords_does_not_hold_up_a_scraper() {
    needs!("openssl", "curl");
    let (node, files) = (Node::new(), Files::new());
    node.pod("pod1");
    // Cost 10, as htpasswd makes them: 50 ms of a core and more.
    let slow = "$2b$10$QOauhQNbBCuQDKes6eFzPec8zDQIMM7shzzgryUwr7ptY0e2OPWGq";
    let monitor = files.monitor(&node, &format!("basic_auth_users:\n  alice: {slow}\n"));
    // alice:alice1
    let right = [("Authorization", "Basic YWxpY2U6YWxpY2Ux")];
    assert_eq!(monitor.request("GET", "/metrics", &right).status, 200);
    std::thread::scope(|scope| {
        for guess in 0..60 {
            let monitor = &monitor;
            scope.spawn(move || {
                // alice:guessX<n>, with n in two digits.
                let password = format!("Basic YWxpY2U6Z3Vlc3NY{}", two_digits(guess));
                let status = monitor
                    .request("GET", "/metrics", &[("Authorization", &password)])
                    .status;
                assert!(matches!(status, 401 | 503), "{status}");
            });
        }
        std::thread::sleep(Duration::from_millis(100));
        for _ in 0..3 {
            let response = monitor.request("GET", "/metrics", &right);
            assert_eq!(response.status, 200);
            assert!(response.took < Duration::from_secs(1), "{:?}", response.took);
        }
    });
}

/// bcrypt runs on when its client has gone: only one at a time, whatever clients do.
#[test]
fn clients_that_hang_up_do_not_start_more_checks() {
    needs!("openssl");
    let (node, files) = (Node::new(), Files::new());
    let slow = "$2b$10$QOauhQNbBCuQDKes6eFzPec8zDQIMM7shzzgryUwr7ptY0e2OPWGq";
    let monitor = files.monitor(&node, &format!("basic_auth_users:\n  alice: {slow}\n"));
    let checks = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", monitor.pid())).unwrap();
        let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
        names.filter(|name| name == "bcrypt\n").count()
    };
    let mut most = 0;
    for guess in 0..60 {
        let mut stream = monitor.connect();
        let password = format!("Basic YWxpY2U6Z3Vlc3NY{}", two_digits(guess));
        write!(
            stream,
            "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {password}\r\n\r\n"
        )
        .unwrap();
        std::thread::sleep(Duration::from_millis(30));
        most = most.max(checks());
    }
    // One checks, and one may be about to end.
    assert!((1..=2).contains(&most), "{most} threads at once");
}

/// Two digits in base64.
fn two_digits(number: u32) -> String {
    let bits = u32::from(b'0') + number / 10;
    let rest = u32::from(b'0') + number % 10;
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let value = bits << 16 | rest << 8;
    let digit = |shift: u32| char::from(alphabet[(value >> shift & 63) as usize]);
    format!("{}{}{}=", digit(18), digit(12), digit(6))
}

#[test]
fn relative_paths_are_below_the_file() {
    needs!("openssl", "curl");
    let (node, files) = (Node::new(), Files::new());
    let monitor = files.monitor(&node, TLS);
    assert_ne!(Path::new(".").canonicalize().unwrap(), files.path("."));
    assert_eq!(files.curl(&monitor, &[]), ok("200"));
}
