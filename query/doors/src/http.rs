//! The HTTP door: `POST /v1/sql`, `GET /v1/manifests/{id}`, `GET /v1/catalog`, `GET /v1/me/accesses`, `GET /v1/me/why`,
//! `GET /v1/tokens`, `DELETE /v1/tokens/{jti}`.
//! Identity comes from the bearer token alone; the headers `Vitalog-Study` and `Vitalog-Purpose` may repeat what
//! the token says, or choose from what a token of an identity provider allows, and never widen it. `Vitalog-Polling: true` says that the same will be asked again soon: repeats within a
//! quarter of an hour share one audit record, each decided anew.

mod reads;
mod sql;
#[cfg(test)]
mod tests;
mod tokens;
mod why;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{delete, get, post};
use http::{HeaderMap, HeaderName, header};
use query_audit::Audit;
use query_consents::{Consents, Refusal};
use query_engine::{Clock, Engine, Manifests};
use query_tokens::Tokens;
use schemas_identity::token::{Scope, Token};

use crate::answer::Answer;
use crate::limits::{Limiter, limited};
use crate::metrics::Metrics;

/// Largest request body, bytes: the longest statement with every character escaped.
pub const BODY_BYTES_MAX: usize = 512 * 1024;
/// Longest time a body may take to arrive.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// Carries the id of the result's manifest.
const MANIFEST: HeaderName = HeaderName::from_static("vitalog-manifest");
const STUDY: HeaderName = HeaderName::from_static("vitalog-study");
/// `true`: the same statement will be asked again soon, so repeats may share one audit record.
const POLLING: HeaderName = HeaderName::from_static("vitalog-polling");
const PURPOSE: HeaderName = HeaderName::from_static("vitalog-purpose");

/// What the door needs.
#[derive(Clone)]
pub struct DoorState {
    /// Answers statements.
    pub engine: Arc<Engine>,
    /// Makes warrants.
    pub consents: Arc<Consents>,
    /// Tells people who read them.
    pub audit: Arc<Audit>,
    /// Signs, keeps and proves manifests.
    pub manifests: Arc<Manifests>,
    /// Says which tokens may be used.
    pub tokens: Arc<Tokens>,
    /// Says how often.
    pub limiter: Arc<Limiter>,
    /// The present.
    pub clock: Clock,
    /// Counters.
    pub metrics: Metrics,
}

impl std::fmt::Debug for DoorState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DoorState").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

/// The routes of the query side.
pub fn router(state: DoorState) -> Router {
    let (limiter, metrics) = (state.limiter.clone(), state.metrics.clone());
    let routes = Router::new()
        .route("/v1/sql", post(sql::ask))
        .route("/v1/manifests/{id}", get(reads::manifest))
        .route("/v1/catalog", get(reads::catalog))
        .route("/v1/me/accesses", get(reads::accesses))
        .route("/v1/me/why", get(why::why))
        .route("/v1/tokens", get(tokens::list))
        .route("/v1/tokens/{jti}", delete(tokens::revoke))
        .with_state(state);
    limited(routes, limiter, metrics)
}

impl DoorState {
    /// Who asks, by the bearer token; one request of theirs.
    fn authenticate(&self, headers: &HeaderMap) -> Result<Token, Answer> {
        let value = only(headers, &header::AUTHORIZATION)?.ok_or_else(|| Answer::unauthorized("no token"))?;
        let (scheme, token) =
            value.split_once(' ').ok_or_else(|| Answer::unauthorized("no bearer scheme"))?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Answer::unauthorized("not a bearer token"));
        }
        let now_s = (self.clock)().div_euclid(1_000_000);
        let token = self.tokens.admit(token.trim(), now_s).map_err(Answer::unauthorized)?;
        if let Err(fast) = self.limiter.party(&token.iss, Instant::now()) {
            self.metrics.limited.with_label_values(&[fast.by]).inc();
            return Err(Answer::too_fast(fast.retry_after_s, fast.by));
        }
        Ok(token)
    }

    /// The same for what is told to the person alone that it is about: their own key must have signed the token.
    fn authenticate_person(&self, headers: &HeaderMap) -> Result<Token, Answer> {
        let token = self.authenticate(headers)?;
        if token.scope != Scope::Sql {
            return Err(Answer::forbidden("scope"));
        }
        if token.vouched.is_some() {
            return Err(Answer::forbidden("nobody's own data: vouched for by an identity provider"));
        }
        Ok(token)
    }
}

/// The one value of a header, if it is there. Twice the same header is refused: which of the two would count?
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Answer> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Answer::bad_request("header given twice"));
    }
    value.to_str().map(Some).map_err(Answer::bad_request)
}

/// A refused warrant, for the outside.
fn refused(refusal: Refusal) -> Answer {
    match refusal {
        Refusal::Expired | Refusal::KeyRevoked | Refusal::TokenRevoked => Answer::unauthorized(refusal),
        _ => Answer::forbidden(refusal),
    }
}

/// The whole body, within its bounds of size and time.
async fn body_of(body: Body) -> Result<Bytes, Answer> {
    match tokio::time::timeout(BODY_TIME_MAX, axum::body::to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Answer::too_large()),
        Err(_) => Err(Answer::timeout()),
    }
}
