//! Whose token it is: listed for its owner, ended by its owner at every route and in mid-stream, and never too fast.

use http_body_util::BodyExt;
use std::net::SocketAddr;

use axum::extract::ConnectInfo;

use super::world::{Claims, World};
use super::*;
use crate::limits::Rates;

/// Routes that need a token, with the method.
const ROUTES: [(&str, &str); 5] = [
    ("POST", "/v1/sql"),
    ("GET", "/v1/catalog"),
    ("GET", "/v1/me/accesses"),
    ("GET", "/v1/manifests/00000000000000000000000000000000"),
    ("GET", "/v1/tokens"),
];

fn request(method: &str, path: &str, token: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {token}"))
        .body(Body::from(question("SELECT 1")))
        .unwrap()
}

fn with_jti(world: &World, jti: &'static str) -> String {
    world.token(Claims { jti, ..Claims::default() })
}

async fn revoke(world: &World, token: &str, target: &str) -> StatusCode {
    send(world, request("DELETE", &format!("/v1/tokens/{target}"), token)).await.status()
}

/// Guarantee: a revoked token is refused by every route with the same 401 as any bad token; the party's other tokens
/// and other parties' tokens of the same id go on; `*` ends them all.
#[tokio::test]
async fn a_revoked_token_is_refused_everywhere() {
    let world = World::new();
    let (lost, kept) = (with_jti(&world, "lost"), with_jti(&world, "kept"));
    let others = world.token(Claims { key: 9, jti: "lost", ..Claims::default() });
    assert_eq!(revoke(&world, &others, "kept").await, StatusCode::OK);
    assert_eq!(revoke(&world, &kept, "lost").await, StatusCode::OK);
    for (method, path) in ROUTES {
        let refused = send(&world, request(method, path, &lost)).await;
        assert_eq!(refusal(refused).await, (StatusCode::UNAUTHORIZED, "UNAUTHORIZED".to_owned()), "{path}");
        for good in [&kept, &others] {
            let status = send(&world, request(method, path, good)).await.status();
            assert_ne!(status, StatusCode::UNAUTHORIZED, "{path}");
        }
    }
    assert_eq!(revoke(&world, &lost, "kept").await, StatusCode::UNAUTHORIZED);
    assert_eq!(revoke(&world, &kept, &"j".repeat(65)).await, StatusCode::NOT_FOUND);
    assert_eq!(revoke(&world, &kept, "*").await, StatusCode::OK);
    assert_eq!(revoke(&world, &kept, "*").await, StatusCode::UNAUTHORIZED);
    assert_eq!(get(&world, &others, "/v1/catalog").await.0, StatusCode::OK);
    assert_eq!(world.state.metrics.revoked.get(), 3);
}

/// Guarantee: owners see which of their tokens were used, for what and when, whether they are revoked, nobody else's,
/// and no text that could be used as a token.
#[tokio::test]
async fn tokens_are_listed_for_their_owner() {
    let world = World::new();
    let (first, second) = (with_jti(&world, "first"), with_jti(&world, "second"));
    let publish = world.token(Claims { scope: Scope::Publish, jti: "third", ..Claims::default() });
    let others = world.token(Claims { key: 9, jti: "theirs", ..Claims::default() });
    text(send(&world, post(&first, &[], question("SELECT 1"))).await).await;
    text(send(&world, post(&others, &[], question("SELECT 1"))).await).await;
    assert_eq!(revoke(&world, &second, "first").await, StatusCode::OK);
    let (status, listed) = get(&world, &publish, "/v1/tokens").await;
    assert_eq!(status, StatusCode::OK);
    let shown: Vec<_> = listed["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["jti"].as_str().unwrap(), one["revoked"].as_bool().unwrap(), &one["scope"]))
        .collect();
    assert_eq!(
        shown,
        [
            ("first", true, &json!("sql")),
            ("second", false, &json!("sql")),
            ("third", false, &json!("publish"))
        ]
    );
    assert_eq!(listed["tokens"][0]["purpose"], "HRESCH");
    assert_eq!(listed["tokens"][0]["expires"], "2026-01-01T00:10:00Z");
    assert_eq!(listed["all_revoked_until"], Value::Null);
    for secret in [&first, &second] {
        assert!(!listed.to_string().contains(secret.rsplit('.').next().unwrap()));
    }
    let theirs = get(&world, &others, "/v1/tokens").await.1;
    assert_eq!(theirs["tokens"].as_array().unwrap().len(), 1, "{theirs}");
}

/// Guarantee: a result that runs on a token ends with an error when the token is revoked, never as if it were whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_result_ends_with_its_token() {
    let world = World::with_rows(3_000_000);
    let (lost, kept) = (with_jti(&world, "lost"), with_jti(&world, "kept"));
    let mut doomed = send(&world, post(&lost, &[], question("SELECT * FROM readings"))).await.into_body();
    let mut spared = send(&world, post(&kept, &[], question("SELECT seq FROM readings"))).await.into_body();
    assert!(doomed.frame().await.unwrap().is_ok());
    assert_eq!(revoke(&world, &kept, "lost").await, StatusCode::OK);
    let mut is_broken = false;
    while let Some(frame) = doomed.frame().await {
        is_broken = frame.is_err();
    }
    assert!(is_broken, "the result of a revoked token came to its end");
    while let Some(frame) = spared.frame().await {
        frame.unwrap();
    }
}

