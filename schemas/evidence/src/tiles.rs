//! The C2SP tlog-tiles layout (c2sp.org/tlog-tiles v0.1.0): names, contents, and an audit that recomputes all of it.
//!
//! ```text
//! checkpoint                      the signed head
//! tile/<L>/<N>[.p/<W>]            256 (or W) hashes: roots of the full tiles one level below, leaf hashes at level 0
//! tile/entries/<N>[.p/<W>]        256 (or W) entries, each with a 16-bit big-endian length in front
//! ```
//!
//! What it is not: a reader of files or URLs. Whoever audits brings a [`TileSource`].

use std::collections::BTreeMap;

use thiserror::Error;

use crate::checkpoint::Checkpoint;
use crate::compact::CompactTree;
use crate::entry::{ENTRY_BYTES_MAX, Entry};
use crate::merkle::{self, Hash32, Sha256Rfc6962, TreeHash};
use crate::policy::{Accepted, Policy, PolicyError};

/// Hashes in a full tile, entries in a full bundle.
pub const TILE_WIDTH: u64 = 256;

/// Levels of the tree one tile spans.
pub const TILE_HEIGHT: u8 = 8;

/// Longest bundle in bytes: 256 entries with their lengths.
pub const BUNDLE_BYTES_MAX: usize = TILE_WIDTH as usize * (ENTRY_BYTES_MAX + 2);

/// Most findings an audit lists; it stops there.
pub const FINDINGS_MAX: usize = 1000;

/// Name of the checkpoint file.
pub const CHECKPOINT_PATH: &str = "checkpoint";

/// `N` in three-digit groups, `1234067` as `x001/x234/067`, with `.p/W` if `width` is less than a full tile.
fn numbered(prefix: &str, n: u64, width: u64) -> String {
    let mut groups = vec![format!("{:03}", n % 1000)];
    let mut rest = n / 1000;
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    groups.reverse();
    let partial = if width < TILE_WIDTH { format!(".p/{width}") } else { String::new() };
    format!("{prefix}/{}{partial}", groups.join("/"))
}

/// Path of hash tile `n` of `level`, relative to the log's directory or URL.
pub fn tile_path(level: u8, n: u64, width: u64) -> String {
    numbered(&format!("tile/{level}"), n, width)
}

/// Path of entry bundle `n`.
pub fn entries_path(n: u64, width: u64) -> String {
    numbered("tile/entries", n, width)
}

/// Number of hashes that exist at tile level `level` in a log of `size` entries.
pub fn level_size(size: u64, level: u8) -> u64 {
    size.checked_shr(u32::from(level) * u32::from(TILE_HEIGHT)).unwrap_or(0)
}

/// The tiles of one level as (number, width): the full ones, then the partial one if there is one.
pub fn tiles_of_level(size: u64, level: u8) -> impl Iterator<Item = (u64, u64)> {
    let hashes = level_size(size, level);
    let (full, rest) = (hashes / TILE_WIDTH, hashes % TILE_WIDTH);
    (0..full).map(|n| (n, TILE_WIDTH)).chain((rest > 0).then_some((full, rest)))
}

/// A tile's bytes.
pub fn encode_tile(hashes: &[Hash32]) -> Vec<u8> {
    hashes.concat()
}

/// A tile of exactly `width` hashes.
pub fn decode_tile(bytes: &[u8], width: u64) -> Option<Vec<Hash32>> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    (rest.is_empty() && hashes.len() as u64 == width).then(|| hashes.to_vec())
}

/// A bundle's bytes. An entry of 64 KiB or more has no place in it.
pub fn encode_bundle<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend_from_slice(&u16::try_from(entry.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    Some(bytes)
}

/// The entries of a bundle with exactly `width` of them.
pub fn decode_bundle(mut bytes: &[u8], width: u64) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (entry, after) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        entries.push(entry);
        bytes = after;
    }
    (bytes.is_empty() && entries.len() as u64 == width).then_some(entries)
}

