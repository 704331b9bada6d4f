//! Signature verification for the write path: which implementation of `schemas_frame::Verifier` runs here.
//!
//! The rule is `enrolled-strict`; its oracle is `schemas_frame::Reference`. The faster backend must give the reference's
//! verdict on everything in `tests`, and is watched while it works.
//!
//! | file | holds |
//! |---|---|
//! | `field`, `point` | arithmetic on edwards25519, bounds argued beside each operation |
//! | `comb`, `digits` | multiples of a known point by table additions; which ones, in lanes |
//! | `cache` | tables of active keys within a bound of bytes |
//! | `isa` | what a CPU does with a vector, an intrinsic each: `isa/avx2`, `isa/avx512`, the only files with `unsafe`; and a model in plain Rust |
//! | `radix51` | the field in lanes |
//! | `sha512`, `order` | hashing and reduction modulo L in lanes |
//! | `lanes` | signatures side by side, written once for all machines |
//! | `fast` | a group of signatures, the choice of the machine |
//! | `blake3x8`, [`hashes`] | BLAKE3 of frames and of tree nodes, eight at a time |
//! | [`watch`] | self-test, re-checks by the reference, fallback |
//!
//! It chooses no keys, keeps no queue and spawns no thread: the pipeline hands it slices.

mod blake3x8;
mod cache;
mod comb;
mod digits;
mod fast;
mod field;
pub mod hashes;
mod isa;
mod lanes;
mod order;
mod point;
mod radix51;
mod sha512;
pub mod watch;

#[cfg(test)]
mod tests;

use schemas_frame::{Reference, Verifier};

pub use cache::Tables;
pub use fast::Kind;
pub use watch::{Options, Stats, Watched};

/// Environment variable that chooses the backend: `auto` (or unset), `avx512` (with IFMA), `avx512f`
/// (without), `avx2`, `comb` (portable), `reference`. With the last two frames and trees are hashed one by one as well.
pub const VARIABLE: &str = "VITALOG_VERIFY";

/// What runs, and why.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The backend's name.
    pub backend: &'static str,
    /// For the log.
    pub why: String,
    /// Backends that were tried before and failed their self-test: this machine, or they, compute wrongly.
    pub failed: Vec<&'static str>,
    /// The same backend, for its counters; the reference has none.
    pub watched: Option<Watched>,
}

/// The verifier for this machine. Chosen once, at start; `name()` says which.
#[must_use]
pub fn backend() -> Box<dyn Verifier> {
    select(std::env::var(VARIABLE).ok().as_deref(), Options::default()).0
}

/// As [`backend`], with a choice and options of the caller's, and what was chosen.
#[must_use]
pub fn select(choice: Option<&str>, options: Options) -> (Box<dyn Verifier>, Selection) {
    let mut kinds = Kind::all();
    let why = match choice {
        Some("reference") => {
            kinds.clear();
            format!("{VARIABLE}=reference")
        }
        None | Some("auto") => "the fastest that passed its self-test".to_owned(),
        Some(name) if kinds.iter().any(|kind| kind.name() == name) => {
            kinds.retain(|kind| kind.name() == name);
            format!("{VARIABLE}={name}")
        }
        Some(name) => {
            format!(
                "{VARIABLE}=`{name}` is none of auto, reference, comb, avx2, avx512f, avx512 here: taken as auto"
            )
        }
    };
    let (watched, selection) = start(kinds, why, |kind| Watched::new(kind, options));
    match watched {
        Some(watched) => (Box::new(watched), selection),
        None => (Box::new(Reference), selection),
    }
}

/// The last of the kinds that starts; the reference if none does. Those that failed before it are named.
fn start(
    kinds: Vec<Kind>,
    why: String,
    new: impl Fn(Kind) -> Option<Watched>,
) -> (Option<Watched>, Selection) {
    let mut failed = Vec::new();
    for kind in kinds.into_iter().rev() {
        if let Some(watched) = new(kind) {
            let selection = Selection { backend: kind.name(), why, failed, watched: Some(watched.clone()) };
            return (Some(watched), selection);
        }
        failed.push(kind.name());
    }
    (None, Selection { backend: "reference", why, failed, watched: None })
}
