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
    /// Opens the file; its name is made durable, since what is synced in it would be lost with it.
    pub(crate) fn open(path: &Path) -> io::Result<Quarantine> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all()?,
            _ => File::open(".")?.sync_all()?,
        }
        let bytes = file.metadata()?.len();
        Ok(Quarantine { file, bytes })
    }

    /// Keeps frames durably as far as the bound goes, with one sync for all.
    ///
    /// # Errors
    /// The system's; then none of them is kept.
    pub(crate) fn keep(&mut self, frames: &[&[u8]]) -> io::Result<()> {
        let mut bytes = self.bytes;
        let mut kept = Vec::new();
        for frame in frames {
            if bytes + frame.len() as u64 <= BYTES_MAX {
                bytes += frame.len() as u64;
                kept.extend_from_slice(frame);
            }
        }
        if kept.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.write_all(&kept).and_then(|()| self.file.sync_data()) {
            // Half a frame in the middle would hide the ones after it.
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes = bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: what was kept is there after a restart, in order, and the bound holds.
    #[test]
    fn it_keeps_in_order_and_within_its_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep").join("frames.cborseq");
        Quarantine::open(&path).unwrap().keep(&[b"one", b"two"]).unwrap();
        let mut again = Quarantine::open(&path).unwrap();
        again.keep(&[b"three"]).unwrap();
        again.bytes = BYTES_MAX - 4;
        again.keep(&[b"too long", b"four"]).unwrap();
        again.keep(&[b"5"]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"onetwothreefour");
    }
}
