//! Mosquitto as Debian ships it, but for the limits that would only slow it down.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::daemon::{Daemon, find};

/// Unacknowledged messages of a client: four batches of the bridge.
const INFLIGHT_MAX: usize = 2_000;

/// Its program, if it is installed.
#[must_use]
pub fn program() -> Option<PathBuf> {
    find("mosquitto")
}

/// Persistent as in Debian's configuration, with the default interval between saves; queues without a limit, so that a slow
/// bridge loses nothing. It stays the user who started it, or it could not write its own file.
fn configuration(folder: &Path, address: SocketAddr) -> String {
    format!(
        "listener {} {}\nallow_anonymous true\nuser root\npersistence true\npersistence_location {}/\n\
         max_queued_messages 0\nmax_inflight_messages {INFLIGHT_MAX}\nlog_type error\n",
        address.port(),
        address.ip(),
        folder.display()
    )
}

/// Starts it at an address.
///
/// # Errors
/// When it does not come up.
pub fn start(folder: &Path, address: SocketAddr) -> Result<Daemon> {
    let file = folder.join("mosquitto.conf");
    std::fs::write(&file, configuration(folder, address))?;
    let mut command = Command::new(program().context("not installed")?);
    command.arg("-c").arg(file);
    let mut daemon = Daemon::start(command, &folder.join("mosquitto.log"))?;
    daemon.wait_listening(address)?;
    Ok(daemon)
}
