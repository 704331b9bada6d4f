//! The lake as the query engine wants to see it: the one place where the write side and the read side meet in process.

use std::sync::Arc;

use ingest_lake::Lake;
use ingest_statements::Statements;
use query_engine::{LakeFile, Sources, Tables, TablesError, View};

/// Adapter from the lake's view to the engine's.
pub(crate) struct LakeTables {
    pub(crate) lake: Arc<Lake>,
    pub(crate) statements: Arc<Statements>,
}

impl Tables for LakeTables {
    fn view(&self, as_of: Option<u64>) -> Result<Arc<View>, TablesError> {
        let view = match as_of {
            None => self.lake.view(),
            Some(size) if size <= self.lake.log_size() => self.lake.view_at(size),
            Some(size) => return Err(TablesError::NoSnapshot(size)),
        };
        let files = view
            .parts()
            .iter()
            .flat_map(|part| LakeFile::of_part(self.lake.directory(), part.files, part.leaf_limit))
            .collect();
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
