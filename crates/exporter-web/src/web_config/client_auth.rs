//! Clients' certificates, accepted as Prometheus's exporters accept them, or less.
//!
//! webpki alone would refuse what people make with one line of openssl: a certificate that signs itself and says that
//! it is a CA, and X.509 version 1. It would accept what Go refuses: a certificate of a CA that has expired, or may
//! not sign. So the rules here are those of Go's `x509.Certificate.Verify` (go1.25, src/crypto/x509/verify.go) with
//! `client_ca_file` as its roots, and webpki does what it does better than a few lines could: find a path through
//! intermediate certificates. `docs/reference-web-config.md` lists what Go accepts and this does not.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use tokio_rustls::rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage as WebPkiKeyUsage, RawPublicKeyEntity, VerifiedPath};
use x509_cert::certificate::{Certificate, Version};
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::oid::db::rfc5280;
use x509_cert::der::{self, Decode, Encode, Header, Reader, SliceReader, Tag};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, NameConstraints, SubjectAltName};

/// The extensions that Go understands: another one that is critical is a condition that nobody would check.
const UNDERSTOOD: [ObjectIdentifier; 8] = [
    rfc5280::ID_CE_SUBJECT_KEY_IDENTIFIER,
    rfc5280::ID_CE_KEY_USAGE,
    rfc5280::ID_CE_BASIC_CONSTRAINTS,
    rfc5280::ID_CE_CRL_DISTRIBUTION_POINTS,
    rfc5280::ID_CE_CERTIFICATE_POLICIES,
    rfc5280::ID_CE_AUTHORITY_KEY_IDENTIFIER,
    rfc5280::ID_CE_EXT_KEY_USAGE,
    rfc5280::ID_PE_AUTHORITY_INFO_ACCESS,
];

/// Why a client's certificate is refused.
#[derive(Debug, thiserror::Error)]
enum CertificateRefusal {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] der::Error),
    #[error("it is X.509 version {0} and has extensions, which version 3 has")]
    EarlyExtensions(u8),
    #[error("it names two signature algorithms")]
    TwoAlgorithms,
    #[error("the critical extension {0} is not understood")]
    CriticalExtension(ObjectIdentifier),
    #[error("it is valid from {from} to {to}")]
    NotNow { from: der::DateTime, to: der::DateTime },
    #[error("its extended key usage is not client authentication")]
    NotForClients,
    #[error("it may not sign certificates")]
    NotACa,
    #[error("more intermediate certificates than it allows")]
    TooManyIntermediates,
    #[error("its issuer's certificate in client_ca_file is not accepted: {0}")]
    Issuer(Box<CertificateRefusal>),
    #[error("its signature is not its issuer's")]
    Signature,
    #[error("it is neither in client_ca_file nor signed by a certificate in it")]
    Unknown,
    #[error(
        "it is neither in client_ca_file nor signed by a certificate in it, through those that it came with: {0}"
    )]
    NoPath(webpki::Error),
    #[error("none of its names is in client_allowed_sans: {0:?}")]
    Name(Vec<String>),
}

/// A certificate in `client_ca_file`.
struct Root {
    der: CertificateDer<'static>,
    certificate: Certificate,
}

/// Decides which certificates of clients are accepted.
pub struct ClientVerifier {
    /// Whether a client must have one.
    mandatory: bool,
    /// `None`: a client is accepted with any certificate whose key it has.
    roots: Option<Vec<Root>>,
    /// The roots for webpki, in the same order.
    anchors: Vec<TrustAnchor<'static>>,
    hints: Vec<DistinguishedName>,
    names: Option<Vec<String>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier").finish_non_exhaustive()
    }
}

impl ClientVerifier {
    /// Accepts any client that has the key of the certificate it presents.
    pub fn any(mandatory: bool, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self {
            mandatory,
            roots: None,
            anchors: Vec::new(),
            hints: Vec::new(),
            names: None,
            algorithms,
        }
    }

