//! `vitalog serve`: configuration, runtime, signals; the rest is `crate::serve`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::Exit;
use crate::config::Config;
use crate::serve::{Server, write_ready};

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// Configuration file; without it, defaults and the environment.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Data directory; made if missing.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Development: loopback only, own operator key, a registered maker for replay and simulate, anonymous MQTT.
    #[arg(long)]
    dev: bool,
    /// Written once every door is open: {"http":"IP:PORT","mqtt":"IP:PORT"}.
    #[arg(long)]
    ready_file: Option<PathBuf>,
}

fn say_how_to_log(config: &Config) {
    let filter = EnvFilter::try_new(&config.log.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process (tests) keeps the first one's logger.
    let _ = if config.log.format == "json" { builder.json().try_init() } else { builder.try_init() };
}

pub(crate) fn run(arguments: &ServeArguments) -> anyhow::Result<Exit> {
    let mut config = Config::load(arguments.config.as_deref(), &|name| std::env::var(name).ok())?;
    if let Some(data) = &arguments.data {
        config.data.clone_from(data);
    }
    config.check(arguments.dev)?;
    say_how_to_log(&config);
    if let Some(path) = &arguments.ready_file {
        // An old file must not announce a server that is not there yet.
        let _ = std::fs::remove_file(path);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(serve(&config, arguments))?;
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(Exit::Done)
}

async fn serve(config: &Config, arguments: &ServeArguments) -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let server = Server::start(config, arguments.dev).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        origin = config.origin,
        http = ?server.addresses.http,
        mqtt = ?server.addresses.mqtt,
        dev = arguments.dev,
        "serving"
    );
    if let Some(path) = &arguments.ready_file {
        write_ready(path, &server.addresses)?;
    }
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            tracing::info!("interrupted: stopping");
        }
    }
    server.stop().await;
    tracing::info!("stopped; nothing acknowledged was lost");
    Ok(())
}
