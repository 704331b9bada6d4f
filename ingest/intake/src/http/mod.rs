//! `POST /v1/frames`: one frame or a CBOR sequence in, one verdict per frame out.
//!
//! What it is: the HTTP door. 200 is sent when all frames of the body are decided and durable; the body of the answer
//! says for each what became of it. Under pressure (503) or above a rate (429) nothing of the body was taken and
//! `Retry-After` says when to come back. Every error is JSON: `{"error":CODE,"hint":TEXT}`.
//!
//! What it is not: it asks for no login. The frames are signed; whoever carries them needs no trust.
//!
//! | limit | default | answer |
//! |---|---|---|
//! | body bytes ([`HttpOptions::body_bytes_max`]) | 16 MiB | 413 |
//! | frames per body ([`HttpOptions::frames_max`]) | 16,384 | 413 |
//! | time to send the body ([`HttpOptions::body_timeout`]) | 60 s | 408 |
//! | bodies held at a time ([`HttpOptions::bodies_bytes_max`]) | 128 MiB | 503 |
//! | requests per address ([`HttpOptions::address_rate`]) | 5,000/s, burst 20,000 | 429 |
//! | frames per device and address ([`HttpOptions::device_rate`]) | 50,000/s, burst 200,000 | 429 |
//! | time to wait for verdicts ([`HttpOptions::verdict_timeout`]) | 60 s | 503 |
//!
//! `limits.rs` holds the buckets, `encoding.rs` unpacks gzip and zstd, `answer.rs` writes the JSON.

mod answer;
mod encoding;
mod limits;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use axum::routing::post;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

pub use limits::Rate;

use crate::admission::{Admission, Allowed, Door, Reply, Via};
use crate::cut::cut;
use crate::metrics::Metrics;
use crate::room::{Room, Share};
use crate::tls::Peer;
use answer::Problem;
use limits::Limiter;

/// Limits of the HTTP door. See the module's table.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Most bytes in one body. Default 16 MiB: days of readings of one device.
    pub body_bytes_max: usize,
    /// Most frames in one body. Default 16,384: a quarter of the admission queue.
    pub frames_max: usize,
    /// Most time to send a body. Default 60 s: a slow phone uplink, not a held socket.
    pub body_timeout: Duration,
    /// Most bytes of bodies held at a time over all requests. Default 128 MiB.
    pub bodies_bytes_max: u64,
    /// Requests per address. Default 5,000/s with a burst of 20,000. Behind a proxy all senders are one address.
    pub address_rate: Rate,
    /// Frames per device and address. Default 50,000/s with a burst of 200,000.
    pub device_rate: Rate,
    /// Most time to wait for the pipeline. Default 60 s; then 503, and the frames may be sent again (`DUP` is success).
    pub verdict_timeout: Duration,
    /// Where to count.
    pub metrics: Arc<Metrics>,
}

impl HttpOptions {
    /// The defaults, counting into `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            body_bytes_max: 16 << 20,
            frames_max: 16_384,
            body_timeout: Duration::from_secs(60),
            bodies_bytes_max: 128 << 20,
            address_rate: Rate { per_second: 5_000.0, burst: 20_000.0 },
            device_rate: Rate { per_second: 50_000.0, burst: 200_000.0 },
            verdict_timeout: Duration::from_secs(60),
            metrics,
        }
    }
}

/// The route `POST /v1/frames`. Other methods there are answered 405 in JSON. The router has no fallback of its own,
/// so that it can be merged; use [`not_found`] as the fallback of the whole.
///
/// The sender's address is taken from `ConnectInfo<Peer>` or `ConnectInfo<SocketAddr>`; without either, all senders
/// are one.
pub fn router(admission: Admission, options: HttpOptions) -> Router {
    let limiter = Limiter::new(options.address_rate, options.device_rate);
    let room = Room::new(options.bodies_bytes_max);
    let state = Arc::new(Shared { admission, limiter, room, options });
    Router::new().route("/v1/frames", post(frames).fallback(method_not_allowed)).with_state(state)
}

/// 404 in JSON: the fallback for a router that has this door among others.
pub async fn not_found(method: Method, uri: Uri) -> Response {
    Problem::new(StatusCode::NOT_FOUND, "not-found", format!("no {method} {}", uri.path())).response()
}

async fn method_not_allowed(method: Method) -> Response {
    let hint = format!("{method} is not allowed here, use POST");
    let mut response = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", hint).response();
    response.headers_mut().insert(header::ALLOW, ::http::HeaderValue::from_static("POST"));
    response
}

struct Shared {
    admission: Admission,
    limiter: Limiter,
    room: Arc<Room>,
    options: HttpOptions,
}

async fn frames(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let mut response = match take(&shared, request).await {
        Ok(response) => response,
        Err(problem) => problem.response(),
    };
    if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        // RFC 9110 15.5.16: says what would have been taken.
        let accepted = ::http::HeaderValue::from_static(encoding::ACCEPTED);
        response.headers_mut().insert(header::ACCEPT_ENCODING, accepted);
    }
    shared.options.metrics.http_answer(response.status());
    response
}

