//! A lost token, from the command line: listed, revoked, refused at every door, also after the process was killed.
//! What one door does with it is tested beside that door.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::process::Server;

/// A token and its id.
fn token(server: &Server, key: &str, scope: &str) -> (String, String) {
    let made =
        server.ok(&["token", "--key", key, "--purpose", "HRESCH", "--scope", scope, "--ttl", "1h", "--json"]);
    let made: serde_json::Value = serde_json::from_str(&made).expect("JSON");
    let part = |name: &str| made[name].as_str().expect("text").to_owned();
    (part("token"), part("jti"))
}

pub(crate) fn status(server: &Server, path: &str, token: &str) -> u16 {
    let request = ureq::get(format!("{}{path}", server.url)).config().http_status_as_error(false).build();
    request.header("authorization", format!("Bearer {token}")).call().expect("answer").status().as_u16()
}

/// The code of the CONNACK of an MQTT 3.1.1 client that comes as `did` with `password`.
pub(crate) fn connack(server: &Server, did: &str, password: &str) -> u8 {
    login(server, did, password).0
}

/// The same, with the connection.
fn login(server: &Server, did: &str, password: &str) -> (u8, TcpStream) {
    let mut body = b"\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01c".to_vec();
    for field in [did, password] {
        body.extend(u16::try_from(field.len()).expect("short").to_be_bytes());
        body.extend(field.as_bytes());
    }
    let mut packet = vec![0x10];
    let mut length = body.len();
    while length > 127 {
        packet.push(u8::try_from(length % 128).expect("byte") | 0x80);
        length /= 128;
    }
    packet.push(u8::try_from(length).expect("byte"));
    packet.extend(body);
    let mut socket = TcpStream::connect(("127.0.0.1", server.mqtt_port)).expect("connects");
    socket.write_all(&packet).expect("sent");
    let mut answer = [0; 4];
    socket.read_exact(&mut answer).expect("CONNACK");
    (answer[3], socket)
}

/// Guarantee: a revoked token ends the MQTT connection it opened, and is refused over HTTP SQL, reads, statements and MQTT, also by the process that comes after a
/// kill -9; the owner sees it listed; the other tokens of the owner go on until all are revoked.
#[test]
fn a_lost_token() {
    let directory = tempfile::tempdir().expect("directory");
    let server = Server::start(directory.path());
    let (key, did) = server.key("researcher.pem");
    let (lost, lost_id) = token(&server, &key, "sql");
    let (kept, _) = token(&server, &key, "sql");
    let (device, device_id) = token(&server, &key, "publish");
    let paths = ["/v1/catalog", "/v1/me/accesses", "/v1/tokens", "/v1/statements?head"];
    let select = "SELECT count(*) FROM readings";
    assert_eq!(server.sql(&lost, select), ["0"]);
    let listed = server.ok(&["token", "list", "--key", &key]);
    assert!(listed.contains(&format!("{lost_id}  live  scope sql  purpose HRESCH")), "{listed}");
    let (code, mut open) = login(&server, &did, &device);
    assert_eq!(code, 0);
    server.ok(&["token", "revoke", &lost_id, "--key", &key]);
    server.ok(&["token", "revoke", &device_id, "--key", &key]);
    open.set_read_timeout(Some(Duration::from_secs(30))).expect("socket");
    assert_eq!(
        open.read(&mut [0; 8]).expect("closed, not silent"),
        0,
        "an open connection ends with its token"
    );
    server.kill();
    let server = Server::start(directory.path());
    let refused = server.vitalog(&["sql", select, "--token", &lost]);
    assert_eq!(refused.status.code(), Some(3), "{}", String::from_utf8_lossy(&refused.stderr));
    for path in paths {
        assert_eq!((status(&server, path, &lost), status(&server, path, &kept)), (401, 200), "{path}");
    }
    assert_ne!(connack(&server, &did, &device), 0);
    let listed = server.ok(&["token", "list", "--key", &key]);
    assert!(listed.contains(&format!("{lost_id}  revoked")), "{listed}");
    server.ok(&["token", "revoke", "*", "--key", &key]);
    assert_eq!(status(&server, "/v1/catalog", &kept), 401);
}
