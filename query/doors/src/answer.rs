//! Errors as clients see them: `{"error":{"code","message","id"}}` with texts from a fixed table. The detail goes
//! to the log under the same id. Nothing that was sent in, read or planned is ever repeated.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use query_engine::EngineError;
use serde_json::json;

/// Seconds a client is told to wait before it asks again, where nothing says more.
const RETRY_AFTER_S: u32 = 1;

/// A refusal on its way to a client.
#[derive(Debug)]
pub struct Answer {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
    detail: String,
    /// Seconds after which asking again may help, if it may.
    retry_after_s: Option<u32>,
}

impl Answer {
    fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message, detail: String::new(), retry_after_s: None }
    }

    /// No credential, or one that is not good: one text for every reason.
    #[must_use]
    pub fn unauthorized(detail: impl ToString) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "a valid token is needed").because(detail)
    }

    /// A good credential that does not allow this: one text for every reason.
    #[must_use]
    pub fn forbidden(detail: impl ToString) -> Self {
        let message =
            "the token does not allow this purpose, study or use; headers may repeat it, never widen it";
        Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", message).because(detail)
    }

    /// A request that is not understood.
    #[must_use]
    pub fn bad_request(detail: impl ToString) -> Self {
        let message = "the request is not understood: POST {\"sql\":\"...\",\"as_of\":null} as JSON";
        Self::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", message).because(detail)
    }

    /// A body over the limit.
    #[must_use]
    pub fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", "the request body is too large")
    }

    /// A body that did not come in time.
    #[must_use]
    pub fn timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "TIMEOUT", "the request did not arrive in time")
    }

    /// None of the formats asked for is known.
    #[must_use]
    pub fn not_acceptable() -> Self {
        let message = "known formats: application/x-ndjson, text/csv, application/vnd.apache.arrow.stream, \
                       application/vnd.apache.parquet";
        Self::new(StatusCode::NOT_ACCEPTABLE, "NOT_ACCEPTABLE", message)
    }

    /// Nothing of that name for this party; whether it exists for another is not told.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such thing for you")
    }

    /// A failure on this side.
    #[must_use]
    pub fn internal(detail: impl ToString) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "internal error").because(detail)
    }

    /// A part this answer needs cannot be reached now.
    #[must_use]
    pub fn unavailable(detail: impl ToString) -> Self {
        let mut answer =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "not available now").because(detail);
        answer.retry_after_s = Some(RETRY_AFTER_S);
        answer
    }

    /// More requests, or more refused tokens, than one sender may make.
    #[must_use]
    pub fn too_fast(retry_after_s: u32, by: &'static str) -> Self {
        let mut answer = Self::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", "too many requests: wait");
        answer.retry_after_s = Some(retry_after_s);
        answer.because(by)
    }

    /// No room for another revocation of this kind.
    #[must_use]
    pub fn too_many_revocations(detail: impl ToString) -> Self {
        let message = "too many revocations are in force: revoke all tokens at once (`*`), or the key itself";
        Self::new(StatusCode::CONFLICT, "TOO_MANY_REVOCATIONS", message).because(detail)
    }

    fn because(mut self, detail: impl ToString) -> Self {
        self.detail = detail.to_string();
        self
    }

    /// The code, for counting.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }
}

impl From<&EngineError> for Answer {
    fn from(error: &EngineError) -> Self {
        let status = match error {
            EngineError::Timeout => StatusCode::REQUEST_TIMEOUT,
            EngineError::Busy => StatusCode::TOO_MANY_REQUESTS,
            EngineError::ConsentChanged | EngineError::Audit(_) => StatusCode::SERVICE_UNAVAILABLE,
            EngineError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        let mut answer = Self::new(status, error.code(), error.public()).because(error);
        answer.retry_after_s = error.is_retryable().then_some(RETRY_AFTER_S);
        answer
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let id = correlation_id();
        tracing::info!(
            id,
            code = self.code,
            status = self.status.as_u16(),
            detail = self.detail,
            "request refused"
        );
        let body = json!({"error": {"code": self.code, "message": self.message, "id": id}});
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A fresh id that ties an answer to its line in the log.
pub(crate) fn correlation_id() -> String {
    let mut bytes = [0_u8; 8];
    // Without randomness the id is dull, which harms nobody.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
