//! Routes that belong to no single room: statements, the log's own files, health and metrics.
//! Frames are `ingest-intake`'s, SQL is `query-doors`'; devices, evidence and the quarantine are next door.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ingest_intake::Admission;
use ingest_lake::Lake;
use ingest_pipeline::{Desk, Standings};
use ingest_statements::{Receipt, Statements};
use prometheus::{Encoder, IntCounterVec, Opts, TextEncoder};
use query_doors::Limiter;
use query_tokens::Tokens;
use schemas_evidence::Ledger;
use schemas_identity::token::Token;
use schemas_identity::{Statement, StatementId};
use serde_json::{Value, json};

use super::clock::{Clock, seconds};
use super::{devices, evidence, quarantine};
use crate::client::now_us;

/// Largest body of a statement.
const STATEMENT_BYTES_MAX: usize = 32 << 10;
/// Statements listed at most.
const STATEMENTS_LISTED_MAX: usize = 10_000;

/// What these routes need.
pub(crate) struct Shared {
    pub(crate) statements: Arc<Statements>,
    pub(crate) lake: Arc<Lake>,
    pub(crate) standings: Standings,
    pub(crate) quarantine: Desk,
    /// For offering quarantined frames again.
    pub(crate) admission: Admission,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) log_directory: PathBuf,
    pub(crate) metrics: prometheus::Registry,
    /// Statements answered, by code.
    pub(crate) statements_total: IntCounterVec,
    /// Says which tokens may be used, as on the query side.
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) clock: Clock,
    pub(crate) is_dev: bool,
    pub(crate) is_ready: AtomicBool,
    pub(crate) is_healthy: Box<dyn Fn() -> bool + Send + Sync>,
}

pub(crate) type App = State<Arc<Shared>>;

/// The counter of statements answered; `OK`, or the code of the refusal.
pub(crate) fn statement_counter(registry: &prometheus::Registry) -> prometheus::Result<IntCounterVec> {
    let options = Opts::new("vitalog_statements_total", "Statements answered");
    let counter = IntCounterVec::new(options, &["code"])?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

/// Who comes with a token is charged to `limiter` as on the query side; statements are signed by themselves, and the log
/// and the probes are for everybody.
pub(crate) fn router(
    shared: Arc<Shared>,
    limiter: Arc<Limiter>,
    door_metrics: query_doors::Metrics,
) -> Router {
    let with_token = Router::new()
        .route("/v1/statements", get(list))
        .route("/v1/statements/{id}", get(show))
        .route("/v1/devices", get(devices::answer))
        .route("/v1/quarantine", get(quarantine::show))
        .route("/v1/quarantine/replay", post(quarantine::replay))
        .route("/v1/evidence", get(evidence::answer))
        .with_state(shared.clone());
    Router::new()
        .route("/v1/statements", post(submit))
        .route("/log/{*path}", get(log_file))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(shared)
        .merge(query_doors::limits::limited(with_token, limiter, door_metrics))
        .layer(DefaultBodyLimit::max(STATEMENT_BYTES_MAX))
}

pub(crate) fn problem(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({"error": {"code": code, "message": message}}))).into_response()
}

pub(crate) fn unauthorized() -> Response {
    problem(StatusCode::UNAUTHORIZED, "unauthorized", "a valid bearer token is needed")
}

impl Shared {
    pub(crate) fn token(&self, headers: &HeaderMap) -> Option<Token> {
        let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
        self.tokens.admit(text, seconds(&self.clock)).ok()
    }
}

async fn submit(State(shared): App, body: String) -> Response {
    // The book and the log are synced: that is disk time, not ours to spend on the async threads.
    let counter = shared.statements_total.clone();
    let decided = tokio::task::spawn_blocking(move || shared.statements.submit(body.trim(), now_us())).await;
    let code = match &decided {
        Ok(Ok(_)) => "OK",
        Ok(Err(refused)) => refused.parts().0,
        Err(_) => "internal",
    };
    counter.with_label_values(&[code]).inc();
    match decided {
        Ok(Ok(receipt)) => (StatusCode::CREATED, Json(receipt_json(&receipt))).into_response(),
        Ok(Err(refused)) => {
            let (code, hint, status) = refused.parts();
            tracing::info!(code, hint, "statement refused");
            problem(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), code, hint)
        }
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the statement was not decided"),
    }
}

fn receipt_json(receipt: &Receipt) -> Value {
    json!({"id": receipt.id, "log_index": receipt.log_index, "epoch": receipt.epoch})
}

fn statement_json(statement: &Statement, receipt: &Receipt) -> Value {
    let fields = statement.body.fields();
    let summary = ["grantee", "grant", "device", "study", "role", "party", "key", "subject", "scope"]
        .iter()
        .find_map(|name| fields.get(*name).map(|value| format!("{name} {value}")))
        .unwrap_or_default();
    json!({
        "id": receipt.id, "kind": statement.body.kind(), "log_index": receipt.log_index, "epoch": receipt.epoch,
        "iat": statement.iat_s, "summary": summary, "fields": fields, "jws": statement.compact,
    })
}

async fn list(
    State(shared): App,
    headers: HeaderMap,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let Some(token) = shared.token(&headers) else { return unauthorized() };
    if query.iter().any(|(name, _)| name == "head") {
        return Json(json!({"head": shared.statements.head(&token.iss)})).into_response();
    }
    let own = shared.statements.of(&token.iss);
    let skipped = own.len().saturating_sub(STATEMENTS_LISTED_MAX);
    let statements: Vec<Value> =
        own.iter().skip(skipped).map(|(statement, receipt)| statement_json(statement, receipt)).collect();
    Json(json!({"statements": statements, "skipped": skipped})).into_response()
}

async fn show(State(shared): App, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let Some(token) = shared.token(&headers) else { return unauthorized() };
    let absent = || problem(StatusCode::NOT_FOUND, "not-found", "no such statement of yours");
    let Ok(id) = id.parse::<StatementId>() else { return absent() };
    let Some((statement, receipt)) = shared.statements.get(&id) else { return absent() };
    let register = shared.statements.register();
    if register.subject_of(&statement.signer) != register.subject_of(&token.iss) {
        return absent();
    }
    Json(statement_json(&statement, &receipt)).into_response()
}

/// The log's own files, exactly as on disk: checkpoint and tiles (C2SP tlog-tiles).
async fn log_file(State(shared): App, Path(path): Path<String>) -> Response {
    let is_plain = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_';
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain)
    };
    let absent = || problem(StatusCode::NOT_FOUND, "not-found", "no such file of the log");
    let is_public = path == "checkpoint" || path.starts_with("tile/");
    if !is_public || !path.split('/').all(is_plain) {
        return absent();
    }
    match tokio::fs::read(shared.log_directory.join(&path)).await {
        Ok(bytes) => {
            let kind =
                if path == "checkpoint" { "text/plain; charset=utf-8" } else { "application/octet-stream" };
            ([(header::CONTENT_TYPE, kind)], bytes).into_response()
        }
        Err(_) => absent(),
    }
}

async fn healthz(State(shared): App) -> Response {
    if (shared.is_healthy)() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "the write-ahead log failed: restart to recover it\n").into_response()
}

async fn readyz(State(shared): App) -> Response {
    if shared.is_ready.load(Ordering::Acquire) && (shared.is_healthy)() && shared.lake.has_room() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
}

async fn metrics(State(shared): App) -> Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&shared.metrics.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", "metrics cannot be encoded"),
    }
}
