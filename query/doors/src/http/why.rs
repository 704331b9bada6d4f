//! `GET /v1/me/why`: what a party may see of the asking person, by which of their statements, or why not. The person alone may
//! ask, about themselves alone; a recipient gets counts from `consent.explain()` instead.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use http::HeaderMap;
use schemas_consent::{Reason, Request, Resolution, Span, Use, terms};
use schemas_identity::time::format_rfc3339_us;
use schemas_identity::{Did, Register, StatementId};
use schemas_signals::Registry;
use serde::Deserialize;
use serde_json::{Value, json};

use super::DoorState;
use super::reads::private;
use crate::answer::Answer;

/// Most spans in an answer; how many were left out is said.
const SPANS_MAX: usize = 10_000;

/// Who would ask, for what.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    party: String,
    purpose: String,
    #[serde(default)]
    study: Option<String>,
    #[serde(default)]
    resolution: Option<String>,
}

/// Answers for rows through SQL, now.
pub(super) async fn why(
    State(state): State<DoorState>,
    question: Result<Query<Question>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Answer> {
    let token = state.authenticate_person(&headers)?;
    let register = state.consents.register();
    if !register.is_live(&token.iss) {
        return Err(Answer::unauthorized("key no longer in force"));
    }
    let Query(question) = question.map_err(Answer::bad_request)?;
    let request = request(question, (state.clock)())?;
    let why = state.consents.why(&token.iss, &request);
    let left_out = why.spans.len().saturating_sub(SPANS_MAX);
    let spans: Vec<Value> = why.spans.iter().take(SPANS_MAX).map(|span| shown(span, &register)).collect();
    let reason =
        why.reason.map(|reason| json!({"text": reason.to_string(), "statement": statement(&reason)}));
    let answer = json!({
        "party": request.principal, "purpose": request.purpose, "study": request.study,
        "resolution": request.resolution.as_str(), "epoch": why.epoch,
        "may_see": spans, "left_out": left_out, "reason": reason,
    });
    Ok(private(answer))
}

fn request(question: Question, now_us: i64) -> Result<Request, Answer> {
    let principal: Did = question.party.parse().map_err(|_| Answer::bad_request("party is no did:key"))?;
    if !terms::is_purpose(&question.purpose) {
        return Err(Answer::bad_request("purpose is not a known one"));
    }
    let resolution = match question.resolution.as_deref() {
        None => Resolution::Raw,
        Some(text) => {
            Resolution::parse(text).ok_or_else(|| Answer::bad_request("resolution is not a known one"))?
        }
    };
    let (purpose, study) = (question.purpose, question.study);
    Ok(Request { principal, vouched: None, purpose, study, resolution, use_: Use::Rows, now_us })
}

/// A span in names; an open end is null.
fn shown(span: &Span, register: &Register) -> Value {
    let registry = Registry::builtin();
    let signals: Vec<&str> = match span.signals == registry.everything() {
        true => vec!["*"],
        false => span.signals.iter().filter_map(|id| Some(registry.by_id(id)?.name.as_str())).collect(),
    };
    let device = register.device(span.device).map(|device| device.first_id);
    let from = (span.from_us != i64::MIN).then(|| format_rfc3339_us(span.from_us));
    let to = (span.to_us != i64::MAX).then(|| format_rfc3339_us(span.to_us));
    json!({"device": device, "signals": signals, "from": from, "to": to, "by": span.grant})
}

/// The statement a reason rests on, if it is one.
fn statement(reason: &Reason) -> Option<StatementId> {
    match reason {
        Reason::Revoked { by } | Reason::Denied { by } => Some(*by),
        Reason::Frozen { statement } | Reason::Erased { statement } => Some(*statement),
        _ => None,
    }
}
