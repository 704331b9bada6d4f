//! Tests of the HTTP door: identity, narrowing, formats, manifests, errors as clients see them.

mod accesses;
mod principals;
mod vouched;
mod world;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use schemas_identity::token::Scope;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use world::{Claims, World};

async fn send(world: &World, request: Request<Body>) -> Response {
    router(world.state.clone()).oneshot(request).await.unwrap()
}

fn post(token: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::post("/v1/sql").header("authorization", format!("Bearer {token}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

fn question(sql: &str) -> String {
    json!({"sql": sql}).to_string()
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn refusal(response: Response) -> (StatusCode, String) {
    let status = response.status();
    assert_eq!(response.headers()["cache-control"], "no-store");
    let body: Value = serde_json::from_str(&text(response).await).unwrap();
    let error = &body["error"];
    assert_eq!(error["id"].as_str().unwrap().len(), 16);
    assert!(!error["message"].as_str().unwrap().is_empty());
    (status, error["code"].as_str().unwrap().to_owned())
}

/// A good token gets the permitted rows in every format, and a manifest whose digest is that of the bytes sent.
#[tokio::test]
async fn rows_and_manifest() {
    let world = World::new();
    let token = world.token(Claims::default());
    for media in [
        "application/x-ndjson",
        "text/csv",
        "application/vnd.apache.arrow.stream",
        "application/vnd.apache.parquet",
    ] {
        let sql = "SELECT device, value FROM readings ORDER BY ts";
        let response = send(&world, post(&token, &[("accept", media)], question(sql))).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], media);
        let id = response.headers()["vitalog-manifest"].to_str().unwrap().to_owned();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        if media == "text/csv" {
            assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 21);
        }
        let manifest = get(&world, &token, &format!("/v1/manifests/{id}")).await.1;
        assert_eq!(manifest["result"]["blake3"], blake3::hash(&bytes).to_hex().to_string());
        assert_eq!(manifest["result"]["bytes"], bytes.len());
        assert_eq!(manifest["result"]["media"], media);
        assert_eq!(manifest["rows"], 20);
        assert_eq!(manifest["sql_blake3"], blake3::hash(sql.as_bytes()).to_hex().to_string());
        assert_eq!(manifest["log_size"], 3);
        // For nobody else, and not for a made-up id.
        let other = world.token(Claims { key: 9, ..Claims::default() });
        assert_eq!(get(&world, &other, &format!("/v1/manifests/{id}")).await.0, StatusCode::NOT_FOUND);
        assert_eq!(get(&world, &token, "/v1/manifests/..%2F..%2Fetc").await.0, StatusCode::NOT_FOUND);
    }
}

async fn get(world: &World, token: &str, path: &str) -> (StatusCode, Value) {
    let request =
        Request::get(path).header("authorization", format!("bearer {token}")).body(Body::empty()).unwrap();
    let response = send(world, request).await;
    let status = response.status();
    (status, serde_json::from_str(&text(response).await).unwrap())
}

/// Default format is JSON lines; a party without a grant gets nothing, and no error that would tell more.
#[tokio::test]
async fn no_grant_no_row() {
    let world = World::new();
    let token = world.token(Claims { key: 9, ..Claims::default() });
    let response = send(&world, post(&token, &[], question("SELECT * FROM readings"))).await;
    assert_eq!((response.status(), text(response).await.as_str()), (StatusCode::OK, ""));
    let response = send(&world, post(&token, &[], question("SELECT count(*) AS n FROM readings"))).await;
    assert_eq!(text(response).await, "{\"n\":0}\n");
}

/// No token, a broken one, one for another deployment, an expired one: always the same 401.
#[tokio::test]
async fn bad_tokens() {
    let world = World::new();
    let mut answers = Vec::new();
    let elsewhere = world.token(Claims { origin: "other.example/log", ..Claims::default() });
    let expired = world.token(Claims { seconds_left: -1, ..Claims::default() });
    for authorization in [
        None,
        Some(String::new()),
        Some("Basic dXNlcjpwYXNz".to_owned()),
        Some("Bearer".to_owned()),
        Some("Bearer x.y.z".to_owned()),
        Some(format!("Bearer {}", "a".repeat(query_tokens::TOKEN_BYTES_MAX + 1))),
        Some(format!("Bearer {elsewhere}")),
        Some(format!("Bearer {expired}")),
    ] {
        for path in
            ["/v1/sql", "/v1/catalog", "/v1/me/accesses", "/v1/manifests/00000000000000000000000000000000"]
        {
            let mut request = if path == "/v1/sql" { Request::post(path) } else { Request::get(path) };
            if let Some(value) = &authorization {
                request = request.header("authorization", value);
            }
            let response = send(&world, request.body(Body::from(question("SELECT 1"))).unwrap()).await;
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            answers.push(refusal(response).await);
        }
    }
    answers.dedup();
    assert_eq!(answers, [(StatusCode::UNAUTHORIZED, "UNAUTHORIZED".to_owned())]);
}

/// Headers may repeat the token's purpose and study; another purpose, a study the token does not have, or a
/// scope that is not for reading is 403. The one whose data was asked for reads of it.
#[tokio::test]
async fn headers_never_widen() {
    let world = World::new();
    let token = world.token(Claims::default());
    let sql = question("SELECT count(*) AS n FROM readings");
    let fine = send(&world, post(&token, &[("vitalog-purpose", "HRESCH")], sql.clone())).await;
    assert_eq!(text(fine).await, "{\"n\":20}\n");
    let publish = world.token(Claims { scope: Scope::Publish, ..Claims::default() });
    let treat = world.token(Claims { purpose: "TREAT", ..Claims::default() });
    let in_study = world.token(Claims { study: Some("nosuch"), ..Claims::default() });
    for (token, headers) in [
        (&token, vec![("vitalog-purpose", "TREAT")]),
        (&token, vec![("vitalog-purpose", "hresch")]),
        (&token, vec![("vitalog-study", "s1")]),
        (&token, vec![("vitalog-purpose", "")]),
        (&publish, vec![]),
        (&in_study, vec![]),
    ] {
        let response = send(&world, post(token, &headers, sql.clone())).await;
        assert_eq!(refusal(response).await, (StatusCode::FORBIDDEN, "FORBIDDEN".to_owned()), "{headers:?}");
    }
    let twice = [("vitalog-purpose", "HRESCH"), ("vitalog-purpose", "TREAT")];
    assert_eq!(
        refusal(send(&world, post(&token, &twice, sql.clone())).await).await.0,
        StatusCode::BAD_REQUEST
    );
    // Another purpose in the token itself is a good request that sees nothing.
    assert_eq!(text(send(&world, post(&treat, &[], sql)).await).await, "{\"n\":0}\n");
    let report = get(&world, &world.subject_token(), "/v1/me/accesses").await.1;
    let outcomes: Vec<&str> = report["accesses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|access| access["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "released").count(), 1, "{report}");
    assert!(outcomes.iter().filter(|outcome| **outcome == "refused").count() >= 6, "{report}");
}

