//! Frames that contradict a stored one (same device, boot and number, other content): evidence of a cloned key or a
//! broken device. Kept as a CBOR sequence, bounded, for a human to look at; never readable as data.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Bytes kept; beyond it contradictions are still refused, counted and logged.
const BYTES_MAX: u64 = 64 << 20;

#[derive(Debug)]
pub(crate) struct Quarantine {
    file: File,
    bytes: u64,
}

impl Quarantine {
    pub(crate) fn open(path: &Path) -> io::Result<Quarantine> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Quarantine { file, bytes })
    }

    /// Keeps a frame durably if there is room.
    pub(crate) fn keep(&mut self, frame: &[u8]) {
        if self.bytes + frame.len() as u64 > BYTES_MAX {
            return;
        }
        match self.file.write_all(frame).and_then(|()| self.file.sync_data()) {
            Ok(()) => self.bytes += frame.len() as u64,
            Err(error) => tracing::error!(%error, "cannot write to the quarantine"),
        }
    }
}
