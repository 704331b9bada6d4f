//! The comb backend under watch: a self-test at start, a sample of accepted frames and every refused one (within a rate)
//! checked again by the reference. The reference's word wins; after one disagreement it alone decides. A re-check that is
//! skipped changes no verdict.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use schemas_frame::{Job, Reference, Verifier};
use schemas_identity::PublicKey;

use crate::cache::{Limits, Tables};
use crate::fast::{Comb, GROUP, Kind};

/// Default bound of all keys' tables: 5,000 active devices, or 33,000 quiet ones.
pub const TABLE_BYTES_MAX_DEFAULT: usize = 128 << 20;

/// RFC 8032 section 7.1, tests 1 to 3: key, message, signature.
const KNOWN: [(&str, &str, &str); 3] = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
];

/// How closely the backend is watched, and how much memory its tables may have.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Most bytes of keys' tables.
    pub table_bytes_max: usize,
    /// Signatures after which a key gets a large table (26 KB for 4): what it costs to build is then soon earned back.
    pub large_after: u32,
    /// Signatures after which it gets a hot one (88 KB), if all tables then use no more than half of the bytes.
    pub hot_after: u32,
    /// One of so many accepted frames is verified again; 0 = none.
    pub sample_one_in: u64,
    /// Refused frames verified again per second.
    pub rechecks_per_second: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            table_bytes_max: TABLE_BYTES_MAX_DEFAULT,
            large_after: 32,
            hot_after: 1_024,
            sample_one_in: 1_000,
            rechecks_per_second: 2_000,
        }
    }
}

/// What it has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Signatures checked.
    pub checked: u64,
    /// Of these by the reference because their key had no table.
    pub without_table: u64,
    /// Accepted ones verified again.
    pub sampled: u64,
    /// Refused ones verified again.
    pub rechecked: u64,
    /// Refused ones that were not: the rate was used up.
    pub skipped: u64,
    /// Verdicts on which the reference differed: a bug or a broken machine.
    pub disagreements: u64,
    /// Whether the reference decides alone since.
    pub has_fallen_back: bool,
    /// The tables.
    pub tables: Tables,
}

/// The comb backend under watch; clones are the same one.
#[derive(Clone)]
pub struct Watched(Arc<Inner>);

struct Inner {
    kind: Kind,
    options: Options,
    comb: Mutex<Working>,
    has_fallen_back: AtomicBool,
    checked: AtomicU64,
    without_table: AtomicU64,
    sampled: AtomicU64,
    rechecked: AtomicU64,
    skipped: AtomicU64,
    disagreements: AtomicU64,
}

/// What one call at a time uses; no allocation once it is warm.
struct Working {
    comb: Comb,
    message: Vec<u8>,
    verdicts: Vec<Option<bool>>,
    until_sample: u64,
    rechecks_left: u64,
    filled: Instant,
}

/// One signature for [`Watched::verify_each`].
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// A key that passed the key rule.
    pub key: &'a PublicKey,
    /// The signed bytes.
    pub message: &'a [u8],
    /// R and s.
    pub signature: &'a [u8; 64],
}

/// Signatures by number; each is fetched twice at most.
trait Source {
    fn count(&self) -> usize;
    /// The buffer is for a message that has to be assembled.
    fn fetch<'b>(&'b self, index: usize, message: &'b mut Vec<u8>) -> Signed<'b>;
}

impl Source for [Signed<'_>] {
    fn count(&self) -> usize {
        self.len()
    }

    fn fetch<'b>(&'b self, index: usize, _: &'b mut Vec<u8>) -> Signed<'b> {
        self[index]
    }
}

impl Source for [Job<'_, '_>] {
    fn count(&self) -> usize {
        self.len()
    }

    fn fetch<'b>(&'b self, index: usize, message: &'b mut Vec<u8>) -> Signed<'b> {
        let job = &self[index];
        job.frame.signed_message(message);
        Signed { key: job.key, message, signature: job.frame.signature() }
    }
}

