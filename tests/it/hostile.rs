//! Bad input against a running server: each kind has its code and its counter, and the service goes on.
//! Not the parsers' own cases: those stand beside the parsers.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::CompressedEdwardsY;
use schemas_frame::Frame;
use schemas_frame::encode::seal;
use schemas_identity::statement::proof_of_possession;
use schemas_identity::{SecretKey, sign_compact};
use serde_json::{Value, json};

use crate::process::Server;
use crate::story::{T0, device, frame};

/// Log origin of a server that runs with `--dev`.
const ORIGIN: &str = "localhost/vitalog-dev";
/// The context of the development maker's seed: everybody has that key.
const DEV_MAKER: &str = "vitalog 2026 development maker v1";

/// Guarantee (G1, G3, G12): each kind of bad frame has its code and its counter, and the service goes on.
#[test]
fn bad_frames_have_codes() {
    let directory = tempfile::tempdir().expect("directory");
    let server = Server::start(directory.path());
    let key = device(&server, directory.path());
    let good = frame(&key, 0, T0, 70);
    let parsed = Frame::parse(&good).expect("a frame");
    let mut flipped = good.clone();
    *flipped.last_mut().expect("byte") ^= 1;
    let mut other_alg = good.clone();
    let at = other_alg.windows(2).position(|pair| pair == [0x01, 0x27]).expect("alg");
    other_alg[at + 1] = 0x26;
    // The same map, seq 0 spelt in two bytes: signed all the same.
    let payload = parsed.payload();
    let seq = payload.windows(3).position(|part| part == [0x02, 0x00, 0x03]).expect("seq 0") + 1;
    let mut long = payload.to_vec();
    long.splice(seq..=seq, [0x18, 0x00]);
    let non_deterministic = seal(parsed.alg(), key.public().short_id(), &long, |message| key.sign(message));
    let mut large = vec![0xd2, 0x84, 0x43, 0xa1, 0x01, 0x27, 0xa0, 0x5a, 0x00, 0x01, 0x18, 0x00];
    large.extend(vec![0; 0x11800]);
    large.extend([0x58, 0x40]);
    large.extend([0; 64]);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a good one", good.clone(), "OK"),
        ("the same again", good.clone(), "DUP"),
        ("cut short", good[..good.len() - 5].to_vec(), "DECODE"),
        ("tag 18 missing", good[1..].to_vec(), "DECODE"),
        ("an alg that is not Ed25519", other_alg, "DECODE"),
        ("a number spelt too long", non_deterministic, "DECODE"),
        ("70 KiB", large, "TOO_BIG"),
        ("the same seq with another payload", frame(&key, 0, T0, 99), "EQUIVOCATION"),
        ("one bit of the signature", flipped, "SIG_BAD"),
        ("a key nobody enrolled", frame(&SecretKey::from_seed(&[5; 32]), 0, T0, 70), "KEY_UNKNOWN"),
        ("a jump of seq", frame(&key, 10, T0, 70), "OK"),
        ("a pulse of 500", frame(&key, 15, T0, 500), "RANGE"),
        ("a clock before 1970", frame(&key, 20, -1, 70), "CLOCK"),
        ("a clock in 2100", frame(&key, 30, 4_102_444_800_000_000, 70), "CLOCK"),
    ];
    for (name, bytes, code) in &cases {
        let metric = format!("vitalog_intake_frames_total{{code=\"{code}\",door=\"http\"}}");
        let before = server.metric_or_zero(&metric);
        assert_eq!(server.post(bytes), [*code], "{name}");
        assert_eq!(server.metric(&metric), before + 1, "{name}: counted");
    }
    assert!(gap_shows(&server), "the jump is a gap");
    assert_eq!(server.post(&good), ["DUP"], "the service goes on");
}

