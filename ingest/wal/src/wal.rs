//! The log while it is being written: append, rotate, release, poison. Reading it back is `recover`.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{Disk, Files};
use crate::error::WalError;
use crate::format::{HEADER_BYTES, Header, RECORD_FRAME_BYTES_MAX, Record, encode_record};
use crate::recover::{self, Replay, TornTail};

/// Size of a segment unless told otherwise: few rotations, and still quick to fill with zeros.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Smallest segment; room for a header and a few small records (tests).
pub const SEGMENT_BYTES_MIN: u64 = 512;
/// Largest segment: one is read into memory at a time when the log is opened.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Bound over all files unless told otherwise.
pub const BYTES_MAX_DEFAULT: u64 = 4 << 30;
/// Most encoded bytes of one append; also the stretch before the end that is written again at open.
pub const APPEND_BYTES_MAX: u64 = 16 << 20;
/// Recycled files kept for reuse; more are removed.
pub const SPARES_MAX: usize = 4;

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of the log; made if missing.
    pub dir: PathBuf,
    /// Size of new segments, bytes.
    pub segment_bytes: u64,
    /// Bound over all files of the log, spares included, bytes; at least two segments.
    pub bytes_max: u64,
    /// Bytes of the disk that the log leaves free: sealing needs room to take over what the log then gives back.
    pub free_bytes_min: u64,
    /// Position of the first record of a new log. An existing one goes on where it is.
    pub first_position: u64,
}

impl Options {
    /// Defaults in the given directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options {
            dir: dir.into(),
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            bytes_max: BYTES_MAX_DEFAULT,
            free_bytes_min: 0,
            first_position: 0,
        }
    }

    fn check(&self) -> Result<(), WalError> {
        let size_is_good = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes);
        if size_is_good && self.bytes_max / 2 >= self.segment_bytes {
            return Ok(());
        }
        Err(WalError::Options {
            segment_bytes: self.segment_bytes,
            bytes_max: self.bytes_max,
            min: SEGMENT_BYTES_MIN,
            max: SEGMENT_BYTES_MAX,
        })
    }
}

/// A full segment that waits for its release.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) name: String,
    pub(crate) end: u64,
    pub(crate) file_bytes: u64,
}

/// The segment that appends go to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) name: String,
    pub(crate) number: u64,
    pub(crate) next: u64,
    /// Where the next record starts, bytes.
    pub(crate) offset: u64,
    pub(crate) file_bytes: u64,
    pub(crate) salt: u64,
    /// Runs over header and records; becomes the chain value of the segment after.
    pub(crate) hasher: blake3::Hasher,
}

/// An open log. One writer; put a mutex or a thread around it.
pub struct Wal {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) segment_bytes: u64,
    pub(crate) bytes_max: u64,
    pub(crate) free_bytes_min: u64,
    pub(crate) sealed: VecDeque<Sealed>,
    pub(crate) active: Active,
    /// Files of exactly `segment_bytes`, content meaningless.
    pub(crate) spares: Vec<String>,
    pub(crate) spare_number: u64,
    pub(crate) torn: Option<TornTail>,
    pub(crate) poisoned: bool,
    /// Reused between appends, so that a group costs no allocation.
    pub(crate) buffer: Vec<u8>,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal")
            .field("sealed", &self.sealed.len())
            .field("active", &self.active.name)
            .field("next", &self.active.next)
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}

impl Wal {
    /// Opens (or makes) the log and hands back what it holds, oldest first.
    ///
    /// # Errors
    /// `Corrupt` and `Version` name the file and change nothing; `Locked`; `Options`; `Io`.
    pub fn open(options: Options) -> Result<(Wal, Replay), WalError> {
        options.check()?;
        let files = match Files::open(&options.dir) {
            Ok(files) => files,
            Err(source) if source.kind() == io::ErrorKind::WouldBlock => return Err(WalError::Locked),
            Err(source) => return Err(WalError::io("opening the directory", "", source)),
        };
        Wal::open_on(Arc::new(files), &options)
    }

