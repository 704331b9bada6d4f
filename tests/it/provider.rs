//! An identity provider's people, from the configuration to the patient's report: real processes, keys made here. What a forger
//! may try is tested beside the verification.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use schemas_identity::statement::{Body, Role, sign};
use schemas_identity::{Did, SecretKey};
use serde_json::{Value, json};

use crate::process::Server;
use crate::story::{T0, device, frame};
use crate::tokens::{connack, status};

/// Log origin of a server that runs with `--dev`.
const ORIGIN: &str = "localhost/vitalog-dev";
const ISSUER: &str = "https://id.example/realms/hospital";
const COUNT: &str = "SELECT count(*) FROM readings";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A provider with one P-256 key.
struct Provider(EcdsaKeyPair);

impl Provider {
    fn new() -> Provider {
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("key");
        Provider(EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).expect("key"))
    }

    fn publish(&self, path: &Path) {
        let point = self.0.public_key().as_ref();
        let key = json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "2026-11",
                         "x": encode(&point[1..33]), "y": encode(&point[33..])});
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, json!({"keys": [key]}).to_string()).expect("written");
        std::fs::rename(temporary, path).expect("renamed");
    }

    fn token(&self, sub: &str, groups: &[&str]) -> String {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        let claims = json!({"iss": ISSUER, "aud": ["vitalog", "account"], "sub": sub, "iat": now_s, "exp": now_s + 300,
                            "realm_access": {"roles": groups}});
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": "2026-11"});
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).expect("signs");
        format!("{message}.{}", encode(signature.as_ref()))
    }
}

fn configure(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("vitalog.toml");
    let text = format!(
        r#"
        [[oidc]]
        issuer = "{ISSUER}"
        audience = "vitalog"
        jwks_file = "{}"
        roles_claim = "realm_access.roles"
        purposes = ["TREAT"]
        [oidc.roles]
        "ward-doctors" = "ward"
        "#,
        directory.join("keys.json").display()
    );
    std::fs::write(&path, text).expect("written");
    path
}

/// The operator of the deployment makes the role, which lists nobody.
fn make_role(server: &Server, directory: &Path) {
    let pem = std::fs::read_to_string(directory.join("data/keys/operator.pem")).expect("operator");
    let operator = SecretKey::from_pem(&pem).expect("key");
    let (role, title) = ("ward".to_owned(), "Doctor of ward 3".to_owned());
    let body = Body::Role(Role { role, title, members: vec![], purposes: vec![], from: None, to: None });
    let compact = sign(&body, ORIGIN, T0 / 1_000_000, [1; 16], &operator);
    let answer = ureq::post(format!("{}/v1/statements", server.url)).send(compact.as_bytes());
    assert_eq!(answer.expect("taken").status().as_u16(), 201);
}

fn count(server: &Server, token: &str) -> String {
    server.ok(&["sql", COUNT, "--token", token, "--purpose", "TREAT", "--format", "csv"])
}