/// Where an audit gets a log's files from.
pub trait TileSource {
    /// The bytes of `path`, at most `bytes_max` of them; nothing if there is no such file.
    fn read(&mut self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError>;
}

/// A file could not be read, and not because it is missing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path}: {reason}")]
pub struct SourceError {
    /// The file.
    pub path: String,
    /// What failed.
    pub reason: String,
}

/// Why an audit did not take place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuditError {
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is no checkpoint.
    #[error("there is no checkpoint")]
    NoCheckpoint,
    /// The policy does not accept the checkpoint.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Something that does not fit, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// File, entry or head.
    pub place: String,
    /// What does not fit.
    pub problem: String,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogAudit {
    /// The head that was checked, and who signed it.
    pub head: Accepted,
    /// Entries by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Batch entries before each of the kept heads, in their order.
    pub batches_at: Vec<u64>,
    /// What does not fit; empty for a sound log.
    pub findings: Vec<Finding>,
}

impl LogAudit {
    /// True if everything fits.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Recomputes a whole log from its entries: each leaf, each tile, the root; and that every head in `kept` is a prefix of it.
///
/// Memory stays bounded: one bundle, one tile and the right edge of the tree. `progress` is told the entries done.
pub fn audit(
    source: &mut dyn TileSource,
    policy: &Policy,
    kept: &[Checkpoint],
    progress: &mut dyn FnMut(u64),
) -> Result<LogAudit, AuditError> {
    let note = source.read(CHECKPOINT_PATH, crate::note::NOTE_BYTES_MAX)?.ok_or(AuditError::NoCheckpoint)?;
    let note = String::from_utf8(note).map_err(|_| PolicyError::from(crate::note::NoteError::Shape))?;
    let head = policy.open(&note)?;
    let mut audit = Audit {
        source,
        size: head.checkpoint.size,
        tree: CompactTree::default(),
        edge: Vec::new(),
        kept,
        found: LogAudit {
            head,
            kinds: BTreeMap::new(),
            batches_at: vec![0; kept.len()],
            findings: Vec::new(),
        },
    };
    audit.check_kept_roots();
    for (n, width) in tiles_of_level(audit.size, 0) {
        audit.bundle(n, width)?;
        if audit.found.findings.len() >= FINDINGS_MAX {
            return Ok(audit.found);
        }
        progress(n * TILE_WIDTH + width);
    }
    audit.partial_tiles()?;
    audit.check_head();
    Ok(audit.found)
}

struct Audit<'a> {
    source: &'a mut dyn TileSource,
    size: u64,
    tree: CompactTree<Sha256Rfc6962>,
    /// The hashes of the tile being filled, per level.
    edge: Vec<Vec<Hash32>>,
    kept: &'a [Checkpoint],
    found: LogAudit,
}

impl Audit<'_> {
    fn finding(&mut self, place: String, problem: impl Into<String>) {
        if self.found.findings.len() < FINDINGS_MAX {
            self.found.findings.push(Finding { place, problem: problem.into() });
        }
    }

    /// One bundle of entries and the level-0 tile above it.
    fn bundle(&mut self, n: u64, width: u64) -> Result<(), AuditError> {
        let place = entries_path(n, width);
        let stored = self.tile(0, n, width)?;
        let bytes = self.fetch(entries_path(n, width), entries_path(n, TILE_WIDTH), BUNDLE_BYTES_MAX)?;
        let entries = match &bytes {
            Some(bytes) => prefix_of_bundle(bytes, width),
            None => None,
        };
        let leaves: Vec<Hash32> = match entries {
            Some(entries) => {
                for (within, entry) in entries.iter().enumerate() {
                    self.count(n * TILE_WIDTH + within as u64, entry);
                }
                entries.iter().map(|entry| Sha256Rfc6962::leaf(entry)).collect()
            }
            None => {
                let problem = if bytes.is_some() { "is not a bundle of this width" } else { "is missing" };
                self.finding(place, problem);
                stored.clone().unwrap_or_else(|| vec![[0; 32]; width as usize])
            }
        };
        if let Some(stored) = stored {
            for (within, _) in stored.iter().zip(&leaves).enumerate().filter(|(_, (a, b))| a != b) {
                let index = n * TILE_WIDTH + within as u64;
                self.finding(format!("entry {index}"), "its text does not have the hash in the tile");
            }
        }
        for leaf in leaves {
            self.push(leaf)?;
        }
        Ok(())
    }

    fn count(&mut self, index: u64, entry: &[u8]) {
        match Entry::parse_bytes(entry) {
            Ok(entry) => {
                *self.found.kinds.entry(entry.kind()).or_default() += 1;
                if matches!(entry, Entry::Batch { .. }) {
                    let later = self.found.batches_at.iter_mut().zip(self.kept);
                    later.filter(|(_, head)| index < head.size).for_each(|(batches, _)| *batches += 1);
                }
            }
            Err(error) => self.finding(format!("entry {index}"), error.to_string()),
        }
    }

