//! Opening: the log says which batches and sets exist; files that no entry names are swept away, and so are those whose
//! place a set has taken.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use schemas_evidence::{BatchManifest, Entry, FileRef, Hash32, Ledger, SetManifest};

use crate::disk::Disk;
use crate::seal::manifest_name;
use crate::sets::Held;
use crate::tail::Tail;
use crate::view::SealedBatch;
use crate::{Lake, LakeError, Options, State};

/// Log entries read at a time.
const ENTRIES_PER_READ: u64 = 4_096;

/// What the log and the manifests that it names say.
#[derive(Default)]
pub(crate) struct Stock {
    pub(crate) held: Held,
    /// Files whose place a set has taken, with the place of one of their batches.
    pub(crate) replaced: Vec<(usize, FileRef)>,
    /// Ids of all batches in the log, and names of all manifests.
    pub(crate) batch_ids: HashSet<String>,
    pub(crate) manifests: HashSet<String>,
    sets_seen: HashSet<Hash32>,
}

/// What takes an error: passes it on, or notes it and goes on without that entry.
pub(crate) type Problems<'a> = dyn FnMut(LakeError) -> Result<(), LakeError> + 'a;

/// File name of a set's manifest. The entry has nothing but its digest.
pub(crate) fn set_manifest_name(digest: &Hash32) -> String {
    format!("{}.compact.json", hex::encode(digest))
}

impl Stock {
    /// Follows the log from its beginning.
    pub(crate) fn read(
        directory: &Path,
        ledger: &dyn Ledger,
        problems: &mut Problems<'_>,
    ) -> Result<Stock, LakeError> {
        let mut stock = Stock::default();
        let size = ledger.size();
        let mut from = 0;
        while from < size {
            let to = size.min(from + ENTRIES_PER_READ);
            for (text, index) in ledger.entries(from, to)?.iter().zip(from..) {
                if let Ok(entry) = Entry::parse(text)
                    && let Err(error) = stock.follow(directory, index, &entry)
                {
                    problems(error)?;
                }
            }
            from = to;
        }
        Ok(stock)
    }

    fn follow(&mut self, directory: &Path, index: u64, entry: &Entry) -> Result<(), LakeError> {
        match entry {
            Entry::Batch { id, .. } => {
                self.batch_ids.insert(id.clone());
                self.manifests.insert(manifest_name(id));
                let manifest = manifest_of(directory, index, id, entry)?;
                let batch = Arc::new(SealedBatch { manifest, entry_index: index });
                Arc::make_mut(&mut self.held.batches).push(batch);
                Ok(())
            }
            // An entry that came twice means what it meant the first time.
            Entry::Compact { manifest } if self.sets_seen.insert(*manifest) => {
                self.manifests.insert(set_manifest_name(manifest));
                self.follow_set(directory, index, manifest)
            }
            _ => Ok(()),
        }
    }

    fn follow_set(&mut self, directory: &Path, index: u64, digest: &Hash32) -> Result<(), LakeError> {
        let manifest = set_manifest_of(directory, index, digest)?;
        let set = hex::encode(digest);
        let problem = "it is not made of batches that are neighbours in the log";
        let placed = self.held.place(manifest, index);
        let placed = placed.ok_or(LakeError::SetContradiction { index, set, problem })?;
        let first = placed.set.range().start;
        self.replaced.extend(placed.replaced.into_iter().map(|file| (first, file)));
        self.held.sets = Arc::new(placed.sets);
        Ok(())
    }

    /// Names of everything that belongs here, not counting what is replaced.
    pub(crate) fn known(&self) -> HashSet<&str> {
        let mut known: HashSet<&str> = self.manifests.iter().map(String::as_str).collect();
        let units = self.held.units();
        known.extend(units.iter().flat_map(|unit| unit.files).map(|file| file.name.as_str()));
        known
    }
}