    /// As `open`, on any disk; `options.dir` is not looked at.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_on(disk: Arc<dyn Disk>, options: &Options) -> Result<(Wal, Replay), WalError> {
        options.check()?;
        recover::open(disk, options)
    }

    /// Makes the records durable, in order, and gives their positions. One write, one sync.
    ///
    /// # Errors
    /// Recoverable (`is_recoverable`): nothing was written. `RecordTooLarge`, `AppendTooLarge`: nothing was written.
    /// `Io`: the log is poisoned; the records may or may not be there after a restart.
    pub fn append(&mut self, records: &[Record<'_>]) -> Result<Range<u64>, WalError> {
        self.check_poison()?;
        let bytes = self.measure(records)?;
        let first = self.active.next;
        if bytes == 0 {
            return Ok(first..first);
        }
        if self.active.offset + bytes > self.active.file_bytes {
            self.rotate()?;
        }
        self.buffer.clear();
        for (index, record) in (0_u32..).zip(records) {
            let mark = (first + u64::from(index)) ^ self.active.salt;
            encode_record(&mut self.buffer, record, mark, index);
        }
        let written = self.disk.write_at(&self.active.name, self.active.offset, &self.buffer);
        self.or_poison("writing", written)?;
        let synced = self.disk.sync(&self.active.name);
        self.or_poison("syncing", synced)?;
        self.active.hasher.update(&self.buffer);
        self.active.offset += bytes;
        self.active.next += records.len() as u64;
        Ok(first..self.active.next)
    }

    /// Gives back every segment whose records are all below position `up_to`; the active one always stays.
    ///
    /// # Errors
    /// `Io`; the log is poisoned only if the directory could not be synced.
    pub fn release(&mut self, up_to: u64) -> Result<(), WalError> {
        self.check_poison()?;
        while let Some(oldest) = self.sealed.front() {
            if oldest.end > up_to {
                break;
            }
            let spare = self.spare_name();
            if oldest.file_bytes == self.segment_bytes && self.spares.len() < SPARES_MAX {
                let renamed = self.disk.rename(&oldest.name, &spare);
                renamed.map_err(|source| WalError::io("recycling", &oldest.name, source))?;
                self.spare_number += 1;
                self.spares.push(spare);
            } else {
                let removed = self.disk.remove(&oldest.name);
                removed.map_err(|source| WalError::io("removing", &oldest.name, source))?;
            }
            self.sealed.pop_front();
            // One at a time: a crash must never leave a hole in the run of segments.
            let synced = self.disk.sync_dir();
            self.or_poison("syncing the directory after releasing from", synced)?;
        }
        Ok(())
    }

    /// Makes a spare file ready if there is none, so that the next rotation does not wait for zeros to be written.
    /// Does nothing when the bound leaves no room. For idle moments.
    ///
    /// # Errors
    /// `NoSpace`, `Io`; neither harms the log.
    pub fn prepare(&mut self) -> Result<(), WalError> {
        self.check_poison()?;
        if !self.spares.is_empty() || self.files_bytes() + self.segment_bytes > self.bytes_max {
            return Ok(());
        }
        self.create_spare()
    }

    /// Position the next record gets. Never goes back, also over restarts and releases.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        self.active.next
    }

    /// Bytes of the files that hold records not yet released, the active segment included.
    #[must_use]
    pub fn bytes_used(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.file_bytes).sum::<u64>() + self.active.file_bytes
    }

    /// Most encoded bytes one append takes: each record costs its frame and [`Wal::RECORD_OVERHEAD_BYTES`].
    #[must_use]
    pub fn append_bytes_max(&self) -> u64 {
        APPEND_BYTES_MAX.min(self.segment_bytes - HEADER_BYTES as u64)
    }

    /// Bytes a record costs beside its frame.
    pub const RECORD_OVERHEAD_BYTES: u64 = crate::format::RECORD_BYTES as u64;

    /// After a failed write or sync: everything is refused until the process starts again.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// What was cut from the last segment at open, if anything.
    #[must_use]
    pub fn torn_tail(&self) -> Option<&TornTail> {
        self.torn.as_ref()
    }

    fn measure(&self, records: &[Record<'_>]) -> Result<u64, WalError> {
        let mut bytes = 0_u64;
        for record in records {
            let len = record.frame.len();
            if len > RECORD_FRAME_BYTES_MAX {
                return Err(WalError::RecordTooLarge { len, max: RECORD_FRAME_BYTES_MAX });
            }
            bytes += record.encoded_len() as u64;
        }
        let max = self.append_bytes_max();
        if bytes > max { Err(WalError::AppendTooLarge { bytes, max }) } else { Ok(bytes) }
    }

    /// Seals the active segment and goes on in a new one. Nothing changes if there is no room.
    fn rotate(&mut self) -> Result<(), WalError> {
        if self.spares.is_empty() {
            self.create_spare()?;
        }
        let header = Header {
            number: self.active.number + 1,
            first: self.active.next,
            file_bytes: self.segment_bytes,
            chain: *self.active.hasher.finalize().as_bytes(),
        };
        let Some(spare) = self.spares.pop() else {
            return Err(self.full());
        };
        let placed = place(&*self.disk, &spare, &header);
        if placed.is_err() {
            self.poisoned = true;
        }
        let before = std::mem::replace(&mut self.active, placed?);
        self.sealed.push_back(Sealed { name: before.name, end: before.next, file_bytes: before.file_bytes });
        Ok(())
    }

    fn create_spare(&mut self) -> Result<(), WalError> {
        if self.files_bytes() + self.segment_bytes > self.bytes_max {
            return Err(self.full());
        }
        self.check_free()?;
        let name = self.spare_name();
        self.spare_number += 1;
        create(&*self.disk, &name, self.segment_bytes)?;
        self.spares.push(name);
        Ok(())
    }

    /// Refuses to take the disk's last bytes.
    fn check_free(&self) -> Result<(), WalError> {
        if self.free_bytes_min == 0 {
            return Ok(());
        }
        let free =
            self.disk.free_bytes().map_err(|source| WalError::io("asking for free space", "", source))?;
        if free < self.segment_bytes.saturating_add(self.free_bytes_min) {
            let missing = format!("{free} bytes are free, {} must stay so", self.free_bytes_min);
            return Err(WalError::NoSpace(io::Error::new(io::ErrorKind::StorageFull, missing)));
        }
        Ok(())
    }

    fn files_bytes(&self) -> u64 {
        self.bytes_used() + self.spares.len() as u64 * self.segment_bytes
    }

    fn full(&self) -> WalError {
        WalError::Full { used: self.files_bytes(), max: self.bytes_max }
    }

    fn spare_name(&self) -> String {
        recover::spare_name(self.spare_number)
    }

    fn check_poison(&self) -> Result<(), WalError> {
        if self.poisoned { Err(WalError::Poisoned) } else { Ok(()) }
    }

    fn or_poison(&mut self, operation: &'static str, result: io::Result<()>) -> Result<(), WalError> {
        result.map_err(|source| {
            self.poisoned = true;
            WalError::io(operation, &self.active.name, source)
        })
    }
}

