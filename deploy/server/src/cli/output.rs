//! Data to stdout, talk to stderr; a closed pipe is the reader's choice, not our failure.

use std::io::Write;

fn put(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        // `vitalog ... | head` closes early; there is nobody left to tell.
        std::process::exit(0);
    }
}

/// One line of data for a human.
pub(crate) fn say(text: impl AsRef<str>) {
    put(text.as_ref());
}

/// One JSON value for a machine.
pub(crate) fn say_json(value: &serde_json::Value) {
    put(&value.to_string());
}
