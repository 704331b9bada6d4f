//! `GET /v1/me/accesses`: what the person learns, in which form, and what nobody learns by it.

use http::StatusCode;
use schemas_identity::token::Scope;
use serde_json::{Value, json};

use super::world::{Claims, World};
use super::{get, post, question, send, text};

#[path = "../../../../../schemas/fhir/tests/structure/mod.rs"]
pub(super) mod structure;

const SQL: &str = "SELECT value FROM readings WHERE value > 61";

async fn read_once(world: &World) {
    let token = world.token(Claims::default());
    let response = send(world, post(&token, &[], question(SQL))).await;
    assert_eq!(response.status(), StatusCode::OK);
    // To the end: a reader who goes away is another outcome.
    text(response).await;
}

/// The same report as our JSON.
async fn report(world: &World) -> Value {
    get(world, &world.subject_token(), "/v1/me/accesses").await.1
}

async fn as_fhir(world: &World, accept: &str, path: &str) -> (String, Value) {
    let request = http::Request::get(path)
        .header("authorization", format!("Bearer {}", world.subject_token()))
        .header("accept", accept)
        .body(axum::body::Body::empty())
        .unwrap();
    let response = send(world, request).await;
    let media = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(response.headers()["cache-control"], "no-store");
    (media, serde_json::from_str(&text(response).await).unwrap())
}

