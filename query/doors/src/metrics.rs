//! Counters of the query doors. Labels are codes from a fixed table; no person, table, party or text is one.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

/// What the doors count.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Requests for rows by outcome code (`OK` or an error code).
    pub requests: IntCounterVec,
    /// Bytes of results sent.
    pub bytes: IntCounter,
    /// Seconds from request to last byte.
    pub seconds: Histogram,
    /// Requests that came too fast, by what was too fast: `address`, `party` or `refused`.
    pub limited: IntCounterVec,
    /// Requests whose token was refused.
    pub refused: IntCounter,
    /// Revocations of tokens, single ones and all at once.
    pub revoked: IntCounter,
}

impl Metrics {
    /// Counters, registered.
    ///
    /// # Errors
    /// If a counter of that name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("vitalog_query_requests_total", "requests for rows by outcome code"),
            &["code"],
        )?;
        let bytes = IntCounter::new("vitalog_query_result_bytes_total", "bytes of results sent")?;
        let seconds = Histogram::with_opts(
            HistogramOpts::new("vitalog_query_seconds", "seconds from request to last byte")
                .buckets(vec![0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0]),
        )?;
        let limited = IntCounterVec::new(
            Opts::new("vitalog_query_limited_total", "requests that came too fast"),
            &["by"],
        )?;
        let refused =
            IntCounter::new("vitalog_query_tokens_refused_total", "requests whose token was refused")?;
        let revoked = IntCounter::new("vitalog_query_tokens_revoked_total", "revocations of tokens")?;
        registry.register(Box::new(limited.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(revoked.clone()))?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(bytes.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { requests, bytes, seconds, limited, refused, revoked })
    }
}
