//! Opening a log: replay of the journal, and refusal of a directory that contradicts itself.
//!
//! Nothing is changed before everything has been compared: the journal's signed heads with the entries, the tiles with the head
//! they were durable at, the published checkpoint with both. What it is not: a repair. Only what the journal
//! holds is written again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use schemas_evidence::tiles::{
    self, AuditError, CHECKPOINT_PATH, LogAudit, SourceError, TILE_WIDTH, TileSource, level_size, tile_path,
    tile_root,
};
use schemas_evidence::{Checkpoint, Hash32, LedgerError, NoteKey, Policy, open_checkpoint, sign_checkpoint};
use schemas_identity::SecretKey;
use tracing::{info, warn};

use crate::disk::{Disk, corrupt};
use crate::edge::{Edge, LEVELS, OutFile};
use crate::journal::{self, Commit, JOURNAL, Journal, Replay};
use crate::log::Options;
use crate::reader::{Reader, View};
use crate::writer::Writer;

/// Opens or creates the log in `disk`.
pub(crate) fn open(
    disk: &Disk,
    origin: &str,
    secret: SecretKey,
    options: &Options,
) -> Result<(Writer, View), LedgerError> {
    let key = NoteKey::log(origin, secret.public())?;
    let Some(journal) = disk.read(JOURNAL)? else { return create(disk, origin, secret, options) };
    let replay = journal::read(&journal)?;
    let base = signed_head(&replay.base, &key, JOURNAL)?;
    let mut edge = Edge::load(disk, base.size)?;
    if edge.root() != base.root {
        return Err(corrupt(
            "tile",
            format!("the tiles do not have the root signed for {} entries", base.size),
        ));
    }
    check_tiles(disk, &edge, options.verify_entries_max)?;

    let mut heads = BTreeMap::from([(base.size, base.root)]);
    let files = replay_commits(&mut edge, &replay.commits, &key, &mut heads)?;
    let published = check_published(disk, &key, &heads, edge.size())?;
    if replay.torn_bytes > 0 {
        warn!(
            bytes = replay.torn_bytes,
            "cut a torn commit off the log's journal; it was never acknowledged"
        );
    }
    info!(entries = edge.size(), replayed = edge.size() - base.size, "log opened");
    finish(disk, origin, secret, options, Opened { base: base.size, edge, replay, files, published })
}

/// The first opening of a directory.
fn create(
    disk: &Disk,
    origin: &str,
    secret: SecretKey,
    options: &Options,
) -> Result<(Writer, View), LedgerError> {
    if disk.exists(CHECKPOINT_PATH) || disk.exists("tile") {
        return Err(corrupt(JOURNAL, "is missing, but the directory holds a log"));
    }
    let edge = Edge::empty();
    let checkpoint = sign_checkpoint(origin, 0, &edge.root(), &secret)?;
    let journal = Journal::start(disk, &checkpoint)?;
    disk.replace(CHECKPOINT_PATH, checkpoint.as_bytes())?;
    let view = View { edge: edge.clone(), checkpoint };
    let writer = Writer {
        disk: disk.clone(),
        origin: origin.to_owned(),
        secret,
        edge,
        journal,
        unsynced: BTreeSet::new(),
        journal_bytes_max: options.journal_bytes_max,
    };
    Ok((writer, view))
}

struct Opened {
    /// Size the journal began at.
    base: u64,
    edge: Edge,
    replay: Replay,
    files: Vec<OutFile>,
    published: bool,
}

/// Writes again what the journal stands for, and begins a new journal where the old one held anything.
fn finish(
    disk: &Disk,
    origin: &str,
    secret: SecretKey,
    options: &Options,
    opened: Opened,
) -> Result<(Writer, View), LedgerError> {
    let Opened { base, edge, replay, files, published } = opened;
    let checkpoint = match replay.commits.last() {
        Some(commit) => commit.checkpoint.clone(),
        None => replay.base.clone(),
    };
    let mut unsynced = BTreeSet::new();
    for (path, bytes) in files {
        disk.replace(&path, &bytes)?;
        unsynced.insert(path);
    }
    let stale = !replay.commits.is_empty() || replay.torn_bytes > 0;
    if stale {
        // What is durable since the journal began must not be replaced by a copy that is not.
        for (path, bytes) in edge.partial(Some(base))? {
            disk.replace(&path, &bytes)?;
        }
    }
    if stale || !published {
        disk.replace(CHECKPOINT_PATH, checkpoint.as_bytes())?;
    }
    let mut writer = Writer {
        disk: disk.clone(),
        origin: origin.to_owned(),
        secret,
        edge: edge.clone(),
        journal: Journal::reopen(disk, replay.sound_bytes)?,
        unsynced,
        journal_bytes_max: options.journal_bytes_max,
    };
    if stale {
        writer.begin_journal(&checkpoint)?;
    }
    Ok((writer, View { edge, checkpoint }))
}

