//! `vitalog`: one binary that serves, and that speaks to a server as device maker, patient, researcher and operator.
//! Not the offline verifier: that is `vitalog-verify`, which knows nothing of this code.

use std::process::ExitCode;

use clap::Parser;

mod cli;
mod client;
mod config;
mod datadir;
mod serve;

/// It keeps freed pages. The system's gives those of large columns back, and the kernel zeroes them again for the next batch:
/// two thirds of the time of making rows. Without huge pages (`no_thp`): those of half-empty arenas were a quarter of what
/// the service held under load.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit codes of DESIGN: done, failed, used wrongly, refused by policy or verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Refused = 3,
}

/// An error that means "refused by policy or verification", not "failed".
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct RefusedByPolicy(pub(crate) String);

fn main() -> ExitCode {
    // With one provider installed first, no library picks another behind our back.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = cli::Arguments::parse();
    match cli::run(arguments) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => {
            eprintln!("error: {error:#}");
            let refused = error.chain().any(|cause| cause.is::<RefusedByPolicy>());
            ExitCode::from(if refused { Exit::Refused } else { Exit::Failed } as u8)
        }
    }
}
