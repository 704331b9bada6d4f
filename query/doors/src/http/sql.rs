//! `POST /v1/sql`: a statement in, rows out. Bytes are hashed as they go; a result that ends well leaves a
//! manifest, one that does not ends the connection without a final chunk.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, header};
use query_audit::{Refused, Voucher};
use query_consents::{Ask, Refusal};
use query_engine::gate::SQL_BYTES_MAX;
use query_engine::{EngineError, RunOptions, Running};
use schemas_consent::Request;
use schemas_evidence::answer::{AnswerBytes, Hex32};
use serde::Deserialize;
use thiserror::Error;

use super::{DoorState, MANIFEST, POLLING, PURPOSE, STUDY, body_of, only, refused};
use crate::answer::Answer;
use crate::encode::{EncodeError, Encoder, Format};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    sql: String,
    #[serde(default)]
    as_of: Option<u64>,
}

/// Answers a statement.
pub(super) async fn ask(State(state): State<DoorState>, headers: HeaderMap, body: Body) -> Response {
    let begun = Instant::now();
    let metrics = state.metrics.clone();
    match answer(state, &headers, body, begun).await {
        Ok(response) => response,
        Err(answer) => {
            metrics.requests.with_label_values(&[answer.code()]).inc();
            answer.into_response()
        }
    }
}

async fn answer(
    state: DoorState,
    headers: &HeaderMap,
    body: Body,
    begun: Instant,
) -> Result<Response, Answer> {
    let token = state.authenticate(headers)?;
    let format = Format::accepted(accept(headers).as_deref()).ok_or_else(Answer::not_acceptable)?;
    let question: Question = serde_json::from_slice(&body_of(body).await?).map_err(Answer::bad_request)?;
    let ask = Ask::rows(&token, (state.clock)()).named(only(headers, &PURPOSE)?, only(headers, &STUDY)?);
    let warrant = match state.consents.warrant(ask) {
        Ok(warrant) => warrant,
        Err(refusal) => {
            record_refusal(&state, &ask, &question.sql, refusal).await;
            return Err(refused(refusal));
        }
    };
    let polls = polls(headers)? && question.as_of.is_none();
    let started = if polls {
        state.engine.poll(warrant, &question.sql).await
    } else {
        state.engine.run(warrant, &question.sql, RunOptions { as_of: question.as_of }).await
    };
    let mut running = started.map_err(|error| Answer::from(&error))?;
    let encoder = Encoder::new(format, &running.schema()).map_err(Answer::internal)?;
    // An error before the first row can still be a proper answer.
    let first = match running.next().await {
        Some(Err(error)) => return Err(Answer::from(&error)),
        Some(Ok(batch)) => Some(batch),
        None => None,
    };
    let id = HeaderValue::from_str(running.id()).map_err(Answer::internal)?;
    let sending =
        Sending { state, running, first, encoder: Some(encoder), format, begun, digest: Digest::default() };
    let chunks = stream::unfold(Some(sending), |sending| async move {
        let mut sending = sending?;
        match sending.next_chunk().await {
            Ok(Some(chunk)) => Some((Ok(chunk), Some(sending))),
            Ok(None) => None,
            Err(error) => {
                sending.broke_off(&error);
                Some((Err(error), None))
            }
        }
    });
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(MANIFEST, id);
    Ok(response)
}

/// Whether the client says that it will ask the same again soon.
fn polls(headers: &HeaderMap) -> Result<bool, Answer> {
    match only(headers, &POLLING)? {
        None => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Answer::bad_request("the polling header is `true` or left out")),
    }
}