fn signed_head(note: &str, key: &NoteKey, place: &str) -> Result<Checkpoint, LedgerError> {
    open_checkpoint(note, key).map_err(|error| corrupt(place, format!("its head does not hold: {error}")))
}

/// Appends the journal's commits to the edge; each must end in the root that was signed for it.
fn replay_commits(
    edge: &mut Edge,
    commits: &[Commit],
    key: &NoteKey,
    heads: &mut BTreeMap<u64, Hash32>,
) -> Result<Vec<OutFile>, LedgerError> {
    let mut files = Vec::new();
    for commit in commits {
        if commit.first != edge.size() {
            let problem = format!("a commit begins at {}, the log ends at {}", commit.first, edge.size());
            return Err(corrupt(JOURNAL, problem));
        }
        for entry in &commit.entries {
            edge.push(Arc::from(entry.as_str()), &mut files)?;
        }
        let head = signed_head(&commit.checkpoint, key, JOURNAL)?;
        if (head.size, head.root) != (edge.size(), edge.root()) {
            let problem = format!("its entries do not have the root signed for {} entries", head.size);
            return Err(corrupt(JOURNAL, problem));
        }
        heads.insert(head.size, head.root);
    }
    Ok(files)
}

/// Compares the published checkpoint with what is there. False if it has to be written (again).
fn check_published(
    disk: &Disk,
    key: &NoteKey,
    heads: &BTreeMap<u64, Hash32>,
    size: u64,
) -> Result<bool, LedgerError> {
    let Some(note) = disk.read(CHECKPOINT_PATH)? else { return Ok(false) };
    if note.iter().all(|byte| *byte == 0) {
        // It is replaced without a sync, so a power loss may leave a name without content.
        return Ok(false);
    }
    let note = String::from_utf8(note).map_err(|_| corrupt(CHECKPOINT_PATH, "is not text"))?;
    let head = signed_head(&note, key, CHECKPOINT_PATH)?;
    match heads.get(&head.size) {
        Some(root) if *root == head.root => Ok(head.size == size),
        Some(_) => Err(corrupt(CHECKPOINT_PATH, format!("has another root for {} entries", head.size))),
        None => {
            let problem = format!("names {} entries, the files hold {size}", head.size);
            Err(corrupt(CHECKPOINT_PATH, problem))
        }
    }
}

/// Holds each full tile against the hash above it, from the leaves to the edge whose root is signed.
///
/// Bundles and leaf tiles are read only for the newest `entries_max` entries; [`audit_log`] reads all.
fn check_tiles(disk: &Disk, edge: &Edge, entries_max: u64) -> Result<(), LedgerError> {
    let reader = Reader::new(disk);
    for level in 0..LEVELS {
        let full = level_size(edge.size(), level) / TILE_WIDTH;
        let first = if level == 0 { full.saturating_sub(entries_max / TILE_WIDTH) } else { 0 };
        for n in first..full {
            let above = if n / TILE_WIDTH < full / TILE_WIDTH {
                reader.tile(level + 1, n / TILE_WIDTH)?.get((n % TILE_WIDTH) as usize).copied()
            } else {
                edge.tile(level + 1).get((n % TILE_WIDTH) as usize).copied()
            };
            if Some(tile_root(&reader.tile(level, n)?)) != above {
                return Err(corrupt(
                    tile_path(level, n, TILE_WIDTH),
                    "does not have the hash in the tile above",
                ));
            }
            if level == 0 {
                reader.bundle(n)?;
            }
        }
    }
    Ok(())
}

/// Recomputes a whole log directory from its entries and compares it with every tile and with the head `key` signed.
///
/// It may run beside a writer. Findings are in the answer; an error means that no audit took place.
pub fn audit_log(dir: &Path, key: &NoteKey) -> Result<LogAudit, LedgerError> {
    let mut source = DiskSource { disk: Disk::new(dir, None) };
    let policy = Policy::of_log(key.clone(), &[]);
    tiles::audit(&mut source, &policy, &[], &mut |_| ()).map_err(|error| match error {
        AuditError::Source(SourceError { path, reason }) => corrupt(path, reason),
        AuditError::NoCheckpoint => corrupt(CHECKPOINT_PATH, "is missing"),
        AuditError::Policy(error) => corrupt(CHECKPOINT_PATH, error.to_string()),
    })
}

struct DiskSource {
    disk: Disk,
}

impl TileSource for DiskSource {
    fn read(&mut self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError> {
        let failed = |reason: String| SourceError { path: path.to_owned(), reason };
        match self.disk.read(path) {
            Ok(Some(bytes)) if bytes.len() > bytes_max => {
                Err(failed(format!("longer than {bytes_max} bytes")))
            }
            Ok(found) => Ok(found),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}
