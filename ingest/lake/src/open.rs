//! Opening: the log says which batches exist; files that no entry names are swept away.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use schemas_evidence::{BatchManifest, Entry, Ledger};

use crate::disk::Disk;
use crate::seal::manifest_name;
use crate::tail::Tail;
use crate::view::SealedBatch;
use crate::{Lake, LakeError, Options, State};

/// Log entries read at a time.
const ENTRIES_PER_READ: u64 = 4_096;

/// A batch entry of the log.
pub(crate) struct Named {
    pub(crate) index: u64,
    pub(crate) id: String,
    pub(crate) entry: Entry,
}

/// All batch entries of the log, in order.
pub(crate) fn named_batches(ledger: &dyn Ledger) -> Result<Vec<Named>, LakeError> {
    let size = ledger.size();
    let mut named = Vec::new();
    let mut from = 0;
    while from < size {
        let to = size.min(from + ENTRIES_PER_READ);
        for (text, index) in ledger.entries(from, to)?.iter().zip(from..) {
            if let Ok(entry @ Entry::Batch { .. }) = Entry::parse(text) {
                let Entry::Batch { id, .. } = &entry else { continue };
                named.push(Named { index, id: id.clone(), entry: entry.clone() });
            }
        }
        from = to;
    }
    Ok(named)
}

/// The manifest that an entry names, checked against it.
pub(crate) fn manifest_of(directory: &Path, named: &Named) -> Result<BatchManifest, LakeError> {
    let wrong = |problem| LakeError::Contradiction { index: named.index, batch: named.id.clone(), problem };
    let Ok(bytes) = fs::read(directory.join(manifest_name(&named.id))) else {
        return Err(wrong("its manifest is missing"));
    };
    let manifest = BatchManifest::parse(&bytes).map_err(|_| wrong("its manifest is damaged"))?;
    let entry = manifest.entry().map_err(|_| wrong("its manifest is damaged"))?;
    if entry != named.entry {
        return Err(wrong("its manifest is another one"));
    }
    Ok(manifest)
}

impl Lake {
    /// Opens a directory; the ledger decides what is in it. Digests of manifests are checked here, those of files by
    /// [`crate::audit`]; a missing file is an error here too.
    pub fn open(options: Options, ledger: Arc<dyn Ledger>) -> Result<Lake, LakeError> {
        let directory = options.dir.clone();
        let disk = Disk::new(&directory, options.faults.clone());
        disk.make()?;
        let mut batches = Vec::new();
        for named in named_batches(ledger.as_ref())? {
            let manifest = manifest_of(&directory, &named)?;
            for file in &manifest.files {
                if !directory.join(&file.name).exists() {
                    let problem = "one of its files is missing";
                    return Err(LakeError::Contradiction { index: named.index, batch: named.id, problem });
                }
            }
            batches.push(Arc::new(SealedBatch { manifest, entry_index: named.index }));
        }
        sweep_leftovers(&disk, &batches)?;
        let covered = batches.iter().map(|batch| batch.manifest.wal_to).max().unwrap_or(0);
        let log_size = batches.last().map_or(0, |batch| batch.entry_index + 1);
        Ok(Lake {
            options,
            ledger,
            state: Mutex::new(State { log_size, batches: Arc::new(batches), tail: Tail::default() }),
            sealing: Mutex::new(()),
            covered: AtomicU64::new(covered),
            recent: Mutex::default(),
        })
    }
}

/// Removes what an interrupted seal left: temporary files, and files of batches without an entry.
fn sweep_leftovers(disk: &Disk, batches: &[Arc<SealedBatch>]) -> Result<(), LakeError> {
    let mut known: HashSet<String> = HashSet::new();
    for batch in batches {
        known.insert(manifest_name(&batch.manifest.batch));
        known.extend(batch.manifest.files.iter().map(|file| file.name.clone()));
    }
    for name in disk.names()? {
        let ours = name.ends_with(".parquet") || name.ends_with(".manifest.json") || name.ends_with(".tmp");
        if ours && !known.contains(&name) {
            tracing::warn!(file = name, "removing a leftover of an interrupted seal");
            disk.remove(&name)?;
        }
    }
    Ok(())
}
