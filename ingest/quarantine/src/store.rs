//! Keeping: segments per reason, budgets, groups written at once, evidence synced. One writer.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use schemas_frame::Code;

use crate::format::{Kind, RECORD_BYTES, Record, Records, door_bytes};
use crate::{Reason, RecordId};

/// What a reason that anybody can cause may write per second, bytes: a flood must not take the disk from the
/// write-ahead log. A tenth of a second's worth of the full rate of frames, and more than any fleet that is not enrolled yet.
pub const REFILL_BYTES_PER_SECOND: u64 = 4 << 20;
/// Frames of one reason by which a repetition is known.
pub const RECENT_MAX: usize = 1 << 16;
/// Segments per budget.
const SEGMENTS: u64 = 8;

/// Bytes per reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// EQUIVOCATION: beyond it nothing is kept any more, with an alarm.
    pub equivocation: u64,
    /// KEY_REVOKED: beyond it the oldest make room, as with all below.
    pub key_revoked: u64,
    /// SIG_BAD.
    pub sig_bad: u64,
    /// KEY_UNKNOWN: what a fleet sends before somebody enrols it.
    pub key_unknown: u64,
    /// DECODE: a sample.
    pub decode: u64,
}

impl Default for Budgets {
    fn default() -> Budgets {
        Budgets {
            equivocation: 64 << 20,
            key_revoked: 32 << 20,
            sig_bad: 16 << 20,
            key_unknown: 64 << 20,
            decode: 1 << 20,
        }
    }
}

impl Budgets {
    fn of(self, reason: Reason) -> u64 {
        match reason {
            Reason::Equivocation => self.equivocation,
            Reason::KeyRevoked => self.key_revoked,
            Reason::SigBad => self.sig_bad,
            Reason::KeyUnknown => self.key_unknown,
            Reason::Decode => self.decode,
        }
    }
}

/// A refused frame.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Why.
    pub reason: Reason,
    /// Arrival, microseconds since 1970 UTC.
    pub received_us: i64,
    /// Name of the door.
    pub door: &'a str,
    /// The bytes as received.
    pub frame: &'a [u8],
}

/// What became of a refused frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Kept with the next `flush`.
    Kept,
    /// The very same bytes are here already.
    Repeated,
    /// Too many of its reason at this moment.
    TooFast,
    /// No room for evidence: raise the alarm.
    Full,
}

/// Frames seen lately, by the first bytes of their BLAKE3.
#[derive(Debug, Default)]
struct Recent {
    known: HashSet<[u8; 16]>,
    order: VecDeque<[u8; 16]>,
}

impl Recent {
    fn digest(frame: &[u8]) -> [u8; 16] {
        let mut first = [0; 16];
        first.copy_from_slice(&blake3::hash(frame).as_bytes()[..16]);
        first
    }