    /// Appends a leaf, and checks each tile above level 0 that it completes.
    fn push(&mut self, leaf: Hash32) -> Result<(), AuditError> {
        let mut completed = Vec::new();
        self.tree.push(leaf, |level, _, root| {
            if level > 0 && level % TILE_HEIGHT == 0 {
                completed.push((level / TILE_HEIGHT, *root));
            }
        });
        for (level, root) in completed {
            let at = usize::from(level) - 1;
            if self.edge.len() <= at {
                self.edge.resize(at + 1, Vec::new());
            }
            self.edge[at].push(root);
            if self.edge[at].len() as u64 == TILE_WIDTH {
                let hashes = std::mem::take(&mut self.edge[at]);
                let n = level_size(self.tree.size(), level) / TILE_WIDTH - 1;
                self.compare(level, n, &hashes)?;
            }
        }
        self.check_kept_at(self.tree.size());
        Ok(())
    }

    fn partial_tiles(&mut self) -> Result<(), AuditError> {
        for (above, hashes) in std::mem::take(&mut self.edge).into_iter().enumerate() {
            let level = above as u8 + 1;
            if !hashes.is_empty() {
                self.compare(level, level_size(self.size, level) / TILE_WIDTH, &hashes)?;
            }
        }
        Ok(())
    }

    fn compare(&mut self, level: u8, n: u64, hashes: &[Hash32]) -> Result<(), AuditError> {
        let width = hashes.len() as u64;
        if let Some(stored) = self.tile(level, n, width)?
            && stored != hashes
        {
            self.finding(tile_path(level, n, width), "its hashes are not those of the tiles below");
        }
        Ok(())
    }

    /// A stored tile, or a finding.
    fn tile(&mut self, level: u8, n: u64, width: u64) -> Result<Option<Vec<Hash32>>, AuditError> {
        let place = tile_path(level, n, width);
        let bytes = self.fetch(place.clone(), tile_path(level, n, TILE_WIDTH), TILE_WIDTH as usize * 32)?;
        let Some(bytes) = bytes else {
            self.finding(place, "is missing");
            return Ok(None);
        };
        let hashes = bytes.get(..width as usize * 32).and_then(|bytes| decode_tile(bytes, width));
        if hashes.is_none() || (bytes.len() as u64 != width * 32 && bytes.len() as u64 != TILE_WIDTH * 32) {
            self.finding(place, "is not a tile of this width");
            return Ok(None);
        }
        Ok(hashes)
    }

    /// A partial file may have been removed since its full one exists.
    fn fetch(
        &mut self,
        path: String,
        full: String,
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        match self.source.read(&path, bytes_max)? {
            None if full != path => self.source.read(&full, bytes_max),
            found => Ok(found),
        }
    }

    fn check_kept_roots(&mut self) {
        for head in self.kept {
            let place = format!("kept checkpoint of {} entries", head.size);
            if head.origin != self.found.head.checkpoint.origin {
                self.finding(place, format!("is one of another log, {:?}", head.origin));
            } else if head.size > self.size {
                self.finding(place, format!("the log now has only {} entries", self.size));
            }
        }
        self.check_kept_at(0);
    }

    fn check_kept_at(&mut self, size: u64) {
        for head in self.kept.iter().filter(|head| head.size == size) {
            if head.root != self.tree.root() {
                let place = format!("kept checkpoint of {size} entries");
                self.finding(place, "the log has another history up to there");
            }
        }
    }

    fn check_head(&mut self) {
        let root = self.tree.root();
        if root != self.found.head.checkpoint.root {
            let stored = hex::encode(self.found.head.checkpoint.root);
            let problem = format!("its root is {stored}, the entries have {}", hex::encode(root));
            self.finding(CHECKPOINT_PATH.to_owned(), problem);
        }
    }
}

/// The first `width` entries of a bundle that has exactly that many, or is full.
fn prefix_of_bundle(bytes: &[u8], width: u64) -> Option<Vec<&[u8]>> {
    let mut entries = decode_bundle(bytes, width).or_else(|| decode_bundle(bytes, TILE_WIDTH))?;
    entries.truncate(width as usize);
    Some(entries)
}

/// Root of a full tile, or of a power-of-two part of one.
pub fn tile_root(hashes: &[Hash32]) -> Hash32 {
    merkle::root::<Sha256Rfc6962>(hashes)
}

#[cfg(test)]
mod tests;