impl Watched {
    /// The backend, unless it fails its self-test.
    #[must_use]
    pub fn new(kind: Kind, options: Options) -> Option<Watched> {
        let Options { table_bytes_max: bytes_max, large_after, hot_after, .. } = options;
        let mut comb = Comb::new(kind, SELF_TEST)?;
        if !passes_self_test(&mut comb) {
            return None;
        }
        comb.forget_tables(Limits { bytes_max, large_after, hot_after });
        Some(Watched(Arc::new(Inner {
            kind,
            options,
            comb: Mutex::new(Working {
                comb,
                message: Vec::new(),
                verdicts: Vec::with_capacity(GROUP),
                until_sample: options.sample_one_in,
                rechecks_left: options.rechecks_per_second,
                filled: Instant::now(),
            }),
            has_fallen_back: AtomicBool::new(false),
            checked: AtomicU64::new(0),
            without_table: AtomicU64::new(0),
            sampled: AtomicU64::new(0),
            rechecked: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            disagreements: AtomicU64::new(0),
        })))
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            checked: read(&self.0.checked),
            without_table: read(&self.0.without_table),
            sampled: read(&self.0.sampled),
            rechecked: read(&self.0.rechecked),
            skipped: read(&self.0.skipped),
            disagreements: read(&self.0.disagreements),
            has_fallen_back: self.0.has_fallen_back.load(Ordering::Relaxed),
            tables: self.0.comb.lock().comb.tables(),
        }
    }

    /// Clears `verdicts` and writes one per signature, in order.
    pub fn verify_each(&self, signed: &[Signed<'_>], verdicts: &mut Vec<bool>) {
        self.run(signed, verdicts);
    }

    fn run(&self, source: &(impl Source + ?Sized), verdicts: &mut Vec<bool>) {
        verdicts.clear();
        let count = source.count();
        let mut working = self.0.comb.lock();
        let working = &mut *working;
        working.refill(self.0.options.rechecks_per_second);
        for first in (0..count).step_by(GROUP) {
            let group = first..count.min(first + GROUP);
            working.verdicts.clear();
            if self.0.has_fallen_back.load(Ordering::Relaxed) {
                working.verdicts.resize(group.len(), None);
            } else {
                for index in group.clone() {
                    let signed = source.fetch(index, &mut working.message);
                    working.comb.push(signed.key, signed.message, signed.signature);
                }
                working.comb.finish(&mut working.verdicts);
            }
            for (place, index) in group.enumerate() {
                let verdict = working.verdicts[place];
                let must_ask = self.must_ask(verdict, &mut working.until_sample, &mut working.rechecks_left);
                if !must_ask {
                    verdicts.push(verdict == Some(true));
                    continue;
                }
                let signed = source.fetch(index, &mut working.message);
                let word = signed.key.verify(signed.message, signed.signature);
                if verdict.is_some_and(|verdict| verdict != word) {
                    self.0.disagreements.fetch_add(1, Ordering::Relaxed);
                    self.0.has_fallen_back.store(true, Ordering::Relaxed);
                }
                verdicts.push(word);
            }
        }
        self.0.checked.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Whether the reference is asked about a verdict, and counts why.
    fn must_ask(&self, verdict: Option<bool>, until_sample: &mut u64, rechecks_left: &mut u64) -> bool {
        let counter = match verdict {
            None => &self.0.without_table,
            Some(true) if self.0.options.sample_one_in == 0 => return false,
            Some(true) => {
                *until_sample -= 1;
                if *until_sample > 0 {
                    return false;
                }
                *until_sample = self.0.options.sample_one_in;
                &self.0.sampled
            }
            Some(false) if *rechecks_left == 0 => {
                self.0.skipped.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            Some(false) => {
                *rechecks_left -= 1;
                &self.0.rechecked
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        true
    }
}

impl Working {
    /// A full second's worth of re-checks each second.
    fn refill(&mut self, per_second: u64) {
        if self.filled.elapsed().as_secs() >= 1 {
            self.filled = Instant::now();
            self.rechecks_left = per_second;
        }
    }
}

impl Verifier for Watched {
    fn name(&self) -> &'static str {
        if self.0.has_fallen_back.load(Ordering::Relaxed) { Reference.name() } else { self.0.kind.name() }
    }

    fn verify(&self, jobs: &[Job<'_, '_>], verdicts: &mut Vec<bool>) {
        self.run(jobs, verdicts);
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("options", &self.0.options).finish_non_exhaustive()
    }
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    hex::decode(text).ok()?.try_into().ok()
}

/// Room for three keys' tables, which soon grow.
const SELF_TEST: Limits = Limits { bytes_max: 1 << 20, large_after: 6, hot_after: 6 };

/// Known good signatures and the same with one bit changed, in a mixed group, with tables of all three sizes.
fn passes_self_test(comb: &mut Comb) -> bool {
    (0..8).all(|_| test_round(comb) == Some(true)) && comb.tables().hot == KNOWN.len() as u64
}

fn test_round(comb: &mut Comb) -> Option<bool> {
    let mut expected = Vec::new();
    for (key, message, signature) in KNOWN {
        let key = PublicKey::admit(&bytes::<32>(key)?).ok()?;
        let message = hex::decode(message).ok()?;
        let good: [u8; 64] = bytes(signature)?;
        for flipped in [None, Some(3), Some(40)] {
            let mut signature = good;
            if let Some(at) = flipped {
                signature[at] ^= 1;
            }
            comb.push(&key, &message, &signature);
            expected.push(Some(flipped.is_none()));
        }
    }
    let mut verdicts = Vec::new();
    comb.finish(&mut verdicts);
    Some(verdicts == expected)
}

#[cfg(test)]
mod tests;
