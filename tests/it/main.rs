//! The integration tests, one binary: house rules, whole stories against real processes, real clients.
//! Not unit tests: those stand beside their code.

#![expect(clippy::expect_used, reason = "a panic in a test is its message")]

use std::path::PathBuf;

mod answers;
mod attacks;
mod clients;
mod faults;
mod grants;
mod hostile;
mod process;
mod provider;
mod session;
mod story;
mod studies;
mod tidy;
mod tokens;

/// The clone this test was built from.
pub(crate) fn workspace_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is below the root").to_owned()
}
