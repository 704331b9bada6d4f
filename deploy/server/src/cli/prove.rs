//! `vitalog prove`: fetches the evidence of one stored frame. Checking it is `vitalog-verify`'s, which needs no server.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use schemas_identity::token::Scope;
use schemas_identity::{BootId, SecretKey, ShortId};

use super::{ClientOptions, key};
use crate::Exit;
use crate::client::Server;

/// A batch is sealed after some seconds; longer than this is a fault.
const SEAL_SECONDS_MAX: u64 = 60;

#[derive(Debug, Args)]
pub(crate) struct ProveArguments {
    /// Short id of the device.
    #[arg(long)]
    device: ShortId,
    /// Boot id of the frame.
    #[arg(long)]
    boot: BootId,
    /// Sequence number of the frame.
    #[arg(long)]
    seq: u64,
    /// Private key of the wearer, the maker, the device or an operator; the development maker's if left out.
    #[arg(long)]
    key: Option<PathBuf>,
    /// Where to write the evidence; stdout if left out.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    client: ClientOptions,
}

pub(crate) fn run(arguments: &ProveArguments) -> anyhow::Result<Exit> {
    let key = match &arguments.key {
        Some(path) => key::read(path)?,
        None => crate::serve::dev_maker(),
    };
    let server = &arguments.client.server;
    let path =
        format!("/v1/evidence?device={}&boot={}&seq={}", arguments.device, arguments.boot, arguments.seq);
    let bytes = fetch(server, &path, &key)?;
    match &arguments.out {
        Some(path) => {
            std::fs::write(path, &bytes).with_context(|| format!("cannot write {}", path.display()))?
        }
        None => std::io::stdout().lock().write_all(&bytes)?,
    }
    eprintln!("{} bytes; check with: vitalog-verify evidence FILE --policy POLICY", bytes.len());
    Ok(Exit::Done)
}

/// Fetches evidence; a frame is provable once its batch is sealed, so this waits a while for that.
pub(super) fn fetch(server: &Server, path: &str, key: &SecretKey) -> anyhow::Result<Vec<u8>> {
    let started = Instant::now();
    loop {
        let token = server.own_token(key, "PATRQT", Scope::Sql)?;
        let error = match server.get_bytes(path, Some(&token)) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        let is_early = error.to_string().contains("not-yet");
        if !is_early || started.elapsed() > Duration::from_secs(SEAL_SECONDS_MAX) {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}
