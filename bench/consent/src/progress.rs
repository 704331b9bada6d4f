//! Progress on stderr for the long parts, and nothing else.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `length` steps that tells when it will end.
pub(crate) fn bar(what: &'static str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length).with_prefix(what);
    if let Ok(style) = ProgressStyle::with_template("{prefix:>9} {wide_bar} {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    bar
}
