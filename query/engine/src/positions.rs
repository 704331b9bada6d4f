//! A file read at positions: one system call for a page instead of four (a handle of its own, a seek, the read, a
//! close), and no cursor that readers share. Not a cache: the system's own does that.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

/// An open file and its size when it was opened; the lake's files do not change.
#[derive(Debug)]
pub(crate) struct Positions {
    file: Arc<File>,
    bytes: u64,
}

impl Positions {
    /// # Errors
    /// If there is no such file, or it cannot be read.
    pub(crate) fn open(path: &Path) -> std::io::Result<Positions> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Positions { file: Arc::new(file), bytes })
    }
}

impl Length for Positions {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Positions {
    type T = BufReader<Onward>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(BufReader::new(Onward { file: Arc::clone(&self.file), at: start }))
    }

    /// Fails before it makes room for more than the file holds: a length comes from the file.
    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let end = u64::try_from(length).ok().and_then(|length| start.checked_add(length));
        if end.is_none_or(|end| end > self.bytes) {
            let text = format!("{length} bytes at {start} of {}", self.bytes);
            return Err(ParquetError::EOF(text));
        }
        let mut page = vec![0; length];
        self.file.read_exact_at(&mut page, start)?;
        Ok(page.into())
    }
}

/// What follows a position.
#[derive(Debug)]
pub(crate) struct Onward {
    file: Arc<File>,
    at: u64,
}

impl Read for Onward {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: parts are what lies there, whatever was read before; beyond the end is an error and no room is made
    /// for it.
    #[test]
    fn parts_are_read_where_they_lie() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("file");
        let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        std::fs::write(&path, &all).unwrap();
        let file = Positions::open(&path).unwrap();
        assert_eq!(file.len(), 100_000);
        let (mut first, mut second) = (file.get_read(5).unwrap(), file.get_read(70_000).unwrap());
        let mut piece = [0; 10];
        first.read_exact(&mut piece).unwrap();
        assert_eq!(file.get_bytes(99_000, 1_000).unwrap(), all[99_000..]);
        assert_eq!(piece, all[5..15]);
        second.read_exact(&mut piece).unwrap();
        assert_eq!(piece, all[70_000..70_010]);
        let mut rest = Vec::new();
        first.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, all[15..]);
        assert!(file.get_bytes(100_000, 0).unwrap().is_empty());
        for (start, length) in [(99_999, 2), (100_001, 0), (0, usize::MAX), (u64::MAX, 1)] {
            assert!(file.get_bytes(start, length).is_err(), "{length} at {start}");
        }
    }
}
