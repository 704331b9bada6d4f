//! The whole line with real processes: recordings in, consented rows out, revocation, kill -9, proofs, tampering.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bench_fleet::keys::Keyring;
use schemas_frame::{FrameBuilder, OutSeries, OutValues, Scale};
use schemas_identity::{BootId, SecretKey};

use crate::clients::Broker;
use crate::process::{Server, binary, shared};

const E4: &str = "data/e4_stress_predict";
/// Values of the ten recordings: 5,581,248 samples and 18,070 intervals between beats.
const E4_VALUES: u64 = 5_581_248 + 18_070;

pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn grant(server: &Server, keys: &Path, person: &str, to: &str) -> String {
    let key = text(&keys.join(format!("{person}.subject.pem")));
    server.ok(&["consent", "grant", "--key", &key, "--to", to, "--signals", "*", "--purpose", "HRESCH"])
}

fn token(server: &Server, key: &str) -> String {
    server.ok(&["token", "--key", key, "--purpose", "HRESCH"])
}

/// Guarantee (README): the demo's lines are true, on a machine with nothing installed.
#[test]
fn demo_plays() {
    let output = Command::new(binary("vitalog")).arg("demo").output().expect("runs");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{lines}{}", String::from_utf8_lossy(&output.stderr));
    for part in [
        "SIG_BAD",
        "DUP",
        "gap 5..5",
        "0 rows",
        "revokes",
        "access report",
        "verifies offline",
        "names batch",
    ] {
        assert!(lines.contains(part), "{part} missing in\n{lines}");
    }
}

