//! Processes that a run starts: each ends with the run, whatever happens.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::Usage;

/// Looks at a starting or ending process this often.
const LOOK: Duration = Duration::from_millis(10);
/// Longest wait for a process to listen.
const LISTEN_MAX: Duration = Duration::from_secs(60);
/// Longest wait for a process to end by itself; then it is killed.
const STOP_MAX: Duration = Duration::from_secs(60);
/// What is shown of the log of a process that failed.
const LOG_CHARACTERS: usize = 2_000;

/// A process; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a command; what it says is appended to the log. Its stdout goes there too unless the command has one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, log: &Path) -> Result<Daemon> {
        let open = || OpenOptions::new().create(true).append(true).open(log);
        let what = || format!("cannot write {}", log.display());
        let (out, err) = (open().with_context(what)?, open().with_context(what)?);
        Daemon::spawn(command.stdout(out).stderr(err), log)
    }

    /// As `start`, with stdout for us to read.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_piped(mut command: Command, log: &Path) -> Result<Daemon> {
        let err = OpenOptions::new().create(true).append(true).open(log);
        let err = err.with_context(|| format!("cannot write {}", log.display()))?;
        Daemon::spawn(command.stdout(Stdio::piped()).stderr(err), log)
    }

    fn spawn(command: &mut Command, log: &Path) -> Result<Daemon> {
        let child = command.stdin(Stdio::null()).spawn();
        let child =
            child.with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        Ok(Daemon { child, log: log.to_owned() })
    }

    /// Its stdout, once.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has cost so far; nothing once it has ended.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage::of(self.pid()).unwrap_or_default()
    }

    /// Fails with the end of its log if it has ended.
    ///
    /// # Errors
    /// When it has.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let skipped = log.chars().count().saturating_sub(LOG_CHARACTERS);
            bail!("ended with {status}: {}", log.chars().skip(skipped).collect::<String>());
        }
        Ok(())
    }

    /// Waits until something listens there.
    ///
    /// # Errors
    /// When it ends instead, or takes too long.
    pub fn wait_listening(&mut self, address: SocketAddr) -> Result<()> {
        let since = Instant::now();
        while TcpStream::connect_timeout(&address, LOOK).is_err() {
            self.check()?;
            ensure!(since.elapsed() < LISTEN_MAX, "nothing listens at {address}");
            sleep(LOOK);
        }
        Ok(())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Errors
    /// When it does not end in time, or not well.
    pub fn stop(mut self) -> Result<()> {
        let id = self.child.id().to_string();
        ensure!(Command::new("kill").arg(id).status()?.success(), "cannot ask it to end");
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                // A program that leaves SIGTERM to the system ends with a signal and no code: that is fine too.
                ensure!(status.code().is_none_or(|code| code == 0), "ended with {status}");
                return Ok(());
            }
            ensure!(since.elapsed() < STOP_MAX, "did not end in {} s", STOP_MAX.as_secs());
            sleep(LOOK);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback address that was free a moment ago, for programs that cannot choose themselves.
///
/// # Errors
/// When no port is free.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A program on the PATH.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Debian keeps daemons where a user's PATH may not look.
    let extra = [PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")];
    let mut folders = std::env::split_paths(&path).chain(extra);
    folders.find_map(|folder| Some(folder.join(program)).filter(|file| file.is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guarantee: a process that ended is told with its words; one that runs is stopped.
    #[test]
    fn processes_end() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo sorry >&2; exit 7"]);
        let mut daemon = Daemon::start(shell, &log).unwrap();
        let failure = daemon.wait_listening(free_address().unwrap()).unwrap_err().to_string();
        assert!(failure.contains("sorry") && failure.contains('7'), "{failure}");
        let mut sleeper = Command::new("sleep");
        sleeper.arg("60");
        let mut daemon = Daemon::start(sleeper, &log).unwrap();
        daemon.check().unwrap();
        daemon.stop().unwrap();
        assert!(find("sh").is_some() && find("no-such-program").is_none());
    }
}
