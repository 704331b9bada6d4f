//! The small reads: manifests, the catalogue, and who read me, as our own JSON or as FHIR R4. None of them shows a reading.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use query_audit::{Access, Report, Seen, VouchedRole};
use query_engine::ManifestError;
use schemas_fhir::{Ended, Listing, Withdrawal, searchset, terms};
use schemas_identity::Did;
use schemas_identity::token::Scope;
use schemas_signals::Registry;
use schemas_signals::columns::readings_schema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::DoorState;
use crate::answer::Answer;

/// Accesses on a page if the request does not say.
const PAGE_DEFAULT: usize = 100;

/// A private answer: nobody between may keep it.
pub(super) fn private(value: Value) -> Response {
    let mut response = Json(value).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The manifest of a result, for the one who asked the question.
pub(super) async fn manifest(
    State(state): State<DoorState>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Answer> {
    let token = state.authenticate(&headers)?;
    let manifests = state.manifests.clone();
    let found = tokio::task::spawn_blocking(move || manifests.get(&id, &token.iss))
        .await
        .map_err(Answer::internal)?;
    match found {
        Ok(manifest) => Ok(private(serde_json::to_value(manifest).map_err(Answer::internal)?)),
        Err(ManifestError::NotFound) => Err(Answer::not_found()),
        Err(error) => Err(Answer::internal(error)),
    }
}

/// What can be asked: tables, signals, studies, and how much the asker was granted, in numbers.
pub(super) async fn catalog(State(state): State<DoorState>, headers: HeaderMap) -> Result<Response, Answer> {
    let token = state.authenticate(&headers)?;
    if token.scope != Scope::Sql {
        return Err(Answer::forbidden("scope"));
    }
    let now_us = (state.clock)();
    let signals: Vec<Value> = Registry::builtin()
        .all()
        .iter()
        .map(|signal| {
            json!({"id": signal.id, "name": signal.name, "title": signal.title, "class": signal.class,
                   "unit": signal.unit, "system": signal.system, "code": signal.code,
                   "range": [signal.range_min, signal.range_max]})
        })
        .collect();
    let studies: Vec<Value> = state
        .consents
        .catalog_studies(&token.iss, token.vouched.as_deref(), now_us)
        .into_iter()
        .map(|card| {
            json!({"study": card.study, "title": card.title, "purposes": card.purposes, "duo": card.duo,
                   "member": card.is_member, "open": card.is_open})
        })
        .collect();
    let grants: Vec<Value> = state
        .consents
        .catalog_grants(&token.iss, token.vouched.as_deref(), now_us)
        .into_iter()
        .map(|count| {
            json!({"kind": count.kind, "name": count.name, "purpose": count.purpose,
                   "resolution": count.resolution.as_str(), "export": count.export.as_str(), "people": count.people})
        })
        .collect();
    let columns: Vec<Value> = readings_schema()
        .fields()
        .iter()
        .map(|field| json!({"name": field.name(), "type": field.data_type().to_string()}))
        .collect();
    let sums = ["subject", "device", "signal", "bucket", "n", "min", "max", "mean"];
    Ok(private(json!({
        "tables": [
            {"name": "readings", "columns": columns},
            {"name": "readings_1m", "columns": sums.map(|name| json!({"name": name}))},
            {"name": "readings_1h", "columns": sums.map(|name| json!({"name": name}))},
            {"name": "catalog.signals"}, {"name": "catalog.studies"}, {"name": "catalog.grants"},
        ],
        "signals": signals, "studies": studies, "grants": grants,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    after: Option<u64>,
    #[serde(default)]
    limit: Option<usize>,
}

/// Who read me: every access that concerned the asking person, and nothing of anybody else.
pub(super) async fn accesses(
    State(state): State<DoorState>,
    Query(page): Query<Page>,
    headers: HeaderMap,
) -> Result<Response, Answer> {
    let token = state.authenticate_person(&headers)?;
    let register = state.consents.register();
    if !register.is_live(&token.iss) {
        return Err(Answer::unauthorized("key no longer in force"));
    }
    let subject = register.subject_of(&token.iss);
    let page =
        query_audit::Page { after: page.after.unwrap_or(0), limit: page.limit.unwrap_or(PAGE_DEFAULT) };
    let audit = state.audit.clone();
    let report =
        tokio::task::spawn_blocking(move || audit.report(&subject, page)).await.map_err(Answer::internal)?;
    let mut report = report.map_err(Answer::unavailable)?;
    report.settle(&subject, &state.consents.consent(), &register);
    if !wants_fhir(&headers) {
        return Ok(private(serde_json::to_value(report).map_err(Answer::internal)?));
    }
    let mut response = private(bundle(&report, &subject, register.origin(), page));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(FHIR));
    Ok(response)
}

/// The media type of a FHIR answer, with its version.
const FHIR: &str = "application/fhir+json; fhirVersion=4.0";

/// Whether the request asks for FHIR by name; whoever takes anything gets our own JSON.
fn wants_fhir(headers: &HeaderMap) -> bool {
    let listed = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut media = listed.flat_map(|list| list.split(',')).filter_map(|item| item.split(';').next());
    media.any(|media| media.trim().eq_ignore_ascii_case(terms::MEDIA_TYPE))
}

/// A page of a report as a bundle.
fn bundle(report: &Report, subject: &Did, origin: &str, page: query_audit::Page) -> Value {
    let address = |after: u64| format!("/v1/me/accesses?after={after}&limit={}", page.limit);
    searchset(&Listing {
        subject,
        observer: origin,
        accesses: report.accesses.iter().map(|access| seen(access, subject)).collect(),
        newest: report.newest,
        missing: &report.missing,
        lost: report.lost,
        this: address(page.after),
        next: report.next.map(address),
    })
}

fn role(role: &VouchedRole) -> (&str, &str) {
    (&role.role, &role.title)
}

fn seen<'a>(access: &'a Access, subject: &'a Did) -> schemas_fhir::Access<'a> {
    schemas_fhir::Access {
        subject,
        recipient: &access.recipient,
        issuer: access.vouched.as_ref().map(|vouched| vouched.issuer.as_str()),
        roles: access.vouched.iter().flat_map(|vouched| &vouched.roles).map(role).collect(),
        purpose: &access.purpose,
        study: access.study.as_deref(),
        number: access.number,
        started_us: access.started_us,
        ended_us: access.ended_us,
        signals: &access.signals,
        from_us: access.from_us,
        to_us: access.to_us,
        rows: access.rows,
        repeats: access.repeats,
        ended: match access.outcome {
            Seen::Released => Ended::Released,
            Seen::Error => Ended::Error,
            Seen::Cancelled => Ended::Cancelled,
            Seen::Revoked => Ended::Revoked,
            Seen::AssumeAllWasRead => Ended::Unknown,
            Seen::Refused => Ended::Refused,
        },
        reason: access.reason.as_deref(),
        epoch: access.epoch,
        log_index: access.log_index,
        result_index: access.result_index,
        withdrawn: access
            .withdrawn
            .as_ref()
            .map(|withdrawn| Withdrawal { statement: &withdrawn.statement, log_index: withdrawn.log_index }),
    }
}