/// Guarantee (G2, G6, G7): ten real people; five kill -9 in the middle lose and double nothing; an independent reader
/// of the original files gets the same numbers; consent opens seven, a revocation closes one in the next query.
#[test]
fn ten_people() {
    let Some(recordings) = shared(E4) else { return };
    let directory = tempfile::tempdir().expect("directory");
    let keys = directory.path().join("keys");
    for round in 0..5 {
        // Frames new to the server in this life; five lives stay below the 3,308 there are.
        let frames = 1 + random() % 600;
        eprintln!("round {round}: kill -9 after {frames} new frames");
        let server = Server::start(directory.path());
        let mut command = Command::new(binary("vitalog"));
        command.args(["replay", "e4", &text(&recordings), "--keys", &text(&keys), "--url", &server.url]);
        if round % 2 == 1 {
            command.args(["--via", "mqtt", "--mqtt", &format!("127.0.0.1:{}", server.mqtt_port)]);
        }
        let mut replay = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("replay starts");
        while server.metric_or_zero("vitalog_pipeline_verdicts_total{code=\"OK\"}") < frames {
            let ended = replay.try_wait().expect("status");
            assert!(ended.is_none(), "the replay ended before the kill");
            std::thread::sleep(Duration::from_millis(2));
        }
        server.kill();
        replay.kill().expect("kill");
        replay.wait().expect("wait");
    }
    let server = Server::start(directory.path());
    let (recordings_text, keys_text) = (text(&recordings), text(&keys));
    let answer = server.ok(&["replay", "e4", &recordings_text, "--keys", &keys_text, "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["values"], E4_VALUES);
    assert!(answer["codes"]["DUP"].as_u64().expect("resent frames") > 0, "{answer}");
    let (researcher, did) = server.key("researcher.pem");
    let token = token(&server, &researcher);
    assert_eq!(server.sql(&token, "SELECT count(*) FROM readings"), ["0"]);
    let ids: Vec<String> = (1..=10).map(|n| grant(&server, &keys, &format!("S{n:02}"), &did)).collect();
    assert_eq!(server.sql(&token, "SELECT count(*) FROM readings"), [E4_VALUES.to_string()]);
    compare_with_independent_reader(&server, &token, &recordings, &keys, directory.path());
    for person in [8, 9, 10] {
        revoke(&server, &keys, person, &ids);
    }
    let people = "SELECT count(DISTINCT subject) FROM readings";
    assert_eq!(server.sql(&token, people), ["7"]);
    revoke(&server, &keys, 1, &ids);
    assert_eq!(server.sql(&token, people), ["6"]);
    let (stranger, _) = server.key("stranger.pem");
    let other = self::token(&server, &stranger);
    assert_eq!(server.sql(&other, "SELECT count(*) FROM readings"), ["0"]);
    let refused = server.vitalog(&["sql", "DROP TABLE readings", "--token", &token]);
    assert_eq!(refused.status.code(), Some(3));
    server.stop();
    let data = text(&directory.path().join("data"));
    let audit = Command::new(binary("vitalog")).args(["audit", "--data", &data]).output().expect("runs");
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
}

/// Guarantee (G2): ten people's backlogs, shuffled and with one frame in twenty twice, through each of the three ways in,
/// are the same readings as an independent reader finds in the original files.
#[test]
fn backlogs_come_in_any_order() {
    let Some(recordings) = shared(E4) else { return };
    for way in ["http", "mqtt", "bridge"] {
        let directory = tempfile::tempdir().expect("directory");
        let keys = directory.path().join("keys");
        let mut broker = None;
        if way == "bridge" {
            broker = Broker::start(directory.path());
            if broker.is_none() {
                continue;
            }
        }
        let url = broker.as_ref().map(|broker| format!("mqtt://127.0.0.1:{}", broker.port));
        let environment: Vec<_> = url.iter().map(|url| ("VITALOG_BRIDGE_URL", url.as_str())).collect();
        let server = Server::start_with(directory.path(), &environment);
        let port = broker.as_ref().map_or(server.mqtt_port, |broker| broker.port);
        let (from, to) = (text(&recordings), format!("127.0.0.1:{port}"));
        let mut arguments =
            vec!["replay", "e4", &from, "--keys", keys.to_str().expect("path"), "--shuffle", "7", "--json"];
        if broker.is_some() {
            server.wait_for_bridge();
        }
        if way != "http" {
            arguments.extend(["--via", "mqtt", "--mqtt", &to]);
        }
        let answer: serde_json::Value = serde_json::from_str(&server.ok(&arguments)).expect("JSON");
        eprintln!("{way}: {answer}");
        let twice = server.metric("vitalog_pipeline_verdicts_total{code=\"DUP\"}");
        assert!((100..250).contains(&twice), "{twice} of 3,308 came twice");
        let (researcher, did) = server.key("researcher.pem");
        let token = token(&server, &researcher);
        (1..=10).for_each(|n| drop(grant(&server, &keys, &format!("S{n:02}"), &did)));
        assert_eq!(server.sql(&token, "SELECT count(*) FROM readings"), [E4_VALUES.to_string()], "{way}");
        compare_with_independent_reader(&server, &token, &recordings, &keys, directory.path());
        server.stop();
    }
}

/// Not the same at each run, on purpose; what it was is printed.
fn random() -> u64 {
    std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), 0)
}

fn revoke(server: &Server, keys: &Path, person: usize, ids: &[String]) {
    let key = text(&keys.join(format!("S{person:02}.subject.pem")));
    server.ok(&["consent", "revoke", "--key", &key, &ids[person - 1]]);
}