/// Makes a zero-filled file, or leaves none behind.
pub(crate) fn create(disk: &dyn Disk, name: &str, bytes: u64) -> Result<(), WalError> {
    let Err(source) = disk.create_zeroed(name, bytes) else {
        return Ok(());
    };
    // A leftover is only a spare of the wrong size; open removes it if this does not.
    let _ = disk.remove(name);
    let no_room = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
    if no_room.contains(&source.kind()) {
        return Err(WalError::NoSpace(source));
    }
    Err(WalError::io("creating", name, source))
}

/// Turns a spare file into the segment of `header`. The name is given last: a segment's header is always whole.
pub(crate) fn place(disk: &dyn Disk, spare: &str, header: &Header) -> Result<Active, WalError> {
    let bytes = header.encode();
    let name = recover::segment_name(header.number);
    disk.write_at(spare, 0, &bytes).map_err(|source| WalError::io("writing the header of", spare, source))?;
    disk.sync(spare).map_err(|source| WalError::io("syncing the header of", spare, source))?;
    disk.rename(spare, &name).map_err(|source| WalError::io("naming", &name, source))?;
    disk.sync_dir().map_err(|source| WalError::io("syncing the directory after naming", &name, source))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes);
    Ok(Active {
        name,
        number: header.number,
        next: header.first,
        offset: HEADER_BYTES as u64,
        file_bytes: header.file_bytes,
        salt: header.salt(),
        hasher,
    })
}
