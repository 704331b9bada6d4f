//! `GET /v1/quarantine` and `POST /v1/quarantine/replay`: for operators, with a token of scope `operate`. What is told is
//! what a refused frame claims of itself; its readings are never shown.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use ingest_pipeline::{Entry, Filter, Reason, Replay};
use schemas_frame::Code;
use schemas_identity::time::format_rfc3339_us;
use schemas_identity::token::Scope;
use serde::Deserialize;
use serde_json::{Value, json};

use super::routes::{App, Shared, problem, unauthorized};

/// Frames of one answer, at most and if not said.
const FRAMES_MAX: usize = 10_000;
const FRAMES_DEFAULT: usize = 1_000;
/// Bytes of frames read for one answer.
const BYTES_MAX: usize = 64 << 20;

/// Which frames.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    code: Option<String>,
    device: Option<String>,
    limit: Option<usize>,
}

impl Asked {
    fn filter(&self) -> Result<Filter, &'static str> {
        let reason = match &self.code {
            None => None,
            Some(text) => {
                let reason = text.parse::<Code>().ok().and_then(Reason::of);
                Some(reason.ok_or("code must be EQUIVOCATION, KEY_REVOKED, SIG_BAD, KEY_UNKNOWN or DECODE")?)
            }
        };
        let device = match &self.device {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| "device must be a short id")?),
        };
        let count_max = self.limit.unwrap_or(FRAMES_DEFAULT).min(FRAMES_MAX);
        Ok(Filter { reason, device, count_max, bytes_max: BYTES_MAX })
    }
}

/// Default deny: `--dev` opens nothing here, and no other scope or party does.
fn refusal(shared: &Shared, headers: &HeaderMap) -> Option<Response> {
    let Some(token) = shared.token(headers) else { return Some(unauthorized()) };
    let is_operator = shared.statements.register().is_operator(&token.iss);
    if token.scope == Scope::Operate && is_operator {
        return None;
    }
    Some(problem(StatusCode::FORBIDDEN, "forbidden", "an operator's token with scope `operate` is needed"))
}

pub(super) async fn show(State(shared): App, headers: HeaderMap, Query(asked): Query<Asked>) -> Response {
    if let Some(refusal) = refusal(&shared, &headers) {
        return refusal;
    }
    let filter = match asked.filter() {
        Ok(filter) => filter,
        Err(message) => return problem(StatusCode::BAD_REQUEST, "bad-request", message),
    };
    let desk = shared.quarantine.clone();
    match tokio::task::spawn_blocking(move || desk.list(&filter)).await {
        Ok(Ok((entries, more))) => {
            let frames: Vec<Value> = entries.iter().map(entry_json).collect();
            Json(json!({"frames": frames, "more": more})).into_response()
        }
        _ => problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the quarantine cannot be read"),
    }
}

fn entry_json(entry: &Entry) -> Value {
    let (device, boot, seq) = match entry.claims {
        Some((device, boot, seq)) => (Some(device), Some(boot), Some(seq)),
        None => (None, None, None),
    };
    json!({
        "id": entry.id.to_string(), "code": entry.id.reason.code(), "received": format_rfc3339_us(entry.received_us),
        "door": entry.door, "device": device, "boot": boot, "seq": seq, "bytes": entry.frame.len(),
    })
}

pub(super) async fn replay(State(shared): App, headers: HeaderMap, Query(asked): Query<Asked>) -> Response {
    if let Some(refusal) = refusal(&shared, &headers) {
        return refusal;
    }
    let filter = match asked.filter() {
        Ok(filter) => filter,
        Err(message) => return problem(StatusCode::BAD_REQUEST, "bad-request", message),
    };
    let (desk, admission) = (shared.quarantine.clone(), shared.admission.clone());
    match tokio::task::spawn_blocking(move || desk.replay(&admission, &filter)).await {
        Ok(Ok(replay)) => Json(replay_json(&replay)).into_response(),
        _ => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the replay did not end: frames that it stored will be DUP at the next",
        ),
    }
}

fn replay_json(replay: &Replay) -> Value {
    let accepted = replay.frames.iter().filter(|frame| frame.verdict.code.is_accepted()).count();
    let frames: Vec<Value> = replay
        .frames
        .iter()
        .map(|frame| {
            let verdict = &frame.verdict;
            json!({
                "id": frame.id.to_string(), "was": frame.id.reason.code(), "device": verdict.device,
                "boot": verdict.boot, "seq": verdict.seq, "code": verdict.code, "flags": verdict.flags,
                "hint": verdict.hint,
            })
        })
        .collect();
    json!({
        "replayed": replay.frames.len(), "accepted": accepted, "undecided": replay.undecided, "more": replay.is_more,
        "frames": frames,
    })
}
