//! `vitalog-verify`: the command line around the library. What it is not: in need of the product, its data or its network.
#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    let mut err = io::stderr().lock();
    ExitCode::from(deploy_verifier::run(std::env::args_os(), &mut out, &mut err))
}