/// Gaps are listed once their batch is sealed.
fn gap_shows(server: &Server) -> bool {
    for _ in 0..100 {
        let devices: Value = serde_json::from_str(&server.ok(&["devices", "--json"])).expect("JSON");
        let gaps = devices["devices"][0]["gaps"].as_array().expect("gaps").clone();
        if let Some(gap) = gaps.first() {
            return (gap["from"].as_u64(), gap["to"].as_u64()) == (Some(1), Some(9));
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    false
}

fn dev_maker() -> SecretKey {
    SecretKey::from_seed(&blake3::derive_key(DEV_MAKER, b""))
}

/// A statement of the maker with what its fields say, well-formed or not.
fn statement(fields: &Value, aud: &str) -> String {
    let mut payload = json!({
        "v": 1, "kind": "enrol", "aud": aud, "iat": 1_700_000_000, "nonce": URL_SAFE_NO_PAD.encode([7; 16]),
    });
    for (name, value) in fields.as_object().expect("fields") {
        payload[name] = value.clone();
    }
    sign_compact("vitalog+jws", payload.to_string().as_bytes(), &dev_maker())
}

fn did(key: [u8; 32]) -> String {
    let mut bytes = vec![0xed, 0x01];
    bytes.extend(key);
    format!("did:key:z{}", bs58::encode(bytes).into_string())
}

/// A clean key with an 8-torsion point added: some libraries verify under it, others do not.
fn torsioned(key: &SecretKey) -> [u8; 32] {
    let point = CompressedEdwardsY(*key.public().as_bytes()).decompress().expect("a point");
    (point + EIGHT_TORSION[1]).compress().to_bytes()
}

fn submit(server: &Server, compact: &str) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent
        .post(format!("{}/v1/statements", server.url))
        .header("content-type", "application/jose")
        .send(compact.as_bytes())
        .expect("answer");
    let status = answer.status().as_u16();
    let body: Value =
        serde_json::from_str(&answer.body_mut().read_to_string().expect("text")).unwrap_or_default();
    (status, body["error"]["code"].as_str().unwrap_or("").to_owned())
}

/// Guarantee: keys of small order, with torsion or spelt twice, statements for another deployment and unknown fields or
/// kinds are refused with a code and counted; the same statement without the flaw is taken.
#[test]
fn bad_statements_have_codes() {
    let directory = tempfile::tempdir().expect("directory");
    let server = Server::start(directory.path());
    let device = SecretKey::from_seed(&[11; 32]);
    let pop = proof_of_possession(ORIGIN, &dev_maker().public().did(), &device);
    let enrol = |key: String| json!({"device_key": key, "model": "test", "signals": [], "pop": pop});
    let honest = enrol(device.public().did().to_string());
    let with = |name: &str, value: Value| {
        let mut fields = honest.clone();
        fields[name] = value;
        fields
    };
    let mut spelt_twice = [0xff; 32];
    (spelt_twice[0], spelt_twice[31]) = (0xee, 0x7f);
    let small = EIGHT_TORSION.map(|point| did(point.compress().to_bytes()));
    let mut cases: Vec<(String, String, &str)> = vec![
        ("torsioned".into(), statement(&enrol(did(torsioned(&device))), ORIGIN), "form"),
        ("1 spelt as p + 1".into(), statement(&enrol(did(spelt_twice)), ORIGIN), "form"),
        ("another deployment".into(), statement(&honest, "elsewhere.example/log"), "audience"),
        ("unknown field".into(), statement(&with("colour", json!("red")), ORIGIN), "form"),
        ("unknown kind".into(), statement(&with("kind", json!("trust-me")), ORIGIN), "form"),
        ("another version".into(), statement(&with("v", json!(2)), ORIGIN), "form"),
        ("a nonce too short".into(), statement(&with("nonce", json!("abc")), ORIGIN), "form"),
        (
            "a proof of another key".into(),
            statement(&enrol(dev_maker().public().did().to_string()), ORIGIN),
            "proof",
        ),
        ("no JWS".into(), "a.b".into(), "jws"),
    ];
    for (index, key) in small.into_iter().enumerate() {
        cases.push((format!("small order {index}"), statement(&enrol(key), ORIGIN), "form"));
    }
    for (name, compact, code) in &cases {
        let metric = format!("vitalog_statements_total{{code=\"{code}\"}}");
        let before = server.metric_or_zero(&metric);
        assert_eq!(submit(&server, compact), (400, (*code).to_owned()), "{name}");
        assert_eq!(server.metric(&metric), before + 1, "{name}: counted");
    }
    let (status, _) = submit(&server, &"a".repeat(33 << 10));
    assert_eq!(status, 413, "a statement of 33 KiB");
    assert_eq!(submit(&server, &statement(&honest, ORIGIN)).0, 201, "the honest one is taken");
    let bad = sign_compact("JWT", br#"{"v":1}"#, &dev_maker());
    assert_eq!(submit(&server, &bad), (400, "jws".to_owned()), "typ is checked exactly");
}

/// Guarantee (G12): SQL that writes, or is not SQL, is refused with exit 3 or 1, counted, and changes nothing.
#[test]
fn sql_that_writes_is_refused() {
    let directory = tempfile::tempdir().expect("directory");
    let server = Server::start(directory.path());
    let (key, _) = server.key("researcher.pem");
    let token = server.ok(&["token", "--key", &key, "--purpose", "HRESCH"]);
    let metric = "vitalog_query_requests_total{code=\"READ_ONLY\"}";
    let writes = [
        "DROP TABLE readings",
        "INSERT INTO readings VALUES (1)",
        "DELETE FROM readings",
        "UPDATE readings SET value = 0",
        "CREATE TABLE t AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY readings TO '/tmp/stolen.csv'",
        "SET datafusion.execution.target_partitions = 1",
    ];
    for (count, sql) in (1..).zip(writes) {
        let output = server.vitalog(&["sql", sql, "--token", &token]);
        assert_eq!(output.status.code(), Some(3), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(server.metric(metric), count, "{sql}: counted");
    }
    assert_eq!(server.sql(&token, "SELECT count(*) FROM readings"), ["0"], "the service goes on");
}

/// A certificate for localhost and its key, as PEM files in the directory.
fn certificate(directory: &Path) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
    let write = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("written");
        path.to_string_lossy().into_owned()
    };
    (write("cert.pem", made.cert.pem()), write("key.pem", made.signing_key.serialize_pem()))
}

/// Guarantee: with a certificate every door speaks TLS and only TLS; without one an address that others reach is refused.
#[test]
fn doors_speak_tls() {
    let directory = tempfile::tempdir().expect("directory");
    let (cert, key) = certificate(directory.path());
    let environment = [("VITALOG_TLS_CERT", cert.as_str()), ("VITALOG_TLS_KEY", key.as_str())];
    let server = Server::start_with(directory.path(), &environment);
    let https = server.url.replace("http://127.0.0.1", "https://localhost");
    let plain = server.vitalog(&["devices"]);
    assert_ne!(plain.status.code(), Some(0), "no plaintext");
    let strange = server.vitalog(&["devices", "--url", &https]);
    assert_ne!(strange.status.code(), Some(0), "an authority that nobody named is not trusted");
    let sent =
        server.ok(&["simulate", "--devices", "2", "--frames", "3", "--json", "--url", &https, "--ca", &cert]);
    let sent: Value = serde_json::from_str(&sent).expect("JSON");
    assert_eq!(sent["codes"], json!({"OK": 6}));
    assert!(mqtt_handshake(server.mqtt_port, &cert), "MQTT answers over TLS");
    server.stop();
    let refused = std::process::Command::new(crate::process::binary("vitalog"))
        .args(["serve", "--data"])
        .arg(directory.path().join("other"))
        .env("VITALOG_HTTP", "0.0.0.0:0")
        .env("VITALOG_OPERATORS", device_did())
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("tls.cert"), "{said}");
}

fn device_did() -> String {
    dev_maker().public().did().to_string()
}

/// Debian's client over TLS, if it is there: the verdict topic can be subscribed to.
fn mqtt_handshake(port: u16, ca: &str) -> bool {
    let topic = format!("v1/d/{}/verdict", dev_maker().public().short_id());
    let port = port.to_string();
    let arguments = ["-h", "localhost", "-p", &port, "--cafile", ca, "-t", &topic, "-W", "1", "-d"];
    match std::process::Command::new("mosquitto_sub").args(arguments).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).contains("CONNACK (0)"),
        Err(_) => {
            eprintln!(
                "skipped: mosquitto_sub is not installed (mosquitto-clients), MQTT over TLS is not tried here"
            );
            true
        }
    }
}
