//! The bridge as configured, as one more door. Off unless `bridge.url` is set.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use ingest_intake::bridge::BridgeOptions;
use ingest_intake::{Admission, Metrics, bridge, tls};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::BridgeConfig;

/// Longest password file that is read.
const PASSWORD_BYTES_MAX: usize = 64 * 1024;

/// Starts the bridge; `None` if there is none.
pub(crate) fn start(
    config: &BridgeConfig,
    admission: &Admission,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    let Some(address) = config.address()? else { return Ok(None) };
    let mut options = BridgeOptions::new(address.host, address.port, metrics.clone());
    options.group.clone_from(&config.group);
    options.client_id.clone_from(&config.client_id);
    options.receive_max = config.receive_max;
    if !config.username.is_empty() {
        options.credentials = Some((config.username.clone(), password(Path::new(&config.password_file))?));
    }
    if address.has_tls {
        let identity = (!config.cert.is_empty()).then(|| (Path::new(&config.cert), Path::new(&config.key)));
        options.tls = Some(tls::client_config(Path::new(&config.ca), identity)?);
    }
    Ok(Some(tokio::spawn(bridge::run(admission.clone(), options, stop.clone()))))
}

fn password(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read bridge.password_file {}", path.display()))?;
    anyhow::ensure!(text.len() <= PASSWORD_BYTES_MAX, "bridge.password_file is no password: too long");
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}