async fn take(shared: &Shared, request: Request) -> Result<Response, Problem> {
    let options = &shared.options;
    let peer = peer_of(&request);
    let address = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    shared.limiter.request(address, Instant::now()).map_err(|fast| limited(options, fast))?;
    check_content_type(request.headers())?;
    check_content_length(request.headers(), options.body_bytes_max)?;
    let encoding = encoding::of(request.headers())?;
    let mut share = shared.room.share();
    let reading = read_body(request.into_body(), options.body_bytes_max, &mut share);
    let body = match tokio::time::timeout(options.body_timeout, reading).await {
        Ok(body) => body?,
        Err(_) => {
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", "body came too slowly"));
        }
    };
    options.metrics.body(Door::Http, body.len());
    let (body, share) = encoding::unpack(encoding, body, options.body_bytes_max, share).await?;
    let cut = cut(&body, None, options.frames_max)
        .map_err(|error| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-many-frames", error.to_string()))?;
    let now = Instant::now();
    shared.limiter.frames(address, &cut.frames_by_device(), now).map_err(|fast| limited(options, fast))?;
    let reply = decide(shared, cut.frames.clone(), peer).await?;
    let verdicts = cut.complete(&reply);
    drop(share);
    options.metrics.verdicts(Door::Http, &verdicts);
    if verdicts.iter().all(|verdict| verdict.code.is_retry()) {
        return Err(Problem::retry(StatusCode::SERVICE_UNAVAILABLE, "retry-after", "nothing was taken", 1));
    }
    Ok(answer::verdicts(&verdicts))
}

/// Offers the frames and waits for their verdicts; no frames need no pipeline.
async fn decide(shared: &Shared, frames: Vec<Bytes>, peer: Option<SocketAddr>) -> Result<Reply, Problem> {
    const BUSY: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
    if frames.is_empty() {
        return Ok(Reply::default());
    }
    let via = Via { door: Door::Http, peer, allowed: Allowed::All, topic_device: None };
    let receiver = shared.admission.offer(frames, via).map_err(|pressure| {
        shared.options.metrics.pressure(Door::Http);
        let code = if pressure.closed { "closed" } else { "retry-after" };
        Problem::retry(BUSY, code, format!("nothing was taken: {pressure}"), pressure.retry_after_s)
    })?;
    match tokio::time::timeout(shared.options.verdict_timeout, receiver).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(_)) => Err(Problem::retry(BUSY, "closed", "closing, nothing was promised: send again", 5)),
        Err(_) => {
            Err(Problem::retry(BUSY, "verdict-timeout", "not decided in time: send again, DUP is success", 5))
        }
    }
}

fn limited(options: &HttpOptions, fast: limits::TooFast) -> Problem {
    options.metrics.limited(fast.by);
    let hint = format!("too fast for one {}, nothing was taken", fast.by);
    Problem::retry(StatusCode::TOO_MANY_REQUESTS, "rate-limited", hint, fast.retry_after_s)
}

fn peer_of(request: &Request) -> Option<SocketAddr> {
    let extensions = request.extensions();
    match extensions.get::<ConnectInfo<Peer>>() {
        Some(ConnectInfo(Peer(address))) => Some(*address),
        None => extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| *address),
    }
}

/// `application/cose` or `application/cbor-seq`, with whatever parameters.
fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    for known in ["application/cose", "application/cbor-seq"] {
        if essence.eq_ignore_ascii_case(known) {
            return Ok(());
        }
    }
    let hint = "send application/cose; cose-type=\"cose-sign1\" or application/cbor-seq";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type", hint))
}

/// Refuses by the announced length, before a byte of the body is read.
fn check_content_length(headers: &HeaderMap, body_bytes_max: usize) -> Result<(), Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    match announced.and_then(|text| text.parse::<u64>().ok()) {
        Some(bytes) if bytes > body_bytes_max as u64 => Err(too_large(body_bytes_max)),
        _ => Ok(()),
    }
}

fn too_large(body_bytes_max: usize) -> Problem {
    let hint = format!("a body has at most {body_bytes_max} bytes once unpacked, send several");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", hint)
}

fn too_many_bodies() -> Problem {
    let hint = "too many bodies at a time, nothing was taken";
    Problem::retry(StatusCode::SERVICE_UNAVAILABLE, "retry-after", hint, 1)
}

/// Reads the body, each chunk against the body's limit and against the room over all requests.
async fn read_body(mut body: Body, body_bytes_max: usize, share: &mut Share) -> Result<Bytes, Problem> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut len = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "body", "the body broke off"))?;
        let Ok(chunk) = frame.into_data() else { continue };
        len += chunk.len();
        if len > body_bytes_max {
            return Err(too_large(body_bytes_max));
        }
        if !share.grow(chunk.len() as u64) {
            return Err(too_many_bodies());
        }
        match first.take() {
            None if rest.is_empty() => first = Some(chunk),
            None => rest.extend_from_slice(&chunk),
            Some(before) => {
                rest.extend_from_slice(&before);
                rest.extend_from_slice(&chunk);
            }
        }
    }
    Ok(first.unwrap_or_else(|| rest.freeze()))
}

#[cfg(test)]
mod tests;
