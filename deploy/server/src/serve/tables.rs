//! The lake as the query engine wants to see it: the one place where the write side and the read side meet in process.

use std::path::Path;
use std::sync::Arc;

use ingest_lake::{Lake, Part};
use ingest_statements::Statements;
use query_engine::{FileKind, FramesFile, LakeFile, Sources, Tables, TablesError, View};

/// Adapter from the lake's view to the engine's.
pub(crate) struct LakeTables {
    pub(crate) lake: Arc<Lake>,
    pub(crate) statements: Arc<Statements>,
}

fn lake_file(
    directory: &Path,
    file: &schemas_evidence::FileRef,
    frames: &Arc<FramesFile>,
    leaf_limit: Option<u32>,
) -> Option<LakeFile> {
    let kind = match file.kind {
        schemas_evidence::FileKind::Scalar => FileKind::Scalar,
        schemas_evidence::FileKind::Wave => FileKind::Wave,
        // Evidence, not a table: rows only find their origin there.
        schemas_evidence::FileKind::Frames => return None,
    };
    Some(LakeFile {
        path: directory.join(&file.name),
        name: file.name.clone(),
        blake3: hex::encode(file.blake3),
        kind,
        rows: file.rows,
        device_min: file.device_min,
        device_max: file.device_max,
        ts_min_us: file.ts_min_us,
        ts_max_us: file.ts_max_us,
        frames: Some(Arc::clone(frames)),
        leaf_limit,
    })
}

/// The tables of a batch or a set.
fn tables(directory: &Path, part: &Part<'_>) -> Vec<LakeFile> {
    let files = part.files;
    let Some(frames) = files.iter().find(|file| file.kind == schemas_evidence::FileKind::Frames) else {
        return Vec::new();
    };
    let frames = Arc::new(FramesFile {
        path: directory.join(&frames.name),
        name: frames.name.clone(),
        blake3: hex::encode(frames.blake3),
    });
    files.iter().filter_map(|file| lake_file(directory, file, &frames, part.leaf_limit)).collect()
}

impl Tables for LakeTables {
    fn view(&self, as_of: Option<u64>) -> Result<Arc<View>, TablesError> {
        let view = match as_of {
            None => self.lake.view(),
            Some(size) if size <= self.lake.log_size() => self.lake.view_at(size),
            Some(size) => return Err(TablesError::NoSnapshot(size)),
        };
        let files = view.parts().iter().flat_map(|part| tables(self.lake.directory(), part)).collect();
        let tail = view.tail_rows().map_err(|error| TablesError::Unavailable(error.to_string()))?;
        let (batches, sets) = view.entry_indices();
        let sources = Sources::new(batches, sets);
        let register = self.statements.register();
        let known = Arc::clone(&register);
        Ok(Arc::new(View {
            log_size: view.log_size,
            files,
            sources,
            tail_scalar: tail.scalar,
            tail_wave: tail.wave,
            devices: Arc::new(move |number| register.device(number).map(|device| device.first_id)),
            // SQL knows a device by its first id only, also after its key was replaced.
            numbers: Arc::new(move |id| {
                let device = known.device_by_kid(id).filter(|device| device.first_id == id);
                device.map(|device| device.number)
            }),
            // Files that compaction replaces stay while this is held.
            keep: Some(view),
        }))
    }
}
