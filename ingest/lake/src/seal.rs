//! Sealing: the tail becomes a batch. Pushes go on meanwhile; readers see the rows all the time.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use schemas_evidence::{BatchManifest, DeviceRange, FileKind, Hash32};
use schemas_frame::Frame;

use crate::view::SealedBatch;
use crate::{Admitted, Lake, LakeError, files, rows};

/// A batch that is now in the log.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The batch.
    pub batch: Arc<SealedBatch>,
    /// WAL positions below this are no longer needed.
    pub covered_to: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

impl Lake {
    /// Seals what waits. Nothing waiting gives `None`. After an error the frames stay in the tail and the call may be
    /// repeated; no half batch is visible at any time.
    pub fn seal(&self) -> Result<Option<Sealed>, LakeError> {
        let _one_at_a_time = self.sealing.lock();
        let frames = self.freeze();
        if frames.is_empty() {
            return Ok(None);
        }
        let manifest = self.write(&frames)?;
        let entry = manifest
            .entry()
            .map_err(|source| LakeError::Manifest { batch: manifest.batch.clone(), source })?;
        let entry_index = self.ledger.append(&[entry])?.first().copied().unwrap_or(0);
        let bytes = manifest.files.iter().map(|file| file.bytes).sum();
        let covered_to = manifest.wal_to;
        let batch = Arc::new(SealedBatch { manifest, entry_index });
        self.thaw(&frames, batch.clone());
        Ok(Some(Sealed { batch, covered_to, bytes }))
    }

    /// Moves the active frames to the frozen place, unless an earlier attempt left some there.
    fn freeze(&self) -> Arc<Vec<Admitted>> {
        let mut tail = self.tail.lock();
        if tail.frozen.is_empty() && !tail.active.is_empty() {
            tail.frozen = Arc::new(std::mem::take(&mut tail.active));
            tail.frozen_bytes = std::mem::take(&mut tail.active_bytes);
            let frozen = self.view.load().frozen();
            self.view.store(Arc::new(frozen));
        }
        tail.frozen.clone()
    }

    fn thaw(&self, frames: &[Admitted], batch: Arc<SealedBatch>) {
        let mut tail = self.tail.lock();
        self.covered.store(batch.manifest.wal_to, Ordering::Release);
        let thawed = self.view.load().thawed(batch);
        self.view.store(Arc::new(thawed));
        for admitted in frames {
            if let Ok(key) = crate::key_of(admitted) {
                tail.places.remove(&key);
            }
        }
        tail.frozen = Arc::default();
        tail.frozen_bytes = 0;
    }

    fn write(&self, frames: &[Admitted]) -> Result<BatchManifest, LakeError> {
        let hasher = &self.options.hasher;
        let bytes: Vec<&[u8]> = frames.iter().map(|admitted| admitted.frame.as_ref()).collect();
        let root = hasher.root(&hasher.leaves(&bytes));
        let wal_from = frames.iter().map(|frame| frame.position).min().unwrap_or(0);
        let wal_to = frames.iter().map(|frame| frame.position + 1).max().unwrap_or(0);
        let batch = batch_id(&root, wal_from);
        let directory = &self.options.dir;
        let written = (|| {
            let rows = rows::rows(frames, 0)?;
            let tables = [
                (FileKind::Scalar, rows::sorted(&rows.scalar)?),
                (FileKind::Wave, rows::sorted(&rows.wave)?),
                (FileKind::Frames, rows::evidence(frames)?),
            ];
            let mut files = Vec::with_capacity(tables.len());
            for (kind, table) in tables.iter().filter(|(_, table)| table.num_rows() > 0) {
                files.push(files::write_table(directory, &batch, *kind, table)?);
            }
            let manifest = BatchManifest {
                v: 1,
                batch: batch.clone(),
                frames: frames.len() as u64,
                root,
                wal_from,
                wal_to,
                from_us: frames.iter().map(|frame| frame.t0_us).min().unwrap_or(0),
                to_us: frames.iter().map(|frame| frame.t0_us).max().unwrap_or(0),
                files,
                ranges: ranges(frames)?,
            };
            let bytes =
                manifest.to_bytes().map_err(|source| LakeError::Manifest { batch: batch.clone(), source })?;
            files::write_bytes(&directory.join(manifest_name(&batch)), &bytes)?;
            files::sync_directory(directory)?;
            Ok(manifest)
        })();
        if written.is_err() {
            self.sweep(&batch);
        }
        written
    }

    /// Gives the space of a failed attempt back; what cannot be removed now is swept at the next open.
    fn sweep(&self, batch: &str) {
        let Ok(entries) = fs::read_dir(&self.options.dir) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(batch) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// File name of a batch's manifest.
pub(crate) fn manifest_name(batch: &str) -> String {
    format!("{batch}.manifest.json")
}

/// 16 bytes in hex: different for every batch, even if two had the same frames, because WAL positions never repeat.
fn batch_id(root: &Hash32, wal_from: u64) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("vitalog 2026 batch id v1");
    hasher.update(root).update(&wal_from.to_be_bytes());
    let hash = hasher.finalize();
    hex::encode(&hash.as_bytes()[..16])
}

/// One entry per contiguous run of sequence numbers of a device's boot, sorted.
fn ranges(frames: &[Admitted]) -> Result<Vec<DeviceRange>, LakeError> {
    let mut seen: BTreeMap<crate::FrameKey, [u8; 16]> = BTreeMap::new();
    for admitted in frames {
        let frame =
            Frame::parse(&admitted.frame).map_err(|error| LakeError::Frame { problem: error.to_string() })?;
        seen.insert((admitted.device, *frame.boot().as_bytes(), frame.seq()), frame.digest16());
    }
    let mut runs: Vec<DeviceRange> = Vec::new();
    for ((device, boot, seq), digest) in seen {
        match runs.last_mut() {
            Some(run) if run.device == device && run.boot == boot && run.last + 1 == seq => {
                run.last = seq;
                run.last_digest = digest;
            }
            _ => runs.push(DeviceRange { device, boot, first: seq, last: seq, last_digest: digest }),
        }
    }
    Ok(runs)
}
