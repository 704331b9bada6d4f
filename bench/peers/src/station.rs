//! A vitalog server seen from outside: enrolment of a corpus's devices, and its metrics.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use schemas_identity::statement::{Bind, Body, Enrol, proof_of_possession, sign, sign_with_co};
use schemas_identity::{Did, SecretKey};
use serde_json::Value;

use crate::corpus::Keys;

/// Log origin of a server that runs with `--dev`.
pub const DEV_ORIGIN: &str = "localhost/vitalog-dev";
/// What the key of that server's maker is derived from.
const DEV_MAKER_CONTEXT: &str = "vitalog 2026 development maker v1";
/// Enrolments under way at a time: each waits for the disk.
const ENROLMENTS_AT_ONCE: usize = 8;
const CONNECT_SECONDS: u64 = 5;
const ANSWER_SECONDS: u64 = 60;
/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A server's HTTP door.
#[derive(Debug, Clone)]
pub struct Station {
    agent: ureq::Agent,
    url: String,
}

/// The maker that a `--dev` server knows.
#[must_use]
pub fn dev_maker() -> SecretKey {
    SecretKey::from_seed(&blake3::derive_key(DEV_MAKER_CONTEXT, b""))
}

fn nonce() -> Result<[u8; 16]> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(bytes)
}

fn now_s() -> i64 {
    jiff::Timestamp::now().as_second()
}

impl Station {
    /// A server at `http://HOST:PORT`.
    #[must_use]
    pub fn new(url: &str) -> Station {
        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(CONNECT_SECONDS)))
            .timeout_global(Some(Duration::from_secs(ANSWER_SECONDS)))
            .max_idle_connections_per_host(ENROLMENTS_AT_ONCE)
            .http_status_as_error(false)
            .build()
            .into();
        Station { agent, url: url.trim_end_matches('/').to_owned() }
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap_or(&self.url)
    }

    /// Sends a statement; one that was made before is fine.
    fn state(&self, compact: &str, already: &str) -> Result<()> {
        let request = self.agent.post(format!("{}/v1/statements", self.url));
        let response = request.header("content-type", "application/jose").send(compact.as_bytes());
        let response = response.with_context(|| format!("cannot reach {}", self.url))?;
        let status = response.status().as_u16();
        let body = response.into_body().into_with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let code = answer["error"]["code"].as_str().unwrap_or("");
        ensure!(status == 201 || status == 409 && code == already, "statement refused ({status}): {answer}");
        Ok(())
    }

    fn register(&self, keys: &Keys, maker: &SecretKey, party: &Did) -> Result<()> {
        let enrol = Body::Enrol(Enrol {
            device_key: keys.device.public().did(),
            model: "load".to_owned(),
            signals: Vec::new(),
            pop: proof_of_possession(DEV_ORIGIN, party, &keys.device),
        });
        self.state(&sign(&enrol, DEV_ORIGIN, now_s(), nonce()?, maker), "duplicate-key")?;
        let device = keys.device.public().short_id();
        let bind = Body::Bind(Bind { device, from: None, to: None, co: String::new() });
        let bind = sign_with_co(&bind, DEV_ORIGIN, now_s(), nonce()?, &keys.subject, &keys.device);
        self.state(&bind, "binding-overlap")
    }

    /// Enrols devices and binds each to its wearer; those that are enrolled already stay.
    ///
    /// # Errors
    /// When the server is not there or refuses one.
    pub fn enrol(&self, devices: &[Keys]) -> Result<()> {
        let maker = dev_maker();
        let party = maker.public().did();
        let share = devices.len().div_ceil(ENROLMENTS_AT_ONCE).max(1);
        let one = |keys: &Keys| self.register(keys, &maker, &party);
        let all = |part: &[Keys]| part.iter().try_for_each(one);
        std::thread::scope(|scope| {
            let start = |part| scope.spawn(move || all(part));
            let threads: Vec<_> = devices.chunks(share).map(start).collect();
            for thread in threads {
                match thread.join() {
                    Ok(done) => done?,
                    Err(_) => bail!("an enrolling thread panicked"),
                }
            }
            Ok(())
        })
    }

    /// The value of a metric without labels, or with them in its name.
    ///
    /// # Errors
    /// When the server is not there or has no such metric.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let response = self.agent.get(format!("{}/metrics", self.url)).call();
        let response = response.with_context(|| format!("cannot reach {}", self.url))?;
        let text = response.into_body().into_with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
        metric(&text, name).with_context(|| format!("no metric {name}"))
    }

    /// Whether the server answers.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let answer = self.agent.get(format!("{}/healthz", self.url)).call();
        answer.is_ok_and(|answer| answer.status().is_success())
    }
}

fn metric(text: &str, name: &str) -> Option<f64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guarantee: a metric is found by its whole name only.
    #[test]
    fn metrics_are_read() {
        let text = "# HELP a b\na_total 7\na 3\nb{code=\"OK\"} 12\n";
        let cases = [("a", Some(3.0)), ("a_total", Some(7.0)), ("b{code=\"OK\"}", Some(12.0)), ("b", None)];
        for (name, value) in cases {
            assert_eq!(metric(text, name), value, "{name}");
        }
    }
}
