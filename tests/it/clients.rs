//! Clients that others wrote, as devices against the server as built: Paho and aiomqtt (Python), MQTT.js (Node), and
//! Mosquitto as a broker in between. Each is skipped aloud where it is missing.
//! Not the protocol's corners: those are tests of `ingest-intake`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::process::Server;
use crate::story::{T0, device, frame};
use crate::workspace_root;

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn script(name: &str) -> PathBuf {
    workspace_root().join("tests/clients").join(name)
}

/// Publishes with a Python client in both protocol versions and sees the verdict.
fn python_client(package: &str, name: &str) {
    let python = std::env::var("VITALOG_PYTHON").unwrap_or_else(|_| "python3".into());
    let imports = format!("import {package}, cbor2, blake3, cryptography");
    let has =
        Command::new(&python).args(["-c", &imports]).output().is_ok_and(|output| output.status.success());
    if !has {
        eprintln!(
            "skipped: {python} lacks {package} (tests/requirements.txt, deploy/sdk/python/requirements.txt)"
        );
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let server = Server::start(directory.path());
    device(&server, directory.path());
    for version in ["3", "5"] {
        let output = Command::new(&python)
            .arg(script(name))
            .arg(server.mqtt_port.to_string())
            .arg(directory.path().join("P.device.pem"))
            .arg(version)
            .arg(workspace_root().join("deploy/sdk/python"))
            .output()
            .expect("runs");
        assert!(said(&output).contains("verdict seq 2"), "{package}, {version}: {}", said(&output));
    }
    assert_eq!(server.metric("vitalog_intake_frames_total{code=\"OK\",door=\"mqtt\"}"), 6);
}

/// Guarantee: Eclipse Paho for Python delivers our SDK's frames and sees their verdict, in both protocol versions.
#[test]
fn paho_python() {
    python_client("paho.mqtt.client", "publish_paho.py");
}

/// Guarantee: aiomqtt delivers our SDK's frames and sees their verdict, in both protocol versions.
#[test]
fn aiomqtt_python() {
    python_client("aiomqtt", "publish_aiomqtt.py");
}

/// Guarantee: MQTT.js delivers frames and sees their verdict, in both protocol versions.
#[test]
fn mqtt_js() {
    let modules = std::env::var("VITALOG_NODE_MODULES").unwrap_or_default();
    let node =
        |arguments: &[String]| Command::new("node").args(arguments).env("NODE_PATH", &modules).output();
    let has = node(&["-e".into(), "require('mqtt')".into()]).is_ok_and(|output| output.status.success());
    if !has {
        eprintln!("skipped: node or its package mqtt is missing (VITALOG_NODE_MODULES, see .ci/run)");
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let server = Server::start(directory.path());
    let key = device(&server, directory.path());
    for (first, version) in [(0, "3"), (3, "5")] {
        let mut arguments = vec![script("publish_mqttjs.cjs").to_string_lossy().into_owned()];
        let id = key.public().short_id().to_string();
        arguments.extend([server.mqtt_port.to_string(), id, version.into(), (first + 2).to_string()]);
        for seq in first..first + 3 {
            let path = directory.path().join(format!("{seq}.frame"));
            std::fs::write(&path, frame(&key, seq, T0 + seq as i64 * 10_000_000, 70)).expect("written");
            arguments.push(path.to_string_lossy().into_owned());
        }
        let output = node(&arguments).expect("runs");
        assert!(
            said(&output).contains(&format!("verdict seq {}", first + 2)),
            "{version}: {}",
            said(&output)
        );
    }
}

/// A Mosquitto on a loopback port; ended when dropped.
pub(crate) struct Broker {
    child: Child,
    pub(crate) port: u16,
}

impl Broker {
    pub(crate) fn start(directory: &Path) -> Option<Broker> {
        let program = Path::new("/usr/sbin/mosquitto");
        let has_clients = Command::new("mosquitto_pub").arg("--help").output().is_ok();
        if !program.exists() || !has_clients {
            eprintln!("skipped: mosquitto or its clients are not installed (mosquitto, mosquitto-clients)");
            return None;
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|free| free.local_addr())
            .expect("port")
            .port();
        let config = directory.join("broker.conf");
        std::fs::write(&config, format!("listener {port} 127.0.0.1\nallow_anonymous true\n"))
            .expect("written");
        let mut command = Command::new(program);
        command.arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("mosquitto starts");
        Some(Broker { child, port })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Guarantee: with a broker in between, a device that knows only the broker gets its frame decided and its verdict.
#[test]
fn a_broker_in_between() {
    let directory = tempfile::tempdir().expect("directory");
    let Some(broker) = Broker::start(directory.path()) else { return };
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let server = Server::start_with(directory.path(), &[("VITALOG_BRIDGE_URL", &url)]);
    let key = device(&server, directory.path());
    server.wait_for_bridge();
    let (port, id) = (broker.port.to_string(), key.public().short_id().to_string());
    let verdicts = Command::new("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-C", "1", "-W", "15", "-t"])
        .arg(format!("v1/d/{id}/verdict"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    std::thread::sleep(Duration::from_millis(300));
    let file = directory.path().join("frame.bin");
    std::fs::write(&file, frame(&key, 4, T0, 70)).expect("written");
    let published = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", &format!("v1/d/{id}/frames"), "-f"])
        .arg(&file)
        .output()
        .expect("runs");
    assert!(published.status.success(), "{}", said(&published));
    let told = said(&verdicts.wait_with_output().expect("ends"));
    assert!(told.contains("acked_to") && told.contains("\"seq\":4"), "{told}");
    assert_eq!(server.metric("vitalog_intake_frames_total{code=\"OK\",door=\"bridge\"}"), 1);
    server.stop();
}