fn from(address: &str, request: Request<Body>) -> Request<Body> {
    let mut request = request;
    let address: SocketAddr = address.parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(address));
    request
}

/// Guarantee: a party beyond its rate is told 429, a code and when to come back, from whatever address; others go on.
#[tokio::test]
async fn a_party_has_a_rate() {
    let mut world = World::new();
    world.state.limiter = Arc::new(Limiter::new(Rates { address: 0, party: 1, refused: 0 }));
    let (mine, others) = (with_jti(&world, "a"), world.token(Claims { key: 9, ..Claims::default() }));
    for number in 0..10 {
        let here = from(&format!("192.0.2.{number}:1"), request("GET", "/v1/catalog", &mine));
        assert_eq!(send(&world, here).await.status(), StatusCode::OK);
    }
    let fast = send(&world, request("GET", "/v1/catalog", &with_jti(&world, "b"))).await;
    assert_eq!(fast.headers()["retry-after"], "1");
    assert_eq!(refusal(fast).await, (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED".to_owned()));
    assert_eq!(send(&world, request("GET", "/v1/catalog", &others)).await.status(), StatusCode::OK);
    assert_eq!(world.state.metrics.limited.with_label_values(&["party"]).get(), 1);
}

/// Guarantee: an address beyond its rate is told 429 on every route; one that brought too many bad tokens is stopped long
/// before that, with a good token too, and another address is not.
#[tokio::test]
async fn an_address_has_two_rates() {
    let mut world = World::new();
    let good = with_jti(&world, "a");
    world.state.limiter = Arc::new(Limiter::new(Rates { address: 2, party: 0, refused: 1 }));
    let app = router(world.state.clone());
    let ask = |address: &'static str, token: String| {
        let (app, request) = (app.clone(), from(address, request("GET", "/v1/catalog", &token)));
        async move { app.oneshot(request).await.unwrap() }
    };
    for _ in 0..10 {
        assert_eq!(ask("192.0.2.1:1", "x.y.z".into()).await.status(), StatusCode::UNAUTHORIZED);
    }
    let stopped = ask("192.0.2.1:2", good.clone()).await;
    assert_eq!(stopped.headers()["retry-after"], "1");
    assert_eq!(refusal(stopped).await, (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED".to_owned()));
    for _ in 0..20 {
        assert_eq!(ask("192.0.2.2:1", good.clone()).await.status(), StatusCode::OK);
    }
    for (method, path) in ROUTES {
        let fast = app.clone().oneshot(from("192.0.2.2:9", request(method, path, &good))).await.unwrap();
        assert_eq!(fast.status(), StatusCode::TOO_MANY_REQUESTS, "{path}");
    }
    let metrics = &world.state.metrics;
    assert_eq!(metrics.refused.get(), 10);
    assert_eq!(metrics.limited.with_label_values(&["refused"]).get(), 1);
    assert_eq!(metrics.limited.with_label_values(&["address"]).get(), 5);
}
