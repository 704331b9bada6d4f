//! Client certificates made on the spot, over real handshakes.

use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_ED25519, SanType};
use rustls::ClientConfig;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use schemas_identity::SecretKey;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::*;
use crate::tls::tests::{Identity, identity as server_identity};

/// A key of each kind for a client, as rcgen wants it.
fn ed25519(secret: &SecretKey) -> KeyPair {
    KeyPair::from_pem_and_sign_algo(&secret.to_pem(), &PKCS_ED25519).unwrap()
}

fn named(uri: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    if let Some(uri) = uri {
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    }
    params
}

/// Shakes hands with a client that shows `certificate`; who the server takes it for.
async fn taken_for(
    server: &Identity,
    authorities: Option<&Path>,
    certificate: Option<(CertificateDer<'static>, &KeyPair)>,
) -> io::Result<Option<Did>> {
    let tls = ClientTls::new(&server.cert, &server.key, &[], authorities).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(read_chain(&server.cert).unwrap().remove(0)).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match certificate {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            // Not `with_client_auth_cert`: it would notice a key that is not the certificate's.
            let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
            let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
            let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
            config.with_client_cert_resolver(Arc::new(shown))
        }
    };
    let client = tokio::spawn(async move {
        let tcp = TcpStream::connect(addr).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        if let Ok(mut stream) = TlsConnector::from(Arc::new(config)).connect(name, tcp).await {
            let _refused_or_closed = stream.read(&mut [0; 1]).await;
        }
    });
    let (stream, _) = listener.accept().await.unwrap();
    let taken = tls.accept(stream).await.map(|(_, identity)| identity);
    client.await.unwrap();
    taken
}

/// Without an authority a self-made certificate proves its Ed25519 key, and nothing it says of itself is believed.
#[tokio::test]
async fn a_self_made_certificate_proves_its_key() {
    let server = server_identity();
    let (mine, other) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
    let key = ed25519(&mine);
    let claims = other.public().did().to_string();
    for uri in [None, Some(claims.as_str())] {
        let made = named(uri).self_signed(&key).unwrap();
        let taken = taken_for(&server, None, Some((made.der().clone(), &key))).await.unwrap();
        assert_eq!(taken, Some(mine.public().did()));
    }
    assert_eq!(taken_for(&server, None, None).await.unwrap(), None, "a token may still come");
}

/// Somebody else's certificate without its key is nobody, and a key of another kind is not asked for.
#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let server = server_identity();
    let (mine, other) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
    let theirs = named(None).self_signed(&ed25519(&other)).unwrap();
    let stolen = taken_for(&server, None, Some((theirs.der().clone(), &ed25519(&mine)))).await;
    assert!(stolen.is_err(), "{stolen:?}");
    let p256 = KeyPair::generate().unwrap();
    let made = named(None).self_signed(&p256).unwrap();
    let unasked = taken_for(&server, None, Some((made.der().clone(), &p256))).await.unwrap();
    assert_eq!(unasked, None, "only Ed25519 is asked for, so a client keeps other certificates to itself");
}

/// With an authority its word counts: the did:key it certified for any kind of key; strangers are refused.
#[tokio::test]
async fn an_authority_certifies_a_did() {
    let server = server_identity();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authority.pem");
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(&path, authority.clone().self_signed(&authority_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let gateway = SecretKey::from_seed(&[3; 32]).public().did();

    let p256 = KeyPair::generate().unwrap();
    let made = named(Some(&gateway.to_string())).signed_by(&p256, &issuer).unwrap();
    let taken = taken_for(&server, Some(&path), Some((made.der().clone(), &p256))).await.unwrap();
    assert_eq!(taken, Some(gateway));

    let made = named(None).signed_by(&p256, &issuer).unwrap();
    let nameless = taken_for(&server, Some(&path), Some((made.der().clone(), &p256))).await;
    assert!(nameless.is_err(), "{nameless:?}");
    let own = named(Some(&gateway.to_string())).self_signed(&p256).unwrap();
    let stranger = taken_for(&server, Some(&path), Some((own.der().clone(), &p256))).await;
    assert!(stranger.is_err(), "{stranger:?}");
}
