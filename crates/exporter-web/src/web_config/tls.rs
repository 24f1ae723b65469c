//! TLS, as the file asks for it.

use std::fs;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{self, CryptoProvider, SupportedKxGroup, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion, version,
};

use super::file::{Clients, Pem, Tls, Version};
use super::names::alternative_names;

/// The suites of TLS 1.2 that there are, by Go's names. Those of TLS 1.3 cannot be chosen, in Go neither.
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
pub fn config(tls: &Tls) -> Result<ServerConfig, String> {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: suites(&tls.suites)?,
        kx_groups: curves(&tls.curves)?,
        ..ring::default_provider()
    });
    let certificates = certificates("cert_file", &tls.certificate)?;
    let key = read("key_file", &tls.key)?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| format!("key_file {:?}: no private key: {error}", tls.key))?;
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions(tls))
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(clients(tls, provider)?)
        .with_single_cert(certificates, key)
        .map_err(|error| {
            format!(
                "cert_file {:?} and key_file {:?}: {error}",
                tls.certificate, tls.key
            )
        })?;
    config.ignore_client_order = tls.own_order;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn read(key: &str, pem: &Pem) -> Result<Vec<u8>, String> {
    match pem {
        Pem::Text(text) => Ok(text.clone().into_bytes()),
        Pem::File(path) => fs::read(path).map_err(|error| format!("{key} {}: {error}", path.display())),
    }
}

fn certificates(key: &str, pem: &Pem) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(key, pem)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{key} {pem:?}: {error}"))?;
    match certificates.is_empty() {
        true => Err(format!("{key} {pem:?}: no certificate in it")),
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
fn suites(names: &[String]) -> Result<Vec<SupportedCipherSuite>, String> {
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
                return Err(format!(
                    "cipher_suites: {name} is not supported; these are: {}",
                    known.join(", ")
                ));
            }
        }
    }
    Ok(suites)
}

fn curves(names: &[String]) -> Result<Vec<&'static dyn SupportedKxGroup>, String> {
    if names.is_empty() {
        return Ok(ring::ALL_KX_GROUPS.to_vec());
    }
    names
        .iter()
        .map(|name| match name.as_str() {
            "X25519" => Ok(ring::kx_group::X25519),
            "CurveP256" => Ok(ring::kx_group::SECP256R1),
            "CurveP384" => Ok(ring::kx_group::SECP384R1),
            _ => Err(format!(
                "curve_preferences: {name} is not supported; these are: X25519, CurveP256, CurveP384"
            )),
        })
        .collect()
}

fn clients(tls: &Tls, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let verifier: Arc<dyn ClientCertVerifier> = match tls.clients {
        Clients::NotAsked => return Ok(WebPkiClientVerifier::no_client_auth()),
        Clients::Asked => Arc::new(Unverified {
            mandatory: false,
            provider,
        }),
        Clients::Any => Arc::new(Unverified {
            mandatory: true,
            provider,
        }),
        Clients::VerifiedIfGiven | Clients::Verified => {
            let mut roots = RootCertStore::empty();
            if let Some(pem) = &tls.client_ca {
                for certificate in certificates("client_ca_file", pem)? {
                    roots
                        .add(certificate)
                        .map_err(|error| format!("client_ca_file {pem:?}: {error}"))?;
                }
            }
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let builder = match tls.clients {
                Clients::VerifiedIfGiven => builder.allow_unauthenticated(),
                _ => builder,
            };
            builder
                .build()
                .map_err(|error| format!("client_ca_file: {error}"))?
        }
    };
    Ok(match &tls.client_names {
        Some(names) => Arc::new(Named {
            names: names.clone(),
            verifier,
        }),
        None => verifier,
    })
}

/// Takes any certificate of which the client has the key.
#[derive(Debug)]
struct Unverified {
    mandatory: bool,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Unverified {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Takes of another's certificates those that have one of the names.
#[derive(Debug)]
struct Named {
    names: Vec<String>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for Named {
    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .verifier
            .verify_client_cert(certificate, intermediates, now)?;
        if alternative_names(certificate)
            .iter()
            .any(|name| self.names.contains(name))
        {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
