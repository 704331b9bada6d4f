//! The evidence of one stored frame, put together from lake and log; an outsider checks it without us.

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ingest_lake::Place;
use schemas_evidence::evidence::{BatchPath, Evidence};
use schemas_frame::Frame;
use schemas_identity::token::Token;
use schemas_identity::{BootId, ShortId};
use serde::Deserialize;

use super::routes::{App, Shared, problem, unauthorized};
use crate::client::now_us;

/// Which frame.
#[derive(Deserialize)]
pub(crate) struct Wanted {
    device: ShortId,
    boot: BootId,
    seq: u64,
}

struct Refusal(StatusCode, &'static str, &'static str);

const ABSENT: Refusal = Refusal(StatusCode::NOT_FOUND, "not-found", "no such frame that you may see");
const BROKEN: Refusal =
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the stored evidence cannot be read: run audit");
const NOT_YET: Refusal = Refusal(
    StatusCode::CONFLICT,
    "not-yet",
    "the frame is durable, its batch is not sealed yet: ask again in some seconds",
);

fn broken(error: impl std::fmt::Display) -> Refusal {
    tracing::error!(%error, "evidence cannot be made");
    BROKEN
}

/// For the device itself, its maker, an operator, and whoever wore it then.
pub(crate) async fn answer(State(shared): App, headers: HeaderMap, Query(wanted): Query<Wanted>) -> Response {
    let Some(token) = shared.token(&headers) else { return unauthorized() };
    let made = tokio::task::spawn_blocking(move || make(&shared, &token, &wanted)).await;
    match made {
        Ok(Ok(bytes)) => ([(header::CONTENT_TYPE, "application/cbor")], bytes).into_response(),
        Ok(Err(Refusal(status, code, message))) => problem(status, code, message),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the evidence was not made"),
    }
}

fn make(shared: &Shared, token: &Token, wanted: &Wanted) -> Result<Vec<u8>, Refusal> {
    let register = shared.statements.register();
    let device = register.device_by_kid(wanted.device).ok_or(ABSENT)?;
    let stored = shared.lake.find(device.number.0, *wanted.boot.as_bytes(), wanted.seq).map_err(broken)?;
    let stored = stored.ok_or(ABSENT)?;
    let frame = Frame::parse(&stored.frame).map_err(broken)?;
    let person = register.subject_of(&token.iss);
    let t0_us = frame.wall_us().unwrap_or_else(now_us);
    let may_see = register.is_operator(&token.iss)
        || device.maker == token.iss
        || device.keys.iter().any(|key| key.key == *token.iss.key())
        || register.binding_at(device.number, t0_us).is_some_and(|binding| binding.subject == person);
    if !may_see {
        return Err(ABSENT);
    }
    let Place::Batch { id, leaf, entry_index } = stored.place else { return Err(NOT_YET) };
    let (size, path) = shared.lake.inclusion(&id, leaf).map_err(broken)?.ok_or(BROKEN)?;
    let mut entries = shared.ledger.entries(entry_index, entry_index + 1).map_err(broken)?;
    let evidence = Evidence {
        frame: stored.frame.to_vec(),
        enrolment: device.enrolment.clone(),
        path: BatchPath { index: u64::from(leaf), size, path },
        entry: entries.pop().ok_or(BROKEN)?,
        proof: shared.ledger.tlog_proof(entry_index).map_err(broken)?,
        anchors: Vec::new(),
    };
    evidence.to_bytes().map_err(broken)
}
