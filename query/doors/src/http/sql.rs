//! `POST /v1/sql`: a statement in, rows out. Bytes are hashed as they go; a result that ends well leaves a
//! manifest, one that does not ends the connection without a final chunk.

use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, header};
use query_consents::Ask;
use query_engine::{EngineError, ManifestResult, RunOptions, Running};
use serde::Deserialize;
use thiserror::Error;

use super::{DoorState, MANIFEST, PURPOSE, STUDY, body_of, only, refused};
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

async fn answer(state: DoorState, headers: &HeaderMap, body: Body, begun: Instant) -> Result<Response, Answer> {
    let token = state.authenticate(headers)?;
    let format = Format::accepted(only(headers, &header::ACCEPT)?).ok_or_else(Answer::not_acceptable)?;
    let question: Question = serde_json::from_slice(&body_of(body).await?).map_err(Answer::bad_request)?;
    let ask = Ask::rows(&token, (state.clock)()).named(only(headers, &PURPOSE)?, only(headers, &STUDY)?);
    let warrant = state.consents.warrant(ask).map_err(refused)?;
    let options = RunOptions { as_of: question.as_of };
    let mut running =
        state.engine.run(warrant, &question.sql, options).await.map_err(|error| Answer::from(&error))?;
    let encoder = Encoder::new(format, &running.schema()).map_err(Answer::internal)?;
    // An error before the first row can still be a proper answer.
    let first = match running.next().await {
        Some(Err(error)) => return Err(Answer::from(&error)),
        Some(Ok(batch)) => Some(batch),
        None => None,
    };
    let id = HeaderValue::from_str(running.id()).map_err(Answer::internal)?;
    let sending = Sending { state, running, first, encoder: Some(encoder), format, begun, digest: Digest::default() };
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
    state: DoorState,
    running: Running,
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
        let mut manifest = self.running.take_manifest().ok_or(Broken::NoManifest)?;
        manifest.result = Some(ManifestResult {
            media: self.format.media().to_owned(),
            bytes: self.digest.bytes,
            blake3: self.digest.hasher.finalize().to_hex().to_string(),
        });
        let manifests = self.state.manifests.clone();
        tokio::task::spawn_blocking(move || manifests.keep(&manifest)).await??;
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
