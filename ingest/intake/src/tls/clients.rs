//! Client certificates: which did:key a TLS client speaks as.
//!
//! Two ways, chosen by whoever runs the door:
//! - Without an authority the certificate is only a wrapping of an Ed25519 key. The handshake proves that the client
//!   has the key, the register says for which devices the key speaks, and nothing else in the certificate is believed:
//!   no name, no date, no issuer. A device may sign its own.
//! - With an authority the chain must end there and be valid today. Then the certificate's one `did:key` URI (subject
//!   alternative name) is the identity, whatever kind of key the gateway's hardware has; without one, its Ed25519 key.
//!
//! A client without a certificate is let in to show a token instead. What it is not: no revocation lists; revoke the
//! key in the register.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use schemas_identity::{Did, PublicKey};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::FromDer;

use super::{TlsError, private_key, provider, read_chain};

/// TLS that asks its clients for certificates and tells who they are.
#[derive(Clone)]
pub struct ClientTls {
    acceptor: TlsAcceptor,
    trust: Trust,
}

/// What of a certificate is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// The key alone.
    Key,
    /// What the authority signed.
    Authority,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// From a PEM chain and key of the server, the protocols offered, and a PEM file of authorities for clients.
    ///
    /// # Errors
    /// If a file cannot be read, holds nothing usable, or the parts do not fit together.
    pub fn new(
        cert: &Path,
        key: &Path,
        alpn: &[&[u8]],
        authorities: Option<&Path>,
    ) -> Result<Self, TlsError> {
        let verifier: Arc<dyn ClientCertVerifier> = match authorities {
            None => Arc::new(KeyVerifier::new()),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in read_chain(path)? {
                    roots.add(certificate)?;
                }
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| rustls::Error::General(error.to_string()))?
            }
        };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(read_chain(cert)?, private_key(key)?)?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        // Without tickets nothing of a certificate's verdict outlives the connection it was given in.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let trust = if authorities.is_some() { Trust::Authority } else { Trust::Key };
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), trust })
    }

    /// Shakes hands. The identity is `None` for a client without a certificate.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Option<Did>)> {
        let stream = self.acceptor.accept(stream).await?;
        let Some([certificate, ..]) = stream.get_ref().1.peer_certificates() else {
            return Ok((stream, None));
        };
        match identity(certificate, self.trust) {
            Some(identity) => Ok((stream, Some(identity))),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "a certificate that names no did:key")),
        }
    }
}

/// Whom a certificate speaks for, as far as it is believed.
fn identity(certificate: &CertificateDer<'_>, trust: Trust) -> Option<Did> {
    let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
    if !rest.is_empty() {
        return None;
    }
    if trust == Trust::Authority {
        let mut named = named_dids(&parsed).into_iter();
        match (named.next(), named.next()) {
            (Some(only), None) => return only.parse().ok(),
            (Some(_), Some(_)) => return None,
            (None, _) => {}
        }
    }
    let info = parsed.public_key();
    if info.algorithm.algorithm != OID_SIG_ED25519 {
        return None;
    }
    PublicKey::admit(&info.subject_public_key.data).ok().map(|key| key.did())
}

fn named_dids<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a str> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let mut dids = Vec::new();
    for name in &names.value.general_names {
        if let GeneralName::URI(uri) = name
            && uri.starts_with("did:")
        {
            dids.push(*uri);
        }
    }
    dids
}

/// Takes any certificate of an Ed25519 key that the key rule admits; the handshake's signature is then checked as ever.
#[derive(Debug)]
struct KeyVerifier {
    algorithms: WebPkiSupportedAlgorithms,
}

impl KeyVerifier {
    fn new() -> Self {
        Self { algorithms: provider().signature_verification_algorithms }
    }
}

impl ClientCertVerifier for KeyVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match identity(end_entity, Trust::Key) {
            Some(_) => Ok(ClientCertVerified::assertion()),
            None => Err(rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
mod tests;
