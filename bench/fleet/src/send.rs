//! The sender a device maker would write: it keeps a frame until it has a durable verdict for it.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use schemas_frame::{Code, Verdict};
use serde::Deserialize;

/// First wait after a failure; doubles up to [`BACKOFF_MAX`].
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(100);
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(5);
const CONNECT_SECONDS: u64 = 5;
const ANSWER_SECONDS: u64 = 60;
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// How to send.
#[derive(Debug, Clone)]
pub struct SendOptions {
    /// Frames of one request.
    pub frames_per_body: usize,
    /// Give up after so long without any progress.
    pub patience: Duration,
}

impl Default for SendOptions {
    fn default() -> Self {
        Self { frames_per_body: 64, patience: Duration::from_secs(120) }
    }
}

/// What became of the frames.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Frames by verdict code.
    pub by_code: BTreeMap<Code, u64>,
    /// Frames with a verdict.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Requests that had to be repeated.
    pub retries: u64,
}

impl Tally {
    /// Frames that were neither kept nor known already.
    pub fn refused(&self) -> u64 {
        self.by_code.iter().filter(|(code, _)| !code.is_accepted()).map(|(_, count)| count).sum()
    }

    /// Frames with that code.
    pub fn of(&self, code: Code) -> u64 {
        self.by_code.get(&code).copied().unwrap_or(0)
    }

    /// Adds another tally.
    pub fn add(&mut self, other: &Tally) {
        for (code, count) in &other.by_code {
            *self.by_code.entry(*code).or_default() += count;
        }
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.retries += other.retries;
    }
}

/// Why sending ended early.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No progress for too long.
    #[error("gave up after {seconds} s without progress: {problem}")]
    GaveUp {
        /// How long.
        seconds: u64,
        /// The last failure.
        problem: String,
    },
    /// The server does not admit this client.
    #[error("not admitted: {problem}")]
    NotAdmitted {
        /// Its words.
        problem: String,
    },
    /// The server will never take this request.
    #[error("the server refused the request ({status}): {problem}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        problem: String,
    },
}

#[derive(Deserialize)]
struct Answer {
    verdicts: Vec<Verdict>,
}

enum Outcome {
    Decided(Vec<Verdict>),
    Wait(Option<Duration>, String),
}

/// Sends over HTTP.
#[derive(Debug)]
pub struct HttpSender {
    agent: ureq::Agent,
    url: String,
    options: SendOptions,
}

impl HttpSender {
    /// A sender to a server, `http://host:port`.
    pub fn new(url: &str, options: SendOptions) -> HttpSender {
        HttpSender::with_tls(url, ureq::tls::TlsConfig::default(), options)
    }

    /// As [`HttpSender::new`], trusting whom the caller trusts.
    pub fn with_tls(url: &str, tls: ureq::tls::TlsConfig, options: SendOptions) -> HttpSender {
        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(CONNECT_SECONDS)))
            .timeout_global(Some(Duration::from_secs(ANSWER_SECONDS)))
            .http_status_as_error(false)
            .tls_config(tls)
            .build()
            .into();
        HttpSender { agent, url: format!("{}/v1/frames", url.trim_end_matches('/')), options }
    }

    /// Sends frames in order until each has a verdict; `progress` is told how many more have one.
    pub fn send(&self, frames: &[Vec<u8>], progress: &mut dyn FnMut(u64)) -> Result<Tally, SendError> {
        let mut tally = Tally::default();
        for chunk in frames.chunks(self.options.frames_per_body.max(1)) {
            let mut waiting: Vec<&[u8]> = chunk.iter().map(Vec::as_slice).collect();
            let (mut since, mut backoff) = (Instant::now(), BACKOFF_FIRST);
            while !waiting.is_empty() {
                let before = waiting.len();
                let problem = match self.post(&waiting)? {
                    Outcome::Decided(verdicts) => {
                        waiting = settle(&waiting, &verdicts, &mut tally);
                        (Duration::ZERO, "frames were not decided".to_owned())
                    }
                    Outcome::Wait(after, problem) => (after.unwrap_or(Duration::ZERO), problem),
                };
                let done = before - waiting.len();
                if done > 0 {
                    progress(done as u64);
                    (since, backoff) = (Instant::now(), BACKOFF_FIRST);
                    continue;
                }
                if since.elapsed() > self.options.patience {
                    return Err(SendError::GaveUp { seconds: since.elapsed().as_secs(), problem: problem.1 });
                }
                tally.retries += 1;
                sleep(backoff.max(problem.0));
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
        Ok(tally)
    }

    fn post(&self, frames: &[&[u8]]) -> Result<Outcome, SendError> {
        let request = self.agent.post(&self.url).header("content-type", "application/cbor-seq");
        let response = match request.send(frames.concat().as_slice()) {
            Ok(response) => response,
            Err(error) => return Ok(Outcome::Wait(None, error.to_string())),
        };
        let status = response.status().as_u16();
        let after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.into_body().into_with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        match (status, body) {
            (200, Ok(body)) => match serde_json::from_slice::<Answer>(&body) {
                Ok(answer) => Ok(Outcome::Decided(answer.verdicts)),
                Err(error) => Ok(Outcome::Wait(None, format!("unreadable answer: {error}"))),
            },
            (200, Err(error)) => Ok(Outcome::Wait(None, error.to_string())),
            (429 | 500..=599, _) => {
                Ok(Outcome::Wait(after.map(Duration::from_secs), format!("the server answered {status}")))
            }
            (status, body) => {
                let problem = String::from_utf8_lossy(&body.unwrap_or_default()).chars().take(300).collect();
                Err(SendError::Refused { status, problem })
            }
        }
    }
}

/// Counts what is decided and gives back what must be sent again.
fn settle<'a>(frames: &[&'a [u8]], verdicts: &[Verdict], tally: &mut Tally) -> Vec<&'a [u8]> {
    let mut again = Vec::new();
    for (at, frame) in frames.iter().enumerate() {
        match verdicts.get(at) {
            Some(verdict) if !verdict.code.is_retry() => {
                *tally.by_code.entry(verdict.code).or_default() += 1;
                tally.frames += 1;
                tally.bytes += frame.len() as u64;
            }
            _ => again.push(*frame),
        }
    }
    again
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(code: Code) -> Verdict {
        Verdict { device: None, boot: None, seq: None, code, flags: 0, hint: None }
    }

    /// Guarantee: only a durable verdict ends a frame's life at the sender.
    #[test]
    fn undecided_frames_are_kept() {
        let mut tally = Tally::default();
        let frames: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
        let verdicts = [verdict(Code::Ok), verdict(Code::RetryAfter), verdict(Code::SigBad)];
        assert_eq!(settle(&frames, &verdicts, &mut tally), [b"b", b"d"]);
        assert_eq!((tally.frames, tally.of(Code::Ok), tally.refused()), (2, 1, 1));
    }
}
