//! HTTP client of the command line: one agent, named limits, errors that say what to do next.
//! Not the frame sender: that is `bench-fleet`, with its retries and counts.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use schemas_identity::statement::Body;
use schemas_identity::token::{Scope, Token};
use schemas_identity::{SecretKey, statement, token};
use serde_json::Value;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::RefusedByPolicy;

/// Largest answer to a request that is not a query.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Longest a request that is not a query may take.
const REQUEST_SECONDS_MAX: u64 = 60;
/// Seconds to reach the server.
const CONNECT_SECONDS_MAX: u64 = 5;
/// A token that the command line makes for one request.
const OWN_TOKEN_SECONDS: i64 = 300;
/// A device's login: it must outlive reconnections of a long replay.
const LOGIN_SECONDS: i64 = 12 * 3_600;

/// Where the server is and what its log is called.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Server {
    /// Address of the server.
    #[arg(long, env = "VITALOG_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// Log origin of the deployment that statements and tokens are made for; never asked from the server.
    #[arg(long, env = "VITALOG_AUD", default_value = crate::config::DEV_ORIGIN)]
    pub(crate) aud: String,
    /// PEM file of the certificate authorities to trust instead of the public ones.
    #[arg(long, env = "VITALOG_CA")]
    pub(crate) ca: Option<PathBuf>,
}

/// Answer of the server: status and JSON body (null where there is none).
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// Seconds since 1970.
pub(crate) fn now_s() -> i64 {
    now_us() / 1_000_000
}

/// Microseconds since 1970.
pub(crate) fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(bytes)
}

/// What a request names beside its token.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Named<'a> {
    pub(crate) purpose: Option<&'a str>,
    pub(crate) study: Option<&'a str>,
}

impl Server {
    /// Whom to trust: the authorities of `--ca`, or the public ones.
    ///
    /// # Errors
    /// When the file cannot be read or holds no certificate.
    pub(crate) fn tls(&self) -> anyhow::Result<TlsConfig> {
        let Some(path) = &self.ca else { return Ok(TlsConfig::default()) };
        let pem = std::fs::read(path).with_context(|| path.display().to_string())?;
        let mut certificates = Vec::new();
        for item in parse_pem(&pem) {
            if let PemItem::Certificate(certificate) = item.with_context(|| path.display().to_string())? {
                certificates.push(certificate);
            }
        }
        ensure!(!certificates.is_empty(), "{} holds no certificate", path.display());
        let roots = RootCerts::Specific(Arc::new(certificates));
        Ok(TlsConfig::builder().root_certs(roots).build())
    }

