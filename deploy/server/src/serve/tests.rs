//! What is connected to what. Not what the rooms do: they have tests of their own.

use axum::body::Body as HttpBody;
use axum::http::{Request, StatusCode, header};
use ingest_intake::mqtt::{Credentials, Gatekeeper};
use query_audit::Refused;
use schemas_identity::token::{Scope, Token, issue};
use tempfile::TempDir;
use tower::ServiceExt;

use super::*;

const HOUR_US: i64 = 3_600_000_000;

/// A server's rooms with no open door.
struct Opened {
    config: Config,
    data: DataDir,
    rooms: Rooms,
}

impl Opened {
    fn new(folder: &TempDir) -> Opened {
        let config = Config { data: folder.path().join("data"), ..Config::default() };
        let data = DataDir::open(&config.data).unwrap();
        let rooms = open_rooms(&config, true, &data).unwrap();
        Opened { config, data, rooms }
    }

    /// A token of the development maker, good for an hour by the real clock.
    fn token(&self, scope: Scope) -> String {
        let iat_s = now_us() / 1_000_000;
        let (key, jti) = (dev_maker(), "00".repeat(16));
        let (iss, purpose, exp_s) = (key.public().did(), "DEVICE".into(), iat_s + 3_600);
        issue(
            &Token { iss, jti, purpose, study: None, vouched: None, scope, iat_s, exp_s },
            &self.config.origin,
            &key,
        )
    }

    /// Whether MQTT, the routes of this room and those of queries take an hour's token.
    async fn are_taken(self) -> [bool; 3] {
        let (publish, read) = (self.token(Scope::Publish), self.token(Scope::Sql));
        let credentials =
            Credentials { username: None, password: Some(publish.as_bytes()), certificate: None };
        let is_admitted = gatekeeper(&self.rooms, false).admit(&credentials).is_ok();
        let options = frames_http::HttpOptions::new(Arc::new(
            ingest_intake::Metrics::register(&self.rooms.metrics, &self.rooms.admission).unwrap(),
        ));
        let pipeline = self.rooms.pipeline.clone();
        let app = http_routes(false, self.rooms, &self.data, options).unwrap();
        let mut taken = vec![is_admitted];
        for path in ["/v1/devices", "/v1/tokens"] {
            let request = Request::get(path)
                .header(header::AUTHORIZATION, format!("Bearer {read}"))
                .body(HttpBody::empty())
                .unwrap();
            let status = app.clone().oneshot(request).await.unwrap().status();
            assert!(status == StatusCode::OK || status == StatusCode::UNAUTHORIZED, "{path}: {status}");
            taken.push(status == StatusCode::OK);
        }
        let stopping = pipeline.lock().take().unwrap();
        tokio::task::spawn_blocking(move || stopping.stop()).await.unwrap();
        taken.try_into().unwrap()
    }
}

/// Guarantee: every door judges tokens by the clock that does not lie before the newest access record (attack F10): here one says
/// that it is two hours later than the machine's clock, and a token of one hour is taken nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_door_believes_a_clock_moved_back() {
    let folder = TempDir::new().unwrap();
    assert_eq!(Opened::new(&folder).are_taken().await, [true; 3]);
    let later_us = now_us() + 2 * HOUR_US;
    let opened = Opened::new(&folder);
    let refused = Refused {
        recipient: dev_maker().public().did(),
        voucher: None,
        token_id: "ab".into(),
        purpose: "TREAT".into(),
        study: None,
        sql: "SELECT 1".into(),
        subjects: Vec::new(),
        reason: "withheld".into(),
        epoch: 0,
        at_us: later_us,
    };
    opened.rooms.door.audit.refused(refused).unwrap();
    assert_eq!(opened.are_taken().await, [true; 3], "the record is believed when the server starts");
    let opened = Opened::new(&folder);
    assert!((opened.rooms.door.clock)() >= later_us);
    assert_eq!(opened.are_taken().await, [false; 3]);
}
