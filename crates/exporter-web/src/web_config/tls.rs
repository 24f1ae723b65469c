//! TLS, as the file asks for it.

use std::io;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    CertificateError, Error, InvalidMessage, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    version,
};

use super::client_auth::ClientVerifier;
use super::file::{Clients, Pem, Tls, Version};
use super::read;
use crate::error::Problem;
use crate::listen::Stream;
use crate::protection::Handshake;

/// The suites of TLS 1.2 that are offered, by Go's names. As in Go, those of TLS 1.3 cannot be chosen.
const SUITES: [(&str, SupportedCipherSuite); 6] = [
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        ring::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        ring::cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        ring::cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

const NEWER_SUITES: [&str; 3] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// Reads the certificates and makes what connections are accepted with.
pub fn config(tls: &Tls, http2: bool) -> Result<ServerConfig, Problem> {
    let suites = suites(&tls.suites)?;
    check_http2(tls, http2)?;
    let provider = Arc::new(CryptoProvider {
        cipher_suites: suites,
        kx_groups: curves(&tls.curves)?,
        ..ring::default_provider()
    });
    let certificates = certificates("cert_file", &tls.certificate)?;
    let key = read("key_file", &tls.key)?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| Problem::key("key_file", format!("{:?}: no private key: {error}", tls.key)))?;
    let clients = client_verifier(tls, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(tls))
        .map_err(|error| Problem::key("tls_server_config", error))?
        .with_client_cert_verifier(clients)
        .with_single_cert(certificates, key)
        .map_err(|error| {
            Problem::key(
                "cert_file",
                format!("{:?} with key_file {:?}: {error}", tls.certificate, tls.key),
            )
        })?;
    config.ignore_client_order = tls.own_order;
    if http2 {
        config.alpn_protocols.push(HTTP2.to_vec());
    }
    config.alpn_protocols.push(b"http/1.1".to_vec());
    if tls.clients != Clients::NotAsked {
        // A resumed session would not be verified again, though its certificate may have expired.
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(config)
}

const HTTP2: &[u8] = b"h2";

fn read(key: &'static str, pem: &Pem) -> Result<Vec<u8>, Problem> {
    match pem {
        Pem::Text(text) => Ok(text.clone().into_bytes()),
        Pem::File(path) => {
            read::limited(path).map_err(|error| Problem::key(key, format!("{}: {error}", path.display())))
        }
    }
}

fn certificates(key: &'static str, pem: &Pem) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let text = read(key, pem)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| Problem::key(key, format!("{pem:?}: {error}")))?;
    match certificates.is_empty() {
        true => Err(Problem::key(key, format!("{pem:?}: no certificate in it"))),
        false => Ok(certificates),
    }
}

fn versions(tls: &Tls) -> Vec<&'static SupportedProtocolVersion> {
    [
        (Version::Tls13, &version::TLS13),
        (Version::Tls12, &version::TLS12),
    ]
    .into_iter()
    .filter(|(version, _)| (tls.oldest..=tls.newest).contains(version))
    .map(|(_, version)| version)
    .collect()
}

/// The suites that are named, in that order, behind those of TLS 1.3.
fn suites(names: &[String]) -> Result<Vec<SupportedCipherSuite>, Problem> {
    if names.is_empty() {
        return Ok(ring::ALL_CIPHER_SUITES.to_vec());
    }
    let newer = |suite: &SupportedCipherSuite| suite.tls13().is_some();
    let mut suites: Vec<_> = ring::ALL_CIPHER_SUITES.iter().copied().filter(newer).collect();
    for name in names {
        match SUITES.iter().find(|(known, _)| known == name) {
            Some((_, suite)) => suites.push(*suite),
            None if NEWER_SUITES.contains(&name.as_str()) => {}
            None => {
                let known: Vec<_> = SUITES.iter().map(|(name, _)| *name).collect();
                let reason = format!("unknown cipher: {name}; these are known: {}", known.join(", "));
                return Err(Problem::key("cipher_suites", reason));
            }
        }
    }
    Ok(suites)
}

/// HTTP/2 over TLS 1.2 needs one of two suites (RFC 9113, 9.2.2); Go's server does not start without.
fn check_http2(tls: &Tls, http2: bool) -> Result<(), Problem> {
    const NEEDED: [&str; 2] = [
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    ];
    let named = tls.suites.iter().any(|suite| NEEDED.contains(&suite.as_str()));
    if !http2 || tls.suites.is_empty() || tls.oldest == Version::Tls13 || named {
        return Ok(());
    }
    let reason = format!(
        "HTTP/2 needs {}: add one, or set http2: false",
        NEEDED.join(" or ")
    );
    Err(Problem::key("cipher_suites", reason))
}

fn curves(names: &[String]) -> Result<Vec<&'static dyn SupportedKxGroup>, Problem> {
    if names.is_empty() {
        return Ok(ring::ALL_KX_GROUPS.to_vec());
    }
    let curve = |name: &String| match name.as_str() {
        "X25519" => Ok(ring::kx_group::X25519),
        "CurveP256" => Ok(ring::kx_group::SECP256R1),
        "CurveP384" => Ok(ring::kx_group::SECP384R1),
        _ => {
            let reason = format!("unknown curve: {name}; these are known: X25519, CurveP256, CurveP384");
            Err(Problem::key("curve_preferences", reason))
        }
    };
    names.iter().map(curve).collect()
}

fn client_verifier(tls: &Tls, provider: &CryptoProvider) -> Result<Arc<dyn ClientCertVerifier>, Problem> {
    let algorithms = provider.signature_verification_algorithms;
    let mandatory = matches!(tls.clients, Clients::Any | Clients::Verified);
    Ok(match tls.clients {
        Clients::NotAsked => WebPkiClientVerifier::no_client_auth(),
        Clients::Asked | Clients::Any => Arc::new(ClientVerifier::any(mandatory, algorithms)),
        Clients::VerifiedIfGiven | Clients::Verified => {
            let roots = match &tls.client_ca {
                Some(pem) => certificates("client_ca_file", pem)?,
                // Go would accept certificates of the system's public authorities; here, no certificate is accepted.
                None => Vec::new(),
            };
            let verifier = ClientVerifier::verified(mandatory, roots, tls.client_names.clone(), algorithms);
            Arc::new(verifier.map_err(|error| Problem::key("client_ca_file", error))?)
        }
    })
}

/// Accepts a client's connection.
pub async fn handshake(config: Arc<ServerConfig>, stream: Stream) -> Handshake {
    match TlsAcceptor::from(config).accept(stream).await {
        Ok(stream) => {
            let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
            let stream = Box::new(stream);
            Handshake::Done { stream, http2 }
        }
        Err(error) => refusal(&error).map_or(Handshake::Gone, Handshake::Refused),
    }
}

/// Why a handshake failed; `None` where the client has just gone, as probes of an open port do.
fn refusal(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "it does not speak TLS".to_string(),
        Error::NoCertificatesPresented => "it has no client certificate".to_string(),
        Error::InvalidCertificate(CertificateError::Other(reason)) => {
            format!("its certificate: {}", reason.0)
        }
        Error::AlertReceived(alert) => format!("it does not accept this server: {alert:?}"),
        other => other.to_string(),
    })
}