/// Guarantee (F7, F17, G6, G8): with a provider configured, a grant to a role opens for whoever the provider's token gives it, and
/// for nobody else; the patient reads the role's title, the provider and a stable name; the token is nothing at the MQTT door
/// and nothing once the provider's key is gone; all records hold under audit.
#[test]
fn a_role_by_word_of_a_provider() {
    let directory = tempfile::tempdir().expect("directory");
    let (provider, keys) = (Provider::new(), directory.path().join("keys.json"));
    provider.publish(&keys);
    let config = configure(directory.path());
    let checked = crate::process::binary("vitalog");
    let checked =
        std::process::Command::new(checked).arg("check-config").arg(&config).output().expect("runs");
    assert!(String::from_utf8_lossy(&checked.stdout).contains("[[oidc]]"));
    let config = config.to_string_lossy().into_owned();
    let server = Server::start_as(directory.path(), &["--config", &config], &[]);
    let key = device(&server, directory.path());
    assert_eq!(server.post(&frame(&key, 0, T0, 70)), ["OK"]);
    make_role(&server, directory.path());
    let subject = directory.path().join("P.subject.pem").to_string_lossy().into_owned();
    let doctor = provider.token("f:1:maria", &["ward-doctors"]);
    assert_eq!(count(&server, &doctor), "count(*)\n0");
    server.ok(&[
        "consent",
        "grant",
        "--key",
        &subject,
        "--to",
        "role:ward",
        "--signals",
        "*",
        "--purpose",
        "TREAT",
    ]);
    assert_eq!(count(&server, &doctor), "count(*)\n2");
    assert_eq!(count(&server, &provider.token("f:1:josef", &["ward-nurses"])), "count(*)\n0");
    assert_eq!(count(&server, &provider.token("f:1:maria", &[])), "count(*)\n0");
    let forged = Provider::new().token("f:1:maria", &["ward-doctors"]);
    for (token, purpose) in [(&doctor, "HRESCH"), (&forged, "TREAT")] {
        let refused = server.vitalog(&["sql", COUNT, "--token", token, "--purpose", purpose]);
        assert_eq!(refused.status.code(), Some(3));
    }
    assert_eq!(server.vitalog(&["sql", COUNT, "--token", &doctor]).status.code(), Some(3));
    assert_ne!(connack(&server, "maria", &doctor), 0);
    report_names_her(&server, &subject);
    assert!(server.metric("vitalog_oidc_tokens_total{outcome=\"ok\"}") >= 5);
    assert_eq!(server.metric("vitalog_oidc_tokens_total{outcome=\"signature\"}"), 1);
    metrics_name_nobody(&server, &key);
    // The provider changes its key: the old one's tokens end within seconds.
    let next = Provider::new();
    next.publish(&keys);
    let changed = Instant::now();
    while status(&server, "/v1/catalog", &doctor) == 200 {
        assert!(changed.elapsed() < Duration::from_secs(20), "the old key is still trusted");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(count(&server, &next.token("f:1:maria", &["ward-doctors"])), "count(*)\n2");
    server.stop();
    let data = directory.path().join("data");
    let audit = std::process::Command::new(crate::process::binary("vitalog"))
        .args([Path::new("audit"), Path::new("--data"), &data])
        .output()
        .expect("runs");
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
}

/// Guarantee (C5): after reads, refusals and lost tokens, what `/metrics` says is of kinds and outcomes; no label could hold a
/// person, a device, a party, a role, a token or a statement.
fn metrics_name_nobody(server: &Server, device: &SecretKey) {
    let mut answer = ureq::get(format!("{}/metrics", server.url)).call().expect("metrics");
    let metrics = answer.body_mut().read_to_string().expect("text");
    let id = device.public().short_id().to_string();
    for name in ["did:", "maria", "josef", "ward", "TREAT", "SELECT", id.as_str()] {
        assert!(!metrics.contains(name), "{name} in\n{metrics}");
    }
    let mut labelled = 0;
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let Some((labels, _)) = line.split_once('{').and_then(|(_, rest)| rest.split_once('}')) else {
            continue;
        };
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once('=').expect("a label");
            let known = ["by", "code", "door", "event", "le", "outcome", "reason", "status", "what", "why"];
            assert!(known.contains(&name), "a label that is not known to name nobody: {line}");
            assert!(value.len() <= 32, "{line}");
            labelled += 1;
        }
    }
    assert!(labelled > 50, "{labelled} labels");
}

fn report_names_her(server: &Server, subject: &str) {
    let report = server.ok(&["access-report", "--key", subject]);
    assert!(report.contains(&format!("as Doctor of ward 3 (ward) by word of {ISSUER}")), "{report}");
    let report: Value =
        serde_json::from_str(&server.ok(&["access-report", "--key", subject, "--json"])).expect("JSON");
    let accesses = report["accesses"].as_array().expect("accesses").iter();
    let doctors: Vec<&Value> =
        accesses.filter(|access| access["vouched"]["roles"][0]["role"] == "ward").collect();
    let rows: Vec<Option<u64>> = doctors.iter().map(|access| access["rows"].as_u64()).collect();
    // The look after the grant, and two refused for their purpose; the one before the grant concerned nobody.
    assert_eq!(rows, [Some(2), Some(0), Some(0)], "{report:#}");
    assert_eq!(doctors[0]["recipient"], doctors[1]["recipient"]);
    assert!(doctors[0]["recipient"].as_str().expect("text").parse::<Did>().is_ok());
}