/// Guarantee: who asks for FHIR by name gets a valid R4 searchset of the same accesses, page by page; who takes anything
/// gets our own JSON.
#[tokio::test]
async fn accesses_as_fhir() {
    let world = World::new();
    read_once(&world).await;
    read_once(&world).await;
    let refused = world.token(Claims { study: Some("nosuch"), ..Claims::default() });
    send(&world, post(&refused, &[], question(SQL))).await;
    let (media, bundle) = as_fhir(&world, "application/fhir+json", "/v1/me/accesses").await;
    assert_eq!(media, "application/fhir+json; fhirVersion=4.0");
    assert_eq!((&bundle["type"], &bundle["total"]), (&json!("searchset"), &json!(3)));
    let events = bundle["entry"].as_array().unwrap();
    let brief: Vec<(&str, &str)> = events
        .iter()
        .map(|entry| &entry["resource"])
        .map(|event| (event["id"].as_str().unwrap(), event["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(brief, [("access-1", "0"), ("access-2", "0"), ("access-3", "8")]);
    let event = &events[0]["resource"];
    assert_eq!(event["agent"][0]["who"]["identifier"]["value"], world.did(1).to_string());
    assert_eq!(event["entity"][0]["what"]["identifier"]["value"], world.did(2).to_string());
    assert_eq!(event["source"]["observer"]["identifier"]["value"], "test.example/log");
    let ours = report(&world).await;
    let rows = json!({"type": "rows", "valueString": ours["accesses"][0]["rows"].to_string()});
    assert!(event["entity"][1]["detail"].as_array().unwrap().contains(&rows), "{event}");
    let (_, page) =
        as_fhir(&world, "text/html, application/fhir+json;q=0.9", "/v1/me/accesses?limit=2").await;
    assert_eq!(page["entry"].as_array().unwrap().len(), 2);
    assert_eq!(page["link"][1], json!({"relation": "next", "url": "/v1/me/accesses?after=2&limit=2"}));
    assert_eq!(as_fhir(&world, "*/*", "/v1/me/accesses").await.0, "application/json");
    let Some(definitions) = structure::definitions("accesses_as_fhir") else { return };
    assert_eq!(definitions.problems(&bundle), Vec::<String>::new());
    assert_eq!(definitions.problems(&page), Vec::<String>::new());
}

/// Guarantee: rows that left before a grant was taken back are marked with the revocation; what came after it, and what
/// gave no row, is not.
#[tokio::test]
async fn released_before_withdrawal() {
    let world = World::new();
    read_once(&world).await;
    let treat = world.token(Claims { purpose: "TREAT", ..Claims::default() });
    text(send(&world, post(&treat, &[], question(SQL))).await).await;
    let marks = |report: &Value| -> Vec<bool> {
        report["accesses"].as_array().unwrap().iter().map(|access| !access["withdrawn"].is_null()).collect()
    };
    assert_eq!(marks(&report(&world).await), [false, false]);
    world.revoke();
    read_once(&world).await;
    let after = report(&world).await;
    assert_eq!(marks(&after), [true, false, false], "{after:#}");
    assert!(
        after["accesses"][0]["withdrawn"]["log_index"].as_u64() > after["accesses"][0]["log_index"].as_u64()
    );
    let (_, bundle) = as_fhir(&world, "application/fhir+json", "/v1/me/accesses").await;
    let event = bundle["entry"][0]["resource"].to_string();
    assert!(event.contains("released-before-withdrawal"), "{event}");
}

/// Guarantee: nothing that a recipient types reaches a person's report, in any form: no literal, no identifier, no comment,
/// no name passed off as a purpose or a study. Nor does another person's key.
#[tokio::test]
async fn no_text_reaches_the_report() {
    const NAME: &str = "Maria Mustermann";
    let world = World::new();
    let token = world.token(Claims::default());
    let statements = [
        format!("SELECT value FROM readings WHERE unit = '{NAME}'"),
        format!("SELECT value AS \"{NAME}\" FROM readings /* {NAME} */"),
        format!("DROP TABLE \"{NAME}\" -- {NAME}"),
        format!("SELECT '{NAME}'"),
    ];
    for sql in &statements {
        text(send(&world, post(&token, &[], question(sql))).await).await;
    }
    for claims in [
        Claims { purpose: NAME, ..Claims::default() },
        Claims { study: Some(NAME), ..Claims::default() },
        Claims { purpose: NAME, scope: Scope::Publish, ..Claims::default() },
    ] {
        let token = world.token(claims);
        let response = send(&world, post(&token, &[], question(SQL))).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    }
    let ours = report(&world).await;
    let (_, fhir) = as_fhir(&world, "application/fhir+json", "/v1/me/accesses").await;
    for shown in [ours.to_string(), fhir.to_string()] {
        assert!(!shown.contains("Mustermann") && !shown.contains("SELECT"), "{shown}");
        assert!(!shown.contains(&world.did(3).to_string()));
    }
    let unrecognised = ours["accesses"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|access| access["purpose"] == "unrecognised" || access["study"] == "unrecognised");
    assert_eq!(unrecognised.count(), 3, "{ours:#}");
    // Somebody else's report says nothing of this person.
    let other = get(&world, &world.token(Claims { key: 9, ..Claims::default() }), "/v1/me/accesses").await.1;
    assert_eq!(other["accesses"], json!([]));
}

/// Guarantee: a client that says it polls shares one record among its repeats; each request is decided anew, a revocation
/// empties the next one and ends the record, and the person reads how often. Without the header every request is recorded.
#[tokio::test]
async fn polling_shares_a_record() {
    let world = World::new();
    let token = world.token(Claims::default());
    let polling = [("vitalog-polling", "true")];
    let sql = "SELECT count(*) AS n FROM readings";
    for _ in 0..5 {
        let answer = text(send(&world, post(&token, &polling, question(sql))).await).await;
        assert_eq!(answer, "{\"n\":20}\n");
    }
    let during = report(&world).await;
    assert_eq!(during["newest"], 1, "{during:#}");
    assert_eq!(during["accesses"][0]["outcome"], "assume-all-was-read");
    assert!(during["accesses"][0]["repeat_until_us"].as_i64() > during["accesses"][0]["started_us"].as_i64());
    world.revoke();
    let answer = text(send(&world, post(&token, &polling, question(sql))).await).await;
    assert_eq!(answer, "{\"n\":0}\n");
    let after = report(&world).await;
    let access = &after["accesses"][0];
    assert_eq!((&access["repeats"], &access["rows"]), (&json!(5), &json!(100)), "{after:#}");
    assert_eq!(access["outcome"], "released");
    assert!(!access["withdrawn"].is_null());
    assert_eq!(after["accesses"][1]["outcome"], "refused");
    let (_, bundle) = as_fhir(&world, "application/fhir+json", "/v1/me/accesses").await;
    let repeats = json!({"type": "repeats", "valueString": "5"});
    let details = bundle["entry"][0]["resource"]["entity"][1]["detail"].clone();
    assert!(details.as_array().unwrap().contains(&repeats), "{details}");
    for (value, status) in [("yes", StatusCode::BAD_REQUEST), ("", StatusCode::BAD_REQUEST)] {
        let response = send(&world, post(&token, &[("vitalog-polling", value)], question(sql))).await;
        assert_eq!(response.status(), status);
    }
}
