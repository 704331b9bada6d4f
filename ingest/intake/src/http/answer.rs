//! The JSON that the HTTP door answers with.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use schemas_frame::Verdict;
use serde::Serialize;

/// A refusal: status, a stable code, a phrase, and when to come back.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    error: &'static str,
    hint: String,
    retry_after_s: Option<u32>,
}

#[derive(Serialize)]
struct ProblemBody<'a> {
    error: &'static str,
    hint: &'a str,
}

#[derive(Serialize)]
struct VerdictsBody<'a> {
    accepted: usize,
    verdicts: Vec<Numbered<'a>>,
}

#[derive(Serialize)]
struct Numbered<'a> {
    i: usize,
    #[serde(flatten)]
    verdict: &'a Verdict,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, error: &'static str, hint: impl Into<String>) -> Self {
        Self { status, error, hint: hint.into(), retry_after_s: None }
    }

    pub(crate) fn retry(
        status: StatusCode,
        error: &'static str,
        hint: impl Into<String>,
        retry_after_s: u32,
    ) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..Self::new(status, error, hint) }
    }

    pub(crate) fn response(&self) -> Response {
        let mut response = json(self.status, &ProblemBody { error: self.error, hint: &self.hint });
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// 200 with one verdict per frame of the body.
pub(crate) fn verdicts(verdicts: &[Verdict]) -> Response {
    let accepted = verdicts.iter().filter(|verdict| verdict.code.is_accepted()).count();
    let numbered = verdicts.iter().enumerate().map(|(i, verdict)| Numbered { i, verdict });
    json(StatusCode::OK, &VerdictsBody { accepted, verdicts: numbered.collect() })
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let content_type = HeaderValue::from_static("application/json");
            (status, [(header::CONTENT_TYPE, content_type)], bytes).into_response()
        }
        // Strings, numbers and enums always serialise; this is for the type checker.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
