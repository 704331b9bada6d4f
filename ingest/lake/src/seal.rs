//! Sealing: the tail becomes a batch. Pushes go on meanwhile; readers see the rows all the time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use schemas_evidence::{BatchManifest, DeviceRange, FileKind, FileRef, Hash32};
use schemas_signals::columns;

use crate::files::{self, TableWriter};
use crate::find::block_roots;
use crate::frames::{BLOCK_LEAVES, FramesBuilder};
use crate::layout::{Layout, Leaf};
use crate::tail::Chunk;
use crate::view::SealedBatch;
use crate::{Lake, LakeError};

/// Frames of a slice of the frames file.
const FRAMES_SLICE: usize = 4_096;

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
        let chunks = self.state.lock().tail.freeze();
        if chunks.is_empty() {
            return Ok(None);
        }
        let manifest = self.written(&chunks)?;
        let entry = manifest
            .entry()
            .map_err(|source| LakeError::Manifest { batch: manifest.batch.clone(), source })?;
        let entry_index = self.ledger.append(&[entry])?.first().copied().unwrap_or(0);
        let bytes = manifest.files.iter().map(|file| file.bytes).sum();
        let covered_to = manifest.wal_to;
        let batch = Arc::new(SealedBatch { manifest: manifest.as_ref().clone(), entry_index });
        self.thaw(batch.clone());
        Ok(Some(Sealed { batch, covered_to, bytes }))
    }

    /// The batch's files, written once: after a failed append the log may name them, so that a second attempt must not
    /// touch them, and its own failure (a full disk) must not sweep them away.
    fn written(&self, chunks: &[Arc<Chunk>]) -> Result<Arc<BatchManifest>, LakeError> {
        if let Some(manifest) = self.state.lock().tail.written() {
            return Ok(manifest);
        }
        let manifest = Arc::new(self.write(chunks)?);
        self.state.lock().tail.set_written(manifest.clone());
        Ok(manifest)
    }

    fn thaw(&self, batch: Arc<SealedBatch>) {
        let mut state = self.state.lock();
        self.covered.store(batch.manifest.wal_to, Ordering::Release);
        state.log_size = batch.entry_index + 1;
        Arc::make_mut(&mut state.held.batches).push(batch);
        state.tail.thaw();
    }

    fn write(&self, chunks: &[Arc<Chunk>]) -> Result<BatchManifest, LakeError> {
        let frames = || chunks.iter().flat_map(|chunk| chunk.frames());
        let layout = Layout::new(frames())?;
        let hasher = self.options.hasher.as_ref();
        let bytes: Vec<&[u8]> = layout.leaves.iter().map(|leaf| leaf.frame.bytes()).collect();
        let blocks = block_roots(hasher, &hasher.leaves(&bytes));
        let root = hasher.root(&blocks);
        let digests: Vec<[u8; 16]> = hasher.digests(&bytes).iter().map(first16).collect();
        let wal_from = frames().map(|frame| frame.position).min().unwrap_or(0);
        let wal_to = frames().map(|frame| frame.position + 1).max().unwrap_or(0);
        let batch = batch_id(&root, wal_from);
        let written = self.write_files(&batch, &layout, &digests, &blocks).and_then(|files| {
            let manifest = BatchManifest {
                v: 1,
                batch: batch.clone(),
                frames: layout.leaves.len() as u64,
                root,
                wal_from,
                wal_to,
                from_us: frames().map(|frame| frame.t0_us).min().unwrap_or(0),
                to_us: frames().map(|frame| frame.t0_us).max().unwrap_or(0),
                files,
                ranges: ranges(&layout.leaves, &digests),
            };
            self.write_manifest(&manifest)?;
            Ok(manifest)
        });
        if written.is_err() {
            self.sweep(&batch);
        }
        written
    }

    fn write_files(
        &self,
        batch: &str,
        layout: &Layout<'_>,
        digests: &[[u8; 16]],
        blocks: &[Hash32],
    ) -> Result<Vec<FileRef>, LakeError> {
        let disk = self.disk();
        let create = |kind, schema| TableWriter::create(&disk, batch, kind, schema);
        let mut files = Vec::with_capacity(3);
        let mut scalar = create(FileKind::Scalar, columns::stored_scalar_schema())?;
        layout.scalar_slices(&mut |rows| scalar.write(&rows))?;
        files.extend(scalar.finish()?);
        let mut wave = create(FileKind::Wave, columns::stored_wave_schema())?;
        layout.wave_slices(&mut |rows| wave.write(&rows))?;
        files.extend(wave.finish()?);
        let mut table = create(FileKind::Frames, columns::frames_schema())?;
        for (part, first) in layout.leaves.chunks(FRAMES_SLICE).zip((0..).step_by(FRAMES_SLICE)) {
            table.write(&frames_slice(part, first, digests, blocks)?)?;
        }
        files.extend(table.finish()?);
        Ok(files)
    }

    fn write_manifest(&self, manifest: &BatchManifest) -> Result<(), LakeError> {
        let disk = self.disk();
        let bytes = manifest
            .to_bytes()
            .map_err(|source| LakeError::Manifest { batch: manifest.batch.clone(), source })?;
        files::write_bytes(&disk, &manifest_name(&manifest.batch), &bytes)?;
        disk.sync_dir()
    }

    /// Gives the space of a failed attempt back; what cannot be removed now is swept at the next open.
    fn sweep(&self, batch: &str) {
        let disk = self.disk();
        for name in disk.names().unwrap_or_default() {
            if name.starts_with(batch) {
                let _ = disk.remove(&name);
            }
        }
    }
}

/// Rows of the frames file for consecutive leaves.
fn frames_slice(
    leaves: &[Leaf<'_>],
    first: usize,
    digests: &[[u8; 16]],
    blocks: &[Hash32],
) -> Result<RecordBatch, LakeError> {
    let mut rows = FramesBuilder::new();
    for (leaf, number) in leaves.iter().zip(first..) {
        let starts_block = number.is_multiple_of(BLOCK_LEAVES);
        let before = number.checked_sub(1).filter(|_| !starts_block).and_then(|before| digests.get(before));
        let block = blocks.get(number / BLOCK_LEAVES).filter(|_| starts_block);
        rows.push(number as u32, leaf, before.copied(), block)?;
    }
    Ok(rows.finish()?)
}

fn first16(digest: &Hash32) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    first
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

/// One entry per contiguous run of sequence numbers of a device's boot, sorted as the leaves are.
fn ranges(leaves: &[Leaf<'_>], digests: &[[u8; 16]]) -> Vec<DeviceRange> {
    let mut runs: Vec<DeviceRange> = Vec::new();
    for (leaf, digest) in leaves.iter().zip(digests) {
        let (device, boot, seq) = (leaf.admitted.device, *leaf.frame.boot().as_bytes(), leaf.frame.seq());
        match runs.last_mut() {
            Some(run) if run.device == device && run.boot == boot && run.last + 1 == seq => {
                run.last = seq;
                run.last_digest = *digest;
            }
            _ => runs.push(DeviceRange { device, boot, first: seq, last: seq, last_digest: *digest }),
        }
    }
    runs
}