/// All `Accept` headers as one list, which is what several of them mean.
fn accept(headers: &HeaderMap) -> Option<String> {
    let values: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// A party with a good token asked for what the token, a study or a role does not give: that is an attempt, and
/// those who ever spoke to this party shall read of it.
async fn record_refusal(state: &DoorState, ask: &Ask<'_>, sql: &str, refusal: Refusal) {
    let (token, (purpose, study)) = (ask.token, ask.stated());
    let request = Request {
        principal: token.iss,
        vouched: token.vouched.clone(),
        purpose: purpose.to_owned(),
        study: study.map(str::to_owned),
        resolution: ask.resolution,
        use_: ask.use_,
        now_us: ask.now_us,
    };
    let refused = Refused {
        recipient: token.iss,
        voucher: token.vouched.as_ref().map(|vouched| Voucher::of(vouched, &state.consents.register())),
        token_id: token.jti.clone(),
        purpose: purpose.to_owned(),
        study: study.map(str::to_owned),
        sql: sql.chars().take(SQL_BYTES_MAX).collect(),
        subjects: state.consents.named(&request),
        reason: refusal.code().to_owned(),
        epoch: state.consents.epoch(),
        at_us: ask.now_us,
    };
    let audit = state.audit.clone();
    match tokio::task::spawn_blocking(move || audit.refused(refused)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!(%error, "refusal not recorded"),
        Err(error) => tracing::error!(%error, "refusal not recorded"),
    }
}

/// Why a result broke off. Only the log sees it; the client sees a connection that ends without its end.
#[derive(Debug, Error)]
enum Broken {
    #[error("{0}")]
    Query(#[from] EngineError),
    #[error("encoding: {0}")]
    Encode(#[from] EncodeError),
    #[error("task: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("manifest: {0}")]
    Manifest(#[from] query_engine::ManifestError),
    #[error("ended without a manifest")]
    NoManifest,
}

impl Broken {
    fn code(&self) -> &'static str {
        match self {
            Self::Query(error) => error.code(),
            _ => "INTERNAL",
        }
    }
}

#[derive(Default)]
struct Digest {
    hasher: blake3::Hasher,
    bytes: u64,
}

struct Sending {
    /// Let go of first: whoever has the engine last waits for what runs.
    running: Running,
    state: DoorState,
    first: Option<arrow::array::RecordBatch>,
    encoder: Option<Encoder>,
    format: Format,
    begun: Instant,
    digest: Digest,
}

impl Sending {
    /// The next bytes to send; `None` after the last.
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, Broken> {
        while let Some(encoder) = self.encoder.take() {
            let batch = match self.first.take() {
                Some(batch) => Some(batch),
                None => self.running.next().await.transpose()?,
            };
            let (encoder, bytes) = tokio::task::spawn_blocking(move || encode(encoder, batch)).await??;
            self.digest.hasher.update(&bytes);
            self.digest.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            self.state.metrics.bytes.inc_by(u64::try_from(bytes.len()).unwrap_or(0));
            if encoder.is_none() {
                // Before the last bytes, so that who has them all can also have the manifest.
                self.keep_manifest().await?;
            }
            self.encoder = encoder;
            if !bytes.is_empty() {
                return Ok(Some(Bytes::from(bytes)));
            }
        }
        Ok(None)
    }

    async fn keep_manifest(&mut self) -> Result<(), Broken> {
        let manifest = self.running.take_manifest().ok_or(Broken::NoManifest)?;
        let result = AnswerBytes {
            media: self.format.media().to_owned(),
            bytes: self.digest.bytes,
            blake3: Hex32(*self.digest.hasher.finalize().as_bytes()),
        };
        let manifests = Arc::clone(&self.state.manifests);
        tokio::task::spawn_blocking(move || manifests.keep(manifest, result)).await??;
        self.state.metrics.requests.with_label_values(&["OK"]).inc();
        self.state.metrics.seconds.observe(self.begun.elapsed().as_secs_f64());
        Ok(())
    }

    fn broke_off(&self, error: &Broken) {
        self.state.metrics.requests.with_label_values(&[error.code()]).inc();
        tracing::warn!(query = self.running.id(), code = error.code(), %error, "result broke off");
    }
}

/// One batch, or the end.
fn encode(
    mut encoder: Encoder,
    batch: Option<arrow::array::RecordBatch>,
) -> Result<(Option<Encoder>, Vec<u8>), EncodeError> {
    match batch {
        Some(batch) => {
            let bytes = encoder.batch(&batch)?;
            Ok((Some(encoder), bytes))
        }
        None => Ok((None, encoder.finish()?)),
    }
}