/// The reader's own report names who, why and how many rows, and belongs to the asking person alone.
#[tokio::test]
async fn who_read_me() {
    let world = World::new();
    let token = world.token(Claims::default());
    text(send(&world, post(&token, &[], question("SELECT * FROM readings LIMIT 1000"))).await).await;
    let (status, report) = get(&world, &world.subject_token(), "/v1/me/accesses?limit=10").await;
    assert_eq!(status, StatusCode::OK);
    let access = &report["accesses"][0];
    assert_eq!(access["rows"], 20);
    assert_eq!(access["purpose"], "HRESCH");
    assert_eq!(access["recipient"], world.did(1).to_string());
    assert_eq!(get(&world, &token, "/v1/me/accesses").await.1["accesses"], json!([]));
}

/// A person asks why somebody can see them, and gets the grant; after a revocation the revocation. Nobody else's answer can
/// be had: it is always about the one who asks.
#[tokio::test]
async fn why_somebody_sees_me() {
    let world = World::new();
    let path = format!("/v1/me/why?party={}&purpose=HRESCH", world.did(1));
    let (status, answer) = get(&world, &world.subject_token(), &path).await;
    assert_eq!((status, &answer["reason"]), (StatusCode::OK, &Value::Null));
    assert_eq!(answer["may_see"][0]["signals"], json!(["*"]));
    assert_eq!(answer["may_see"][0]["by"], json!(world.granted.unwrap()));
    let other = format!("/v1/me/why?party={}&purpose=TREAT", world.did(1));
    let (_, answer) = get(&world, &world.subject_token(), &other).await;
    assert_eq!((&answer["may_see"], &answer["reason"]["text"]), (&json!([]), &json!("other purpose")));
    // The researcher asks about itself: it wears nothing.
    let (_, answer) = get(&world, &world.token(Claims::default()), &path).await;
    assert_eq!(answer["reason"]["text"], "device not worn");
    world.revoke();
    let (_, answer) = get(&world, &world.subject_token(), &path).await;
    assert_eq!((&answer["may_see"], &answer["reason"]["text"]), (&json!([]), &json!("revoked")));
    assert!(answer["reason"]["statement"].is_string());
    for bad in ["party=x&purpose=HRESCH", "party=did:key:z6Mk&purpose=HRESCH", "purpose=HRESCH"] {
        assert_eq!(get(&world, &world.subject_token(), &format!("/v1/me/why?{bad}")).await.0, 400, "{bad}");
    }
}