/// The manifest that a batch entry names, checked against it.
fn manifest_of(directory: &Path, index: u64, id: &str, entry: &Entry) -> Result<BatchManifest, LakeError> {
    let wrong = |problem| LakeError::Contradiction { index, batch: id.to_owned(), problem };
    let Ok(bytes) = fs::read(directory.join(manifest_name(id))) else {
        return Err(wrong("its manifest is missing"));
    };
    let manifest = BatchManifest::parse(&bytes).map_err(|_| wrong("its manifest is damaged"))?;
    let found = manifest.entry().map_err(|_| wrong("its manifest is damaged"))?;
    if found != *entry {
        return Err(wrong("its manifest is another one"));
    }
    Ok(manifest)
}

/// The manifest that a compact entry names, checked against it.
fn set_manifest_of(directory: &Path, index: u64, digest: &Hash32) -> Result<SetManifest, LakeError> {
    let wrong = |problem| LakeError::SetContradiction { index, set: hex::encode(digest), problem };
    let Ok(bytes) = fs::read(directory.join(set_manifest_name(digest))) else {
        return Err(wrong("its manifest is missing"));
    };
    if blake3::hash(&bytes).as_bytes() != digest {
        return Err(wrong("its manifest is damaged"));
    }
    SetManifest::parse(&bytes).map_err(|_| wrong("its manifest breaks the rules"))
}

impl Lake {
    /// Opens a directory; the ledger decides what is in it. Digests of manifests are checked here, those of files by
    /// [`crate::audit`]; a missing file is an error here too.
    pub fn open(options: Options, ledger: Arc<dyn Ledger>) -> Result<Lake, LakeError> {
        let directory = options.dir.clone();
        let disk = Disk::new(&directory, options.faults.clone());
        disk.make()?;
        let stock = Stock::read(&directory, ledger.as_ref(), &mut Err)?;
        check_present(&directory, &stock.held)?;
        stock.remove_replaced(&disk, &directory)?;
        sweep_leftovers(&disk, &stock)?;
        let batches = &stock.held.batches;
        let covered = batches.iter().map(|batch| batch.manifest.wal_to).max().unwrap_or(0);
        let log_size = batches.last().map_or(0, |batch| batch.entry_index + 1);
        Ok(Lake {
            options,
            ledger,
            state: Mutex::new(State { log_size, held: stock.held, tail: Tail::default() }),
            sealing: Mutex::new(()),
            compacting: Mutex::default(),
            covered: AtomicU64::new(covered),
            recent: Mutex::default(),
        })
    }
}

fn check_present(directory: &Path, held: &Held) -> Result<(), LakeError> {
    for unit in held.units() {
        if unit.files.iter().all(|file| directory.join(&file.name).exists()) {
            continue;
        }
        let problem = "one of its files is missing";
        let range = unit.range();
        if let Some(set) = held.sets.iter().find(|set| set.range() == range) {
            let (index, set) = (set.entry_index, set.manifest.set.clone());
            return Err(LakeError::SetContradiction { index, set, problem });
        }
        let index = held.batches.get(range.start).map_or(0, |batch| batch.entry_index);
        return Err(LakeError::Contradiction { index, batch: unit.id.to_owned(), problem });
    }
    Ok(())
}

/// Removes what an interrupted seal or compaction left: temporary files, and files that no entry leads to.
fn sweep_leftovers(disk: &Disk, stock: &Stock) -> Result<(), LakeError> {
    let mut known = stock.known();
    // Replaced files that are still there are kept for a reason.
    known.extend(stock.replaced.iter().map(|(_, file)| file.name.as_str()));
    for name in disk.names()? {
        let ours =
            [".parquet", ".manifest.json", ".compact.json", ".tmp"].iter().any(|end| name.ends_with(end));
        if ours && !known.contains(name.as_str()) {
            tracing::warn!(file = name, "removing a leftover of an interrupted seal or compaction");
            disk.remove(&name)?;
        }
    }
    Ok(())
}
