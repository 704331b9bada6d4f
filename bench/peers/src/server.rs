//! A vitalog server as a process, on ports of the system's choice.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::daemon::{Daemon, find};
use crate::station::Station;

const LOOK: Duration = Duration::from_millis(5);
/// Longest wait for the ready file: recovery of a full write-ahead log fits.
const READY_MAX: Duration = Duration::from_secs(120);

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub daemon: Daemon,
    /// Its HTTP door.
    pub station: Station,
    /// The same as an address.
    pub http: SocketAddr,
    /// Its MQTT door.
    pub mqtt: SocketAddr,
}

/// The server's program: the one given, else the one beside this program, else the one on the PATH.
///
/// # Errors
/// When there is none.
pub fn program(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        ensure!(given.is_file(), "no program {}", given.display());
        return Ok(given.to_owned());
    }
    let beside = std::env::current_exe()?.with_file_name("vitalog");
    let found = Some(beside).filter(|file| file.is_file()).or_else(|| find("vitalog"));
    found.context("no program `vitalog` beside this one or on the PATH (--server says where)")
}

/// Starts a server on `folder/data`, without waiting.
///
/// # Errors
/// When it cannot be started.
pub fn launch(program: &Path, folder: &Path, environment: &[(&str, &str)]) -> Result<Daemon> {
    // An earlier server's file must not be taken for this one's.
    let _ = std::fs::remove_file(folder.join("ready.json"));
    let mut command = Command::new(program);
    command.args(["serve", "--dev", "--data"]).arg(folder.join("data"));
    command.arg("--ready-file").arg(folder.join("ready.json"));
    command.env("VITALOG_HTTP", "127.0.0.1:0").env("VITALOG_MQTT", "127.0.0.1:0");
    command.envs(environment.iter().copied());
    Daemon::start(command, &folder.join("server.log"))
}

impl Server {
    /// Starts a server on `folder/data` and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(program: &Path, folder: &Path, environment: &[(&str, &str)]) -> Result<Server> {
        let mut daemon = launch(program, folder, environment)?;
        let since = Instant::now();
        let ready: Value = loop {
            let text = std::fs::read_to_string(folder.join("ready.json")).unwrap_or_default();
            if let Ok(ready) = serde_json::from_str(&text) {
                break ready;
            }
            daemon.check().context("the server")?;
            ensure!(since.elapsed() < READY_MAX, "the server is not ready");
            sleep(LOOK);
        };
        let address = |door: &str| {
            let address = ready[door].as_str().and_then(|address| address.parse::<SocketAddr>().ok());
            address.with_context(|| format!("the ready file names no {door}"))
        };
        let (http, mqtt) = (address("http")?, address("mqtt")?);
        Ok(Server { daemon, station: Station::new(&format!("http://{http}")), http, mqtt })
    }

    /// Data directory of a server that was started on this folder.
    #[must_use]
    pub fn data(folder: &Path) -> PathBuf {
        folder.join("data")
    }
}