    /// Accepts certificates that are among the roots or signed by one, and have one of the names where some are given.
    pub fn verified(
        mandatory: bool,
        roots: Vec<CertificateDer<'static>>,
        names: Option<Vec<String>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Self, String> {
        let mut verifier = Self {
            // Go has no name to look at without a certificate, and refuses.
            mandatory: mandatory || names.is_some(),
            names,
            ..Self::any(mandatory, algorithms)
        };
        let read = |der: CertificateDer<'static>| {
            let certificate = Certificate::from_der(&der).map_err(|error| error.to_string())?;
            let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|error| error.to_string())?;
            let subject = certificate.tbs_certificate().subject();
            verifier
                .hints
                .push(subject.to_der().map_err(|error| error.to_string())?.into());
            verifier.anchors.push(anchor.to_owned());
            Ok(Root { der, certificate })
        };
        verifier.roots = Some(roots.into_iter().map(read).collect::<Result<_, String>>()?);
        Ok(verifier)
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), CertificateRefusal> {
        let certificate = Certificate::from_der(leaf)?;
        if let Some(roots) = &self.roots {
            check(&certificate, now)?;
            self.path(leaf, &certificate, others, roots, now)?;
        }
        let Some(allowed) = &self.names else {
            return Ok(());
        };
        let names = alternative_names(&certificate)?;
        match names.iter().any(|name| allowed.contains(name)) {
            true => Ok(()),
            false => Err(CertificateRefusal::Name(names)),
        }
    }

    /// Whether the certificate is a root, signed by one, or signed by one through the client's other certificates.
    fn path(
        &self,
        leaf: &CertificateDer<'_>,
        certificate: &Certificate,
        others: &[CertificateDer<'_>],
        roots: &[Root],
        now: UnixTime,
    ) -> Result<(), CertificateRefusal> {
        if roots.iter().any(|root| root.der == *leaf) {
            return Ok(());
        }
        let issuer = certificate.tbs_certificate().issuer();
        let mut refusal = None;
        for root in roots
            .iter()
            .filter(|root| root.certificate.tbs_certificate().subject() == issuer)
        {
            match self.signed_by(leaf, certificate, &root.certificate, now) {
                Ok(()) => return Ok(()),
                Err(reason) => refusal = refusal.or(Some(reason)),
            }
        }
        let chain = |path: &VerifiedPath<'_>| {
            let root = self
                .anchors
                .iter()
                .position(|anchor| std::ptr::eq(anchor, path.anchor()));
            let root = root
                .and_then(|place| roots.get(place))
                .ok_or(webpki::Error::UnknownIssuer)?;
            let mut below = 0;
            for intermediate in path.intermediate_certificates() {
                let certificate =
                    Certificate::from_der(&intermediate.der()).map_err(|_| webpki::Error::BadDer)?;
                check_ca(&certificate, below, now).map_err(|_| webpki::Error::UnknownIssuer)?;
                below += 1;
            }
            check_ca(&root.certificate, below, now).map_err(|_| webpki::Error::UnknownIssuer)
        };
        let verified = EndEntityCert::try_from(leaf).and_then(|leaf| {
            let usage = WebPkiKeyUsage::client_auth();
            leaf.verify_for_usage(
                self.algorithms.all,
                &self.anchors,
                others,
                now,
                usage,
                None,
                Some(&chain),
            )
            .map(drop)
        });
        verified.map_err(|error| match refusal {
            Some(refusal) => refusal,
            None if others.is_empty() => CertificateRefusal::Unknown,
            None => CertificateRefusal::NoPath(error),
        })
    }

    /// Whether a root has signed the certificate, with no other in between.
    fn signed_by(
        &self,
        leaf: &CertificateDer<'_>,
        certificate: &Certificate,
        root: &Certificate,
        now: UnixTime,
    ) -> Result<(), CertificateRefusal> {
        let algorithm = certificate.signature_algorithm().to_der()?;
        let algorithm = AnyRef::from_der(&algorithm)?.value();
        let key = public_key(root)?;
        let key = RawPublicKeyEntity::try_from(&key).map_err(|_| CertificateRefusal::Signature)?;
        let signed = to_be_signed(leaf)?;
        let signature = certificate
            .signature()
            .as_bytes()
            .ok_or(CertificateRefusal::Signature)?;
        let candidates = self
            .algorithms
            .all
            .iter()
            .filter(|one| one.signature_alg_id().as_ref() == algorithm);
        // The same signature algorithm comes once for each kind of key.
        if !candidates
            .into_iter()
            .any(|one| key.verify_signature(*one, signed, signature).is_ok())
        {
            return Err(CertificateRefusal::Signature);
        }
        check_ca(root, 0, now).map_err(|refusal| CertificateRefusal::Issuer(Box::new(refusal)))?;
        // Whether it permits the certificate's names is for webpki to say.
        match has_extension(root, NameConstraints::OID) {
            true => Err(CertificateRefusal::Issuer(Box::new(
                CertificateRefusal::CriticalExtension(NameConstraints::OID),
            ))),
            false => Ok(()),
        }
    }

    fn key_of<'a>(&self, certificate: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'a>, Error> {
        let certificate = Certificate::from_der(certificate).map_err(CertificateRefusal::from);
        certificate
            .and_then(|certificate| public_key(&certificate))
            .map_err(refused)
    }
}

/// What Go checks of every certificate of a chain (`isValid`).
fn check(certificate: &Certificate, now: UnixTime) -> Result<(), CertificateRefusal> {
    let tbs = certificate.tbs_certificate();
    let extensions = tbs.extensions().into_iter().flatten();
    match tbs.version() {
        Version::V3 => {}
        version if tbs.extensions().is_some() => {
            return Err(CertificateRefusal::EarlyExtensions(version as u8 + 1));
        }
        Version::V1 | Version::V2 => {}
    }
    if tbs.signature() != certificate.signature_algorithm() {
        return Err(CertificateRefusal::TwoAlgorithms);
    }
    for extension in extensions.filter(|extension| extension.critical) {
        let understood = match extension.extn_id {
            // Names of other kinds are not looked at.
            SubjectAltName::OID => !alternative_names(certificate)?.is_empty(),
            NameConstraints::OID => constrains_names(certificate)?,
            id => UNDERSTOOD.contains(&id),
        };
        if !understood {
            return Err(CertificateRefusal::CriticalExtension(extension.extn_id));
        }
    }
    let (from, to) = (tbs.validity().not_before, tbs.validity().not_after);
    let now = Duration::from_secs(now.as_secs());
    if now < from.to_unix_duration() || now > to.to_unix_duration() {
        return Err(CertificateRefusal::NotNow {
            from: from.to_date_time(),
            to: to.to_date_time(),
        });
    }
    match tbs.get_extension::<ExtendedKeyUsage>()? {
        Some((_, usages)) if !usages.0.iter().any(is_for_clients) => Err(CertificateRefusal::NotForClients),
        _ => Ok(()),
    }
}

