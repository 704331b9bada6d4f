//! People of an identity provider at the door: what they see hangs on their token now, and whom they looked at reads who they
//! were.

use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::accesses::structure;
use super::world::{Claims, ISSUER, World};
use super::{get, post, question, refusal, send, text};

const COUNT: &str = "SELECT count(*) AS n FROM readings";
const TREAT: [(&str, &str); 1] = [("vitalog-purpose", "TREAT")];

/// Rows that a token sees now, asked for treatment.
async fn seen(world: &World, token: &str) -> u64 {
    let response = send(world, post(token, &TREAT, question(COUNT))).await;
    assert_eq!(response.status(), StatusCode::OK);
    let answer: Value = serde_json::from_str(&text(response).await).unwrap();
    answer["n"].as_u64().unwrap()
}

/// Guarantee (F7): who leaves a group sees nothing with the next token, who leaves the organisation nothing once the last token
/// is too old, however long its `exp`; and a role that the operator ends is ended for all of them.
#[tokio::test]
async fn leaving_the_organisation() {
    let world = World::new().with_provider();
    let member = world.provided("maria", &["ward"], 10);
    assert_eq!(seen(&world, &member).await, 0);
    world.grant_role("clinician");
    assert_eq!(seen(&world, &member).await, 20);
    // The same person, asked for again: the claim is gone, or never was the one that the table names.
    for groups in [&[][..], &["Ward"], &["clinician"], &["other"]] {
        assert_eq!(seen(&world, &world.provided("maria", groups, 5)).await, 0, "{groups:?}");
    }
    assert_eq!(seen(&world, &world.provided("maria", &["ward"], 899)).await, 20);
    let old = send(&world, post(&world.provided("maria", &["ward"], 900), &TREAT, question(COUNT))).await;
    assert_eq!(refusal(old).await, (StatusCode::UNAUTHORIZED, "UNAUTHORIZED".to_owned()));
    world.role(Some(1));
    assert_eq!(seen(&world, &member).await, 0);
    world.role(None);
    assert_eq!(seen(&world, &member).await, 20);
    world.revoke();
    assert_eq!(seen(&world, &member).await, 0);
}

/// Guarantee: a running result ends with an error when the operator ends the role it rests on.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_result_ends_with_its_role() {
    let world = World::with_rows(3_000_000).with_provider();
    world.grant_role("clinician");
    let token = world.provided("maria", &["ward"], 10);
    let mut doomed = send(&world, post(&token, &TREAT, question("SELECT * FROM readings"))).await.into_body();
    assert!(doomed.frame().await.unwrap().is_ok());
    world.role(Some(1));
    let mut is_broken = false;
    while let Some(frame) = doomed.frame().await {
        is_broken = frame.is_err();
    }
    assert!(is_broken, "the result of an ended role came to its end");
}

/// Guarantee: the person reads who looked at them in words they can use: the role's title, the provider, and a name that is the
/// same each time; in our JSON and as FHIR. Attempts that were refused too.
#[tokio::test]
async fn the_report_names_the_role() {
    let world = World::new().with_provider();
    world.grant_role("clinician");
    let maria = world.provided("maria", &["ward"], 10);
    seen(&world, &maria).await;
    seen(&world, &world.provided("maria", &["ward", "x"], 9)).await;
    let refused = send(&world, post(&maria, &[("vitalog-purpose", "HRESCH")], question(COUNT))).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let report = get(&world, &world.subject_token(), "/v1/me/accesses").await.1;
    let accesses = report["accesses"].as_array().unwrap();
    let expected = json!({"issuer": ISSUER, "roles": [{"role": "clinician", "title": "Doctor of the ward"}]});
    assert_eq!(accesses.len(), 3, "{report:#}");
    for access in accesses {
        assert_eq!(access["vouched"], expected, "{access}");
        assert_eq!(access["recipient"], accesses[0]["recipient"]);
        assert!(access["recipient"].as_str().unwrap().starts_with("did:key:z6Mk"));
    }
    assert_eq!((&accesses[0]["rows"], &accesses[2]["outcome"]), (&json!(20), &json!("refused")));
    assert_eq!(
        (&accesses[2]["reason"], &accesses[2]["purpose"]),
        (&json!("other-purpose"), &json!("HRESCH"))
    );
    // Who has a key is named by it alone, as before.
    text(send(&world, post(&world.token(Claims::default()), &[], question(COUNT))).await).await;
    let report = get(&world, &world.subject_token(), "/v1/me/accesses").await.1;
    assert!(report["accesses"][3].get("vouched").is_none());
    let request = http::Request::get("/v1/me/accesses")
        .header("authorization", format!("Bearer {}", world.subject_token()))
        .header("accept", "application/fhir+json")
        .body(axum::body::Body::empty())
        .unwrap();
    let bundle: Value = serde_json::from_str(&text(send(&world, request).await).await).unwrap();
    let agent = &bundle["entry"][0]["resource"]["agent"][0];
    assert_eq!(agent["role"], json!([{"text": "Doctor of the ward (clinician)"}]));
    assert_eq!(agent["who"]["identifier"]["assigner"]["display"], ISSUER);
    world.revoke();
    let after = get(&world, &world.subject_token(), "/v1/me/accesses").await.1;
    assert!(!after["accesses"][0]["withdrawn"].is_null(), "{after:#}");
    let Some(definitions) = structure::definitions("the_report_names_the_role") else { return };
    assert_eq!(definitions.problems(&bundle), Vec::<String>::new());
}

/// Guarantee: headers choose within what the provider's people may name and never widen it; what is told to the person alone is
/// not told to somebody without a key; the rest works as for everybody.
#[tokio::test]
async fn people_without_a_key() {
    let world = World::new().with_provider();
    world.grant_role("clinician");
    let maria = world.provided("maria", &["ward"], 10);
    for headers in [
        &[][..],
        &[("vitalog-purpose", "HRESCH")],
        &[("vitalog-purpose", "treat")],
        &[("vitalog-purpose", "TREAT"), ("vitalog-study", "sleep")],
        &[("vitalog-study", "sleep")],
    ] {
        let response = send(&world, post(&maria, headers, question(COUNT))).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{headers:?}");
    }
    for path in ["/v1/me/accesses", "/v1/me/why?party=x&purpose=TREAT"] {
        assert_eq!(get(&world, &maria, path).await.0, StatusCode::FORBIDDEN, "{path}");
    }
    let catalog = get(&world, &maria, "/v1/catalog").await.1;
    let role = json!({"kind": "role", "name": "clinician", "purpose": "TREAT", "resolution": "raw", "export": "rows", "people": 1});
    assert_eq!(catalog["grants"], json!([role]));
    let nobody = get(&world, &world.provided("maria", &[], 9), "/v1/catalog").await.1;
    assert_eq!(nobody["grants"], json!([]));
    let listed = get(&world, &maria, "/v1/tokens").await.1;
    assert_eq!(listed["tokens"].as_array().unwrap().len(), 2, "{listed:#}");
    assert_eq!(listed["tokens"][0]["vouched_by"], ISSUER);
    let end = http::Request::delete("/v1/tokens/*")
        .header("authorization", format!("Bearer {maria}"))
        .body(axum::body::Body::empty())
        .unwrap();
    assert_eq!(send(&world, end).await.status(), StatusCode::OK);
    assert_eq!(get(&world, &maria, "/v1/catalog").await.0, StatusCode::UNAUTHORIZED);
    let other = world.provided("josef", &["ward"], 10);
    assert_eq!(seen(&world, &other).await, 20);
}
