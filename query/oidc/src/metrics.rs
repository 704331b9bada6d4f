//! Counters. Labels are codes from a fixed table; no person, provider or key is one.

use prometheus::{IntCounterVec, Opts, Registry};

/// What is counted over all providers.
#[derive(Debug, Clone)]
pub struct Metrics {
    tokens: IntCounterVec,
    fetches: IntCounterVec,
}

impl Metrics {
    /// Counters, registered.
    ///
    /// # Errors
    /// If a counter of that name is registered already.
    pub fn new(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let tokens = IntCounterVec::new(
            Opts::new(
                "vitalog_oidc_tokens_total",
                "tokens of identity providers by outcome: ok, or why refused",
            ),
            &["outcome"],
        )?;
        let fetches = IntCounterVec::new(
            Opts::new("vitalog_oidc_key_fetches_total", "readings of identity providers' keys by outcome"),
            &["outcome"],
        )?;
        registry.register(Box::new(tokens.clone()))?;
        registry.register(Box::new(fetches.clone()))?;
        Ok(Metrics { tokens, fetches })
    }

    pub(crate) fn token(&self, outcome: &str) {
        self.tokens.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn fetch(&self, outcome: &str) {
        self.fetches.with_label_values(&[outcome]).inc();
    }
}