fn is_for_clients(usage: &ObjectIdentifier) -> bool {
    [rfc5280::ID_KP_CLIENT_AUTH, rfc5280::ANY_EXTENDED_KEY_USAGE].contains(usage)
}

/// What Go checks of a root that others are signed by (`CheckSignatureFrom` and `isValid`).
fn check_ca(root: &Certificate, intermediates: usize, now: UnixTime) -> Result<(), CertificateRefusal> {
    check(root, now)?;
    let tbs = root.tbs_certificate();
    let constraints = tbs
        .get_extension::<BasicConstraints>()?
        .map(|(_, constraints)| constraints);
    let is_ca = match &constraints {
        Some(constraints) => constraints.ca,
        // Version 1 cannot say it.
        None => tbs.version() != Version::V3,
    };
    let signs = tbs
        .get_extension::<KeyUsage>()?
        .is_none_or(|(_, usage)| usage.key_cert_sign());
    if !is_ca || !signs {
        return Err(CertificateRefusal::NotACa);
    }
    match constraints.and_then(|constraints| constraints.path_len_constraint) {
        Some(most) if intermediates > usize::from(most) => Err(CertificateRefusal::TooManyIntermediates),
        _ => Ok(()),
    }
}

/// Whether all that a certificate says about the names that it may sign for is about kinds that are looked at.
fn constrains_names(certificate: &Certificate) -> Result<bool, CertificateRefusal> {
    let constraints = certificate.tbs_certificate().get_extension::<NameConstraints>()?;
    let constraints =
        constraints.map(|(_, constraints)| [constraints.permitted_subtrees, constraints.excluded_subtrees]);
    let mut subtrees = constraints.into_iter().flatten().flatten().flatten();
    Ok(subtrees.all(|subtree| {
        matches!(
            subtree.base,
            GeneralName::DnsName(_)
                | GeneralName::Rfc822Name(_)
                | GeneralName::UniformResourceIdentifier(_)
                | GeneralName::IpAddress(_)
        )
    }))
}

fn has_extension(certificate: &Certificate, id: ObjectIdentifier) -> bool {
    let mut extensions = certificate.tbs_certificate().extensions().into_iter().flatten();
    extensions.any(|extension| extension.extn_id == id)
}

/// The part of a certificate that is signed, as it was sent.
fn to_be_signed(certificate: &[u8]) -> der::Result<&[u8]> {
    let mut reader = SliceReader::new(certificate)?;
    Header::decode(&mut reader)?.tag().assert_eq(Tag::Sequence)?;
    reader.tlv_bytes()
}

fn public_key<'a>(certificate: &Certificate) -> Result<SubjectPublicKeyInfoDer<'a>, CertificateRefusal> {
    Ok(certificate
        .tbs_certificate()
        .subject_public_key_info()
        .to_der()?
        .into())
}

/// The DNS names, mail addresses, URIs and IP addresses that a certificate is for, written as Go writes them.
fn alternative_names(certificate: &Certificate) -> Result<Vec<String>, CertificateRefusal> {
    let Some((_, names)) = certificate.tbs_certificate().get_extension::<SubjectAltName>()? else {
        return Ok(Vec::new());
    };
    let name = |name: &GeneralName| match name {
        GeneralName::DnsName(name)
        | GeneralName::Rfc822Name(name)
        | GeneralName::UniformResourceIdentifier(name) => Some(name.as_str().to_string()),
        GeneralName::IpAddress(bytes) => address(bytes.as_bytes()),
        _ => None,
    };
    Ok(names.0.iter().filter_map(name).collect())
}

fn address(bytes: &[u8]) -> Option<String> {
    let address = match bytes.len() {
        4 => std::net::IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => std::net::IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(address.to_canonical().to_string())
}

fn refused(refusal: CertificateRefusal) -> Error {
    CertificateError::Other(OtherError(Arc::new(refusal))).into()
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, others, now).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
    }

    // rustls' own functions read certificates with webpki, which cannot read version 1.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = self.key_of(certificate)?;
        let key = RawPublicKeyEntity::try_from(&key).map_err(|_| CertificateError::BadEncoding)?;
        let candidates = self
            .algorithms
            .mapping
            .iter()
            .filter(|(scheme, _)| *scheme == signed.scheme);
        let mut candidates = candidates.flat_map(|(_, algorithms)| algorithms.iter());
        match candidates.any(|one| key.verify_signature(*one, message, signed.signature()).is_ok()) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(message, &self.key_of(certificate)?, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