fn compare_with_independent_reader(
    server: &Server,
    token: &str,
    recordings: &Path,
    keys: &Path,
    scratch: &Path,
) {
    let python = std::env::var("VITALOG_PYTHON").unwrap_or_else(|_| "python3".into());
    let has_polars = Command::new(&python)
        .args(["-c", "import polars"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !has_polars {
        eprintln!(
            "skipped: {python} has no polars (tests/requirements.txt), SQL is not compared with the original files"
        );
        return;
    }
    let queries = [
        (
            "all.csv",
            "SELECT subject, signal, count(*) AS n, min(value) AS min, max(value) AS max, avg(value) AS mean FROM readings GROUP BY subject, signal",
        ),
        (
            "minutes.csv",
            "SELECT subject, signal, date_bin(INTERVAL '1 minute', ts) AS minute, count(*) AS n, avg(value) AS mean FROM readings GROUP BY subject, signal, date_bin(INTERVAL '1 minute', ts)",
        ),
    ];
    for (file, sql) in queries {
        server.ok(&["sql", sql, "--token", token, "--format", "csv", "--out", &text(&scratch.join(file))]);
    }
    let script = crate::workspace_root().join("tests/oracle/e4.py");
    let output = Command::new(&python)
        .arg(script)
        .args([recordings, &keys.join("map.json"), &scratch.join("all.csv"), &scratch.join("minutes.csv")])
        .output()
        .expect("python runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("agree"), "{said}");
}

pub(crate) fn frame(key: &SecretKey, seq: u64, wall_us: i64, pulse: i64) -> Vec<u8> {
    let series = OutSeries {
        signal: 1,
        offset_us: 0,
        period_us: 1_000_000,
        scale: Scale { num: 1, den: 1 },
        values: OutValues::narrowest(&[pulse, pulse + 1]).expect("fits"),
        deltas: None,
        quality: None,
    };
    FrameBuilder::new(BootId([7; 8]), seq, [0; 16], Some(wall_us), seq * 10_000_000)
        .series(series)
        .sign(key)
        .expect("frame")
}

pub(crate) const T0: i64 = 1_700_000_000_000_000;

/// An enrolled and bound device of a person called P.
pub(crate) fn device(server: &Server, directory: &Path) -> SecretKey {
    wearer(server, directory, "P")
}

/// As `device`, of anybody; keys are `NAME.device.pem` and `NAME.subject.pem`.
pub(crate) fn wearer(server: &Server, directory: &Path, name: &str) -> SecretKey {
    let person = Keyring::open(Some(directory)).expect("keys").person(name, 10).expect("person");
    let key = |kind: &str| text(&directory.join(format!("{name}.{kind}.pem")));
    let (device, subject) = (key("device"), key("subject"));
    server.ok(&["enrol", "--device-key", &device, "--model", "test"]);
    let id = person.device.public().short_id().to_string();
    server.ok(&["bind", "--device", &id, "--subject-key", &subject, "--device-key", &device]);
    person.device
}

/// Guarantee: a table of somebody else's comes in by a map alone; every reading once, units as the map says.
#[test]
fn tables_come_in() {
    let Some(table) = shared("data/welltory_covid19/blood_pressure.csv") else { return };
    let directory = tempfile::tempdir().expect("directory");
    let server = Server::start(directory.path());
    let (map, keys) = (directory.path().join("map.toml"), directory.path().join("keys"));
    let columns = [("systolic", "blood_pressure_systolic"), ("diastolic", "blood_pressure_diastolic")];
    let mut text_of_map = "person = \"user_code\"\ntime = \"measurement_datetime\"\n".to_owned();
    text_of_map += "time_format = \"%Y-%m-%d %H:%M:%S\"\n";
    for (name, signal) in columns {
        text_of_map += &format!("[[column]]\nname = \"{name}\"\nsignal = \"{signal}\"\n");
    }
    std::fs::write(&map, text_of_map).expect("written");
    let arguments = ["replay", "csv", &text(&table), "--map", &text(&map), "--keys", &text(&keys), "--json"];
    let answer: serde_json::Value = serde_json::from_str(&server.ok(&arguments)).expect("JSON");
    // 721 rows (MANIFEST.md), two pressures each.
    assert_eq!(
        (&answer["values"], answer["codes"].get("DUP")),
        (&serde_json::json!(1_442), None),
        "{answer}"
    );
    let (researcher, did) = server.key("researcher.pem");
    let token = token(&server, &researcher);
    grant(&server, &keys, "01bad5a519", &did);
    let csv = std::fs::read_to_string(&table).expect("table");
    let rows = csv.lines().filter(|line| line.starts_with("\"01bad5a519\"")).count();
    let counts = server.sql(&token, "SELECT count(*), max(value) FROM readings GROUP BY signal ORDER BY 2");
    let expected = format!("{rows},");
    assert!(
        counts.len() == 2 && counts.iter().all(|line| line.starts_with(&expected)),
        "{counts:?}, {rows} rows"
    );
    let again: serde_json::Value = serde_json::from_str(&server.ok(&arguments)).expect("JSON");
    assert_eq!(again["codes"]["DUP"], again["frames"], "the same bytes again");
}

/// Guarantee (G4): the proof of a frame verifies with server and data gone; any changed byte is refused, exit 3, step named.
#[test]
fn proofs_verify_offline() {
    let directory = tempfile::tempdir().expect("directory");
    let server = Server::start(directory.path());
    let key = device(&server, directory.path());
    for seq in 0..5 {
        assert_eq!(server.post(&frame(&key, seq, T0 + seq as i64 * 10_000_000, 70)).len(), 1);
    }
    let (evidence, policy) = (directory.path().join("f.evidence"), directory.path().join("policy"));
    let data = text(&directory.path().join("data"));
    std::fs::write(&policy, server.ok(&["policy", "show", "--data", &data]) + "\n").expect("policy");
    let id = key.public().short_id().to_string();
    let boot = BootId([7; 8]).to_string();
    let subject = text(&directory.path().join("P.subject.pem"));
    server.ok(&[
        "prove",
        "--device",
        &id,
        "--boot",
        &boot,
        "--seq",
        "3",
        "--key",
        &subject,
        "--out",
        &text(&evidence),
    ]);
    server.stop();
    std::fs::remove_dir_all(directory.path().join("data")).expect("gone");
    let verify = || {
        Command::new(binary("vitalog-verify"))
            .args(["evidence", &text(&evidence), "--policy", &text(&policy)])
            .output()
            .expect("runs")
    };
    let verified = verify();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let good = std::fs::read(&evidence).expect("evidence");
    for at in (0..good.len()).step_by(good.len() / 40) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&evidence, &bad).expect("written");
        assert_eq!(verify().status.code(), Some(3), "byte {at}");
    }
}

/// Guarantee: Debian's MQTT clients deliver a frame file and see the verdict, in both protocol versions.
#[test]
fn mosquitto_clients() {
    let has = |name: &str| Command::new(name).arg("--help").output().is_ok();
    if !has("mosquitto_pub") || !has("mosquitto_sub") {
        eprintln!("skipped: mosquitto_pub and mosquitto_sub are not installed (mosquitto-clients)");
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let server = Server::start(directory.path());
    let key = device(&server, directory.path());
    let (port, id) = (server.mqtt_port.to_string(), key.public().short_id().to_string());
    for (seq, version) in [(0, "mqttv311"), (1, "mqttv5")] {
        let file = directory.path().join("frame.bin");
        std::fs::write(&file, frame(&key, seq, T0 + seq as i64 * 10_000_000, 70)).expect("written");
        let topic = format!("v1/d/{id}/frames");
        let published = Command::new("mosquitto_pub")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-V",
                version,
                "-q",
                "1",
                "-t",
                &topic,
                "-f",
                &text(&file),
            ])
            .output()
            .expect("runs");
        assert!(published.status.success(), "{version}: {}", String::from_utf8_lossy(&published.stderr));
        let verdict = Command::new("mosquitto_sub")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-V",
                version,
                "-t",
                &format!("v1/d/{id}/verdict"),
                "-C",
                "1",
                "-W",
                "10",
            ])
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&verdict.stdout).into_owned();
        assert!(said.contains("acked_to") && said.contains(&format!("\"seq\":{seq}")), "{version}: {said}");
    }
}

/// Guarantee: a second implementation, in Python, agrees with every vector byte for byte, and the server takes its frames.
#[test]
fn python_device_agrees() {
    let python = std::env::var("VITALOG_PYTHON").unwrap_or_else(|_| "python3".into());
    let folder = crate::workspace_root().join("deploy/sdk/python");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&python);
        command.args(arguments).current_dir(&folder).env("VITALOG_VECTORS_ALL", "1").output().expect("runs")
    };
    if !run(&["-c", "import cbor2, blake3, cryptography"]).status.success() {
        eprintln!("skipped: {python} lacks the packages of deploy/sdk/python/requirements.txt");
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let server = Server::start(directory.path());
    device(&server, directory.path());
    let pem = text(&directory.path().join("P.device.pem"));
    let checked = run(&["check_vectors.py"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(
        checked.status.success() && said.contains("frame.json"),
        "{said}{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    let posted = run(&["vitalog_device.py", "--url", &server.url, "--key", &pem]);
    let said = String::from_utf8_lossy(&posted.stdout);
    assert!(
        posted.status.success() && said.contains("OK"),
        "{said}{}",
        String::from_utf8_lossy(&posted.stderr)
    );
}