    fn insert(&mut self, digest: [u8; 16]) {
        if !self.known.insert(digest) {
            return;
        }
        self.order.push_back(digest);
        while self.order.len() > RECENT_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

/// Segments of one reason.
#[derive(Debug)]
struct Shelf {
    reason: Reason,
    bytes_max: u64,
    /// Number and bytes of each segment, oldest first; the last one is written to.
    segments: VecDeque<(u64, u64)>,
    active: Option<File>,
    pending: Vec<u8>,
    recent: Recent,
    /// Bytes that may be written at this moment, and when that was reckoned.
    allowance: u64,
    reckoned_us: i64,
    is_unsynced: bool,
    recycled: u64,
}

/// The quarantine of one deployment.
#[derive(Debug)]
pub struct Quarantine {
    directory: PathBuf,
    shelves: [Shelf; 5],
}

impl Quarantine {
    /// Opens a directory, makes it if need be, and cuts torn tails.
    ///
    /// # Errors
    /// The system's.
    pub fn open(directory: &Path, budgets: Budgets) -> io::Result<Quarantine> {
        fs::create_dir_all(directory)?;
        let shelf = |reason| Shelf::open(directory, reason, budgets.of(reason));
        let [a, b, c, d, e] = Reason::ALL;
        let shelves = [shelf(a)?, shelf(b)?, shelf(c)?, shelf(d)?, shelf(e)?];
        Ok(Quarantine { directory: directory.to_owned(), shelves })
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Takes a refused frame; it is on the disk after the next `flush`.
    ///
    /// # Errors
    /// The system's, if a large group had to be written before its end.
    pub fn keep(&mut self, item: &Item<'_>) -> io::Result<Outcome> {
        let shelf = &mut self.shelves[item.reason.index()];
        let bytes = (RECORD_BYTES + item.frame.len()) as u64;
        let digest = Recent::digest(item.frame);
        if shelf.recent.known.contains(&digest) {
            return Ok(Outcome::Repeated);
        }
        if !shelf.allows(bytes, item.received_us) {
            return Ok(Outcome::TooFast);
        }
        if item.reason.is_evidence() && shelf.bytes() + bytes > shelf.bytes_max {
            return Ok(Outcome::Full);
        }
        shelf.recent.insert(digest);
        let (received_us, code) = (item.received_us, item.reason.code());
        let kind = Kind::Frame(item.frame);
        Record { received_us, code, door: door_bytes(item.door), kind }.encode(&mut shelf.pending);
        if shelf.pending.len() as u64 >= shelf.segment_bytes_max() {
            shelf.write(&self.directory)?;
        }
        Ok(Outcome::Kept)
    }

    /// Writes what was kept, one write per reason; evidence is durable afterwards, the rest as the system likes.
    ///
    /// # Errors
    /// The system's; what was pending is lost then, the alarm is the caller's.
    pub fn flush(&mut self) -> io::Result<()> {
        for shelf in &mut self.shelves {
            shelf.write(&self.directory)?;
            if shelf.reason.is_evidence() {
                shelf.sync(&self.directory)?;
            }
        }
        Ok(())
    }

    /// Frames leave: they were accepted with these codes. Durable afterwards; repeating it does no harm.
    ///
    /// # Errors
    /// The system's.
    pub fn mark(&mut self, accepted: &[(RecordId, Code)], now_us: i64) -> io::Result<()> {
        for (id, code) in accepted {
            let shelf = &mut self.shelves[id.reason.index()];
            let kind = Kind::Mark { segment: id.segment, offset: id.offset };
            Record { received_us: now_us, code: *code, door: [0; 8], kind }.encode(&mut shelf.pending);
        }
        for shelf in &mut self.shelves {
            shelf.write(&self.directory)?;
            shelf.sync(&self.directory)?;
        }
        Ok(())
    }

    /// Bytes of a reason, and how many of its segments made room.
    #[must_use]
    pub fn usage(&self, reason: Reason) -> (u64, u64) {
        let shelf = &self.shelves[reason.index()];
        (shelf.bytes(), shelf.recycled)
    }
}

impl Shelf {
    fn open(directory: &Path, reason: Reason, bytes_max: u64) -> io::Result<Shelf> {
        let mut shelf = Shelf {
            reason,
            bytes_max,
            segments: VecDeque::new(),
            active: None,
            pending: Vec::new(),
            recent: Recent::default(),
            allowance: REFILL_BYTES_PER_SECOND,
            reckoned_us: i64::MIN,
            is_unsynced: false,
            recycled: 0,
        };
        for segment in segments(directory, reason)? {
            let path = directory.join(reason.file_name(segment));
            let bytes = fs::read(&path)?;
            let mut records = Records::new(&bytes);
            for (_, record) in records.by_ref() {
                if let Kind::Frame(frame) = record.kind {
                    shelf.recent.insert(Recent::digest(frame));
                }
            }
            let good = records.position() as u64;
            if good < bytes.len() as u64 {
                tracing::warn!(file = %path.display(), good, "the end of a quarantine segment is not whole: cut");
                let file = OpenOptions::new().write(true).open(&path)?;
                file.set_len(good)?;
                file.sync_all()?;
            }
            shelf.segments.push_back((segment, good));
        }
        Ok(shelf)
    }

    fn segment_bytes_max(&self) -> u64 {
        (self.bytes_max / SEGMENTS).max(1)
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|(_, bytes)| bytes).sum::<u64>() + self.pending.len() as u64
    }

    /// Whether so many bytes may be written now. Evidence always may: it costs its sender an enrolled key.
    fn allows(&mut self, bytes: u64, now_us: i64) -> bool {
        if self.reason.is_evidence() {
            return true;
        }
        let elapsed_us = u64::try_from(now_us.saturating_sub(self.reckoned_us)).unwrap_or(0).min(1_000_000);
        self.reckoned_us = self.reckoned_us.max(now_us);
        let refill = REFILL_BYTES_PER_SECOND * elapsed_us / 1_000_000;
        self.allowance = (self.allowance + refill).min(REFILL_BYTES_PER_SECOND);
        if self.allowance < bytes {
            return false;
        }
        self.allowance -= bytes;
        true
    }

    fn write(&mut self, directory: &Path) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        self.make_room(directory, pending.len() as u64)?;
        let is_full = self.segments.back().is_none_or(|(_, bytes)| *bytes >= self.segment_bytes_max());
        if is_full {
            self.sync(directory)?;
            self.active = None;
            let number = self.segments.back().map_or(1, |(number, _)| number + 1);
            self.segments.push_back((number, 0));
        }
        let Some((number, bytes)) = self.segments.back_mut() else { return Ok(()) };
        let mut file = match self.active.take() {
            Some(file) => file,
            None => {
                let path = directory.join(self.reason.file_name(*number));
                OpenOptions::new().create(true).append(true).open(path)?
            }
        };
        // After a failed write the file's end is unknown: the next one goes to a new segment.
        let written = file.write_all(&pending);
        *bytes += pending.len() as u64;
        let next = *number + 1;
        self.is_unsynced = true;
        if let Err(error) = written {
            self.segments.push_back((next, 0));
            return Err(error);
        }
        self.active = Some(file);
        Ok(())
    }

    /// The oldest segments make room for what is about to be written, unless they are evidence.
    fn make_room(&mut self, directory: &Path, more: u64) -> io::Result<()> {
        if self.reason.is_evidence() {
            return Ok(());
        }
        let mut bytes: u64 = self.segments.iter().map(|(_, bytes)| bytes).sum();
        while bytes + more > self.bytes_max {
            let Some((number, freed)) = self.segments.pop_front() else { break };
            if self.segments.is_empty() {
                // Numbers must go on rising: a mark names a segment.
                self.active = None;
                self.segments.push_back((number + 1, 0));
            }
            match fs::remove_file(directory.join(self.reason.file_name(number))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            bytes -= freed;
            self.recycled += 1;
            if freed == 0 {
                break;
            }
        }
        Ok(())
    }

    fn sync(&mut self, directory: &Path) -> io::Result<()> {
        if !self.is_unsynced {
            return Ok(());
        }
        if let Some(file) = &self.active {
            file.sync_data()?;
        }
        File::open(directory)?.sync_all()?;
        self.is_unsynced = false;
        Ok(())
    }
}

/// Numbers of a reason's segments, rising.
pub(crate) fn segments(directory: &Path, reason: Reason) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(reason.prefix())?.strip_prefix('-')?.strip_suffix(".q"))
            .and_then(|digits| digits.parse::<u64>().ok());
        found.extend(number.filter(|number| name.to_str() == Some(&reason.file_name(*number))));
    }
    found.sort_unstable();
    Ok(found)
}
