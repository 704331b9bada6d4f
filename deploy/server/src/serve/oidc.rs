//! Identity providers as configured: opened with the rest, their keys kept fresh beside it. A provider that cannot be reached
//! stops nothing: its tokens are refused until its keys are there.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use query_oidc::{Metrics, PartySecret, Provider, Providers, Source};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::clock::{Clock, seconds};
use crate::config::Config;

/// How soon a changed file or an unknown key is noticed.
const KEPT_EVERY: Duration = Duration::from_secs(1);

/// Providers with the keys of those that have a file; a file that cannot be used is an error here, where somebody looks.
pub(super) fn open(
    config: &Config,
    secret: &[u8; 32],
    metrics: &prometheus::Registry,
    clock: &Clock,
) -> anyhow::Result<Providers> {
    let metrics = Metrics::new(metrics)?;
    let secret = Arc::new(PartySecret::new(secret));
    let mut providers = Vec::new();
    for configured in &config.oidc {
        let options = configured.options()?;
        let is_file = matches!(options.source, Source::File(_));
        let provider = Provider::new(options, secret.clone(), metrics.clone());
        if is_file {
            provider
                .keep(seconds(clock))
                .with_context(|| format!("oidc.jwks_file of {}", provider.issuer()))?;
        }
        providers.push(Arc::new(provider));
    }
    Ok(Providers::new(providers, metrics))
}

/// Keeps the keys fresh, each provider by itself, so that a slow one delays no other.
pub(super) fn keep(providers: &Providers, clock: &Clock, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
    let started = providers.all().iter();
    started.map(|provider| tokio::spawn(keep_one(provider.clone(), clock.clone(), stop.clone()))).collect()
}

async fn keep_one(provider: Arc<Provider>, clock: Clock, stop: CancellationToken) {
    let mut told = None;
    loop {
        let (kept, now_s) = (provider.clone(), seconds(&clock));
        let keeping = tokio::task::spawn_blocking(move || kept.keep(now_s));
        let kept = tokio::select! {
            // A fetch may take its time; a stop does not wait for it.
            () = stop.cancelled() => return,
            kept = keeping => kept,
        };
        let problem = match kept {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        // A file that stays bad fails each second, and is told once.
        if let Some(problem) = problem.as_ref().filter(|_| told != problem) {
            tracing::warn!(issuer = provider.issuer(), problem, "no fresh keys of an identity provider");
        }
        told = problem;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(KEPT_EVERY) => {}
        }
    }
}