    fn agent(&self, seconds: Option<u64>) -> anyhow::Result<ureq::Agent> {
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(CONNECT_SECONDS_MAX)))
            .timeout_global(seconds.map(Duration::from_secs))
            .http_status_as_error(false)
            .tls_config(self.tls()?);
        Ok(config.build().into())
    }

    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.url.trim_end_matches('/'))
    }

    fn unreachable(&self) -> String {
        format!("cannot reach {} (is `vitalog serve` running? --url or VITALOG_URL says where)", self.url)
    }

    /// GET with an optional bearer token; the body must be JSON.
    pub(crate) fn get(&self, path: &str, token: Option<&str>) -> anyhow::Result<Answer> {
        let mut request = self.agent(Some(REQUEST_SECONDS_MAX))?.get(self.address(path));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        answer(request.call().with_context(|| self.unreachable())?)
    }

    /// GET with a bearer token in one media type, which must be a kind of JSON.
    pub(crate) fn get_as(&self, path: &str, token: &str, accept: &str) -> anyhow::Result<Answer> {
        let request = self
            .agent(Some(REQUEST_SECONDS_MAX))?
            .get(self.address(path))
            .header("accept", accept)
            .header("authorization", format!("Bearer {token}"));
        answer(request.call().with_context(|| self.unreachable())?)
    }

    /// GET of bytes; an error status becomes an error.
    pub(crate) fn get_bytes(&self, path: &str, token: Option<&str>) -> anyhow::Result<Vec<u8>> {
        let mut request = self.agent(Some(REQUEST_SECONDS_MAX))?.get(self.address(path));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = request.call().with_context(|| self.unreachable())?;
        if !response.status().is_success() {
            return Err(answer(response)?.refusal());
        }
        Ok(response.into_body().into_with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?)
    }

    /// POST of bytes; the answer must be JSON.
    pub(crate) fn post(&self, path: &str, kind: &str, body: &[u8]) -> anyhow::Result<Answer> {
        let request =
            self.agent(Some(REQUEST_SECONDS_MAX))?.post(self.address(path)).header("content-type", kind);
        answer(request.send(body).with_context(|| self.unreachable())?)
    }

    /// POST without a body, with a bearer token.
    pub(crate) fn post_as(&self, path: &str, token: &str) -> anyhow::Result<Answer> {
        let request = self
            .agent(Some(REQUEST_SECONDS_MAX))?
            .post(self.address(path))
            .header("authorization", format!("Bearer {token}"));
        answer(request.send_empty().with_context(|| self.unreachable())?)
    }

    /// DELETE, with a bearer token.
    pub(crate) fn delete_as(&self, path: &str, token: &str) -> anyhow::Result<Answer> {
        let request = self
            .agent(Some(REQUEST_SECONDS_MAX))?
            .delete(self.address(path))
            .header("authorization", format!("Bearer {token}"));
        answer(request.call().with_context(|| self.unreachable())?)
    }

    /// Runs a query and hands its headers and the body as a stream.
    pub(crate) fn sql(
        &self,
        question: &Value,
        token: &str,
        named: Named<'_>,
        accept: &str,
    ) -> anyhow::Result<(Option<String>, Box<dyn Read + Send>)> {
        let mut request = self
            .agent(None)?
            .post(self.address("/v1/sql"))
            .header("content-type", "application/json")
            .header("accept", accept)
            .header("authorization", format!("Bearer {token}"));
        for (name, value) in [("vitalog-purpose", named.purpose), ("vitalog-study", named.study)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let response = request.send(question.to_string().as_bytes()).with_context(|| self.unreachable())?;
        if !response.status().is_success() {
            return Err(answer(response)?.refusal());
        }
        let manifest = response
            .headers()
            .get("vitalog-manifest")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        Ok((manifest, Box::new(response.into_body().into_with_config().limit(u64::MAX).reader())))
    }

    /// Signs a statement, sends it and gives the server's receipt, or its refusal as an error.
    pub(crate) fn state(&self, body: &Body, key: &SecretKey) -> anyhow::Result<Value> {
        let answer = self.state_answer(body, key)?;
        match answer.status {
            200 | 201 => Ok(answer.body),
            _ => Err(answer.refusal()),
        }
    }

    /// As `state`, with the bare answer.
    pub(crate) fn state_answer(&self, body: &Body, key: &SecretKey) -> anyhow::Result<Answer> {
        let compact = statement::sign(body, &self.aud, now_s(), random()?, key);
        self.post("/v1/statements", "application/jose", compact.as_bytes())
    }

    /// A short token signed with the caller's own key.
    pub(crate) fn own_token(&self, key: &SecretKey, purpose: &str, scope: Scope) -> anyhow::Result<String> {
        self.token(key, purpose, scope, OWN_TOKEN_SECONDS)
    }

    /// What a device or gateway gives as its MQTT password.
    pub(crate) fn login(&self, key: &SecretKey) -> anyhow::Result<String> {
        self.token(key, "DEVICE", Scope::Publish, LOGIN_SECONDS)
    }

    fn token(&self, key: &SecretKey, purpose: &str, scope: Scope, seconds: i64) -> anyhow::Result<String> {
        let token = Token {
            iss: key.public().did(),
            jti: hex::encode(random::<16>()?),
            purpose: purpose.to_owned(),
            study: None,
            vouched: None,
            scope,
            iat_s: now_s(),
            exp_s: now_s() + seconds,
        };
        Ok(token::issue(&token, &self.aud, key))
    }
}

impl Answer {
    /// The server's refusal as an error; policy refusals end with exit code 3.
    pub(crate) fn refusal(&self) -> anyhow::Error {
        let error = &self.body["error"];
        let code = error["code"].as_str().unwrap_or("");
        let message =
            error["message"].as_str().or_else(|| error["hint"].as_str()).unwrap_or("no reason given");
        let text = format!("the server refused ({}): {code} {message}", self.status);
        match self.status {
            400 | 401 | 403 | 404 | 409 | 422 => RefusedByPolicy(text).into(),
            _ => anyhow::anyhow!(text),
        }
    }
}

fn answer(response: http::Response<ureq::Body>) -> anyhow::Result<Answer> {
    let status = response.status().as_u16();
    let bytes = response.into_body().into_with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
    if bytes.is_empty() {
        return Ok(Answer { status, body: Value::Null });
    }
    match serde_json::from_slice(&bytes) {
        Ok(body) => Ok(Answer { status, body }),
        Err(_) if status >= 400 => Ok(Answer { status, body: Value::Null }),
        Err(error) => bail!("the server's answer ({status}) is not JSON: {error}"),
    }
}