/// Headers, body, and the status and code that must come of them.
type Case<'a> = (Vec<(&'a str, &'a str)>, String, u16, &'a str);

/// What is not a question in JSON, not a known format, too big or not read-only is told apart by code and status.
#[tokio::test]
async fn refused_requests() {
    let world = World::new();
    let token = world.token(Claims::default());
    let select = question("SELECT 1");
    let long = question(&"x".repeat(BODY_BYTES_MAX));
    let cases: Vec<Case<'_>> = vec![
        (vec![], "not json".into(), 400, "BAD_REQUEST"),
        (vec![], "{}".into(), 400, "BAD_REQUEST"),
        (vec![], r#"{"sql":"SELECT 1","extra":1}"#.into(), 400, "BAD_REQUEST"),
        (vec![], r#"{"sql":"SELECT 1","as_of":-1}"#.into(), 400, "BAD_REQUEST"),
        (vec![], r#"{"sql":"SELECT 1","as_of":99}"#.into(), 400, "NO_SNAPSHOT"),
        (vec![("accept", "image/png")], select.clone(), 406, "NOT_ACCEPTABLE"),
        (vec![("accept", "image/png"), ("accept", "audio/ogg")], select, 406, "NOT_ACCEPTABLE"),
        (vec![], long, 413, "TOO_LARGE"),
        (vec![], question("DROP TABLE readings"), 400, "READ_ONLY"),
        (vec![], question("SELECT 1; SELECT 2"), 400, "READ_ONLY"),
        (vec![], question("SELECT nosuch FROM readings"), 400, "NOT_PLANNED"),
        (vec![], question("SELECT * FROM '/etc/passwd'"), 400, "NOT_PLANNED"),
        (vec![], question("SELEC 1"), 400, "READ_ONLY"),
        (vec![], question("SELECT 1 +"), 400, "SYNTAX"),
        (vec![], question("SELECT CAST(unit AS INT) FROM readings"), 400, "EVALUATION"),
        (vec![], question(&format!("SELECT 1{}", "+1".repeat(5_000))), 400, "STATEMENT_TOO_BIG"),
    ];
    for (headers, body, status, code) in cases {
        let shown: String = body.chars().take(80).collect();
        let found = refusal(send(&world, post(&token, &headers, body)).await).await;
        assert_eq!((found.0.as_u16(), found.1.as_str()), (status, code), "{shown}");
    }
}

/// The catalogue tells tables, signals and counts, and not one person or device.
#[tokio::test]
async fn catalogue() {
    let world = World::new();
    let (status, catalog) = get(&world, &world.token(Claims::default()), "/v1/catalog").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(catalog["tables"][0]["name"], "readings");
    assert!(catalog["signals"].as_array().unwrap().len() >= 22);
    assert_eq!(catalog["grants"][0]["people"], 1);
    assert!(!catalog.to_string().contains("did:key"));
}

/// An error in mid-stream ends the connection without the final chunk, over a real socket.
#[tokio::test(flavor = "multi_thread")]
async fn broken_stream_has_no_end() {
    let world = World::with_rows(3_000_000);
    let token = world.token(Claims::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = router(world.state.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let ask = move |sql: &str| {
        let body = question(sql);
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = format!(
            "POST /v1/sql HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(body.as_bytes()).unwrap();
        socket
    };
    let received = tokio::task::spawn_blocking(move || {
        let mut whole = Vec::new();
        ask("SELECT value FROM readings LIMIT 10").read_to_end(&mut whole).unwrap();
        let mut socket = ask("SELECT * FROM readings");
        let mut broken = vec![0; 64 * 1024];
        let read = socket.read(&mut broken).unwrap();
        broken.truncate(read);
        world.revoke();
        let _ = socket.read_to_end(&mut broken);
        (whole, broken)
    })
    .await
    .unwrap();
    assert!(received.0.ends_with(b"0\r\n\r\n"));
    assert!(received.1.starts_with(b"HTTP/1.1 200"));
    assert!(!received.1.ends_with(b"0\r\n\r\n"), "a cut result looked complete");
    assert!(received.1.len() < 100_000_000);
}
