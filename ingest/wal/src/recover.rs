//! Reading the log back: what is there, is it one unbroken run, where does it end. Changes nothing before it has
//! looked at everything; then only mends the torn tail. Deciding which records still matter is the caller's.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::Disk;
use crate::error::{Flaw, WalError};
use crate::format::{HEADER_BYTES, Header, HeaderRefusal, VERSION, later_append, parse_record};
use crate::wal::{
    APPEND_BYTES_MAX, Active, Options, SEGMENT_BYTES_MAX, SPARES_MAX, Sealed, Wal, create, place,
};

const SEGMENT_SUFFIX: &str = ".wal";
const SPARE_PREFIX: &str = "spare-";
const FIRST_NUMBER: u64 = 1;

/// A record that was in the log when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Its place in the log, counted from the log's first record ever.
    pub position: u64,
    /// When the frame arrived, microseconds since 1970 UTC.
    pub received_us: i64,
    /// The device's number.
    pub device: u32,
    /// Where the frame was placed in time, microseconds since 1970 UTC.
    pub t0_us: i64,
    /// Flag bits of the verdict.
    pub flags: u32,
    /// The verdict's code, as the pipeline numbers it.
    pub code: u8,
    /// The frame as received. A slice of its segment's bytes: copy it if it outlives its neighbours.
    pub frame: Bytes,
}

/// What was cut from the end of the log at open: an append that was never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// File name inside the log's directory.
    pub file: String,
    /// Where the log now ends, bytes from the file's start.
    pub offset: u64,
    /// Position that the next record gets.
    pub position: u64,
}

/// A segment as found, in order.
struct Segment {
    name: String,
    header: Header,
    /// Position after its last record.
    end: u64,
}

/// The records of an opened log, oldest first; reads one segment at a time.
///
/// Keep ahead of `release`: only what this has already given out may be released.
pub struct Replay {
    disk: Arc<dyn Disk>,
    waiting: VecDeque<Segment>,
    current: Option<Reading>,
    from: u64,
}

struct Reading {
    name: String,
    bytes: Bytes,
    salt: u64,
    offset: usize,
    next: u64,
    end: u64,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("segments_waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Replay {
    /// Position at which the oldest segment begins; nothing if the log is new.
    #[must_use]
    pub fn first_position(&self) -> Option<u64> {
        self.waiting.front().map(|segment| segment.header.first)
    }

    /// Leaves out the records below a position (those the lake already holds); whole segments are not even read.
    #[must_use]
    pub fn starting_at(mut self, position: u64) -> Replay {
        self.from = position;
        self.waiting.retain(|segment| segment.end > position);
        self
    }

    fn step(&mut self) -> Result<Option<Recovered>, WalError> {
        loop {
            if let Some(reading) = self.current.as_mut() {
                while reading.next < reading.end {
                    let recovered = reading.take()?;
                    if recovered.position >= self.from {
                        return Ok(Some(recovered));
                    }
                }
                self.current = None;
            }
            let Some(segment) = self.waiting.pop_front() else {
                return Ok(None);
            };
            let bytes = read_whole(&*self.disk, &segment.name, segment.header.file_bytes)?;
            self.current = Some(Reading {
                bytes: Bytes::from(bytes),
                salt: segment.header.salt(),
                offset: HEADER_BYTES,
                next: segment.header.first,
                end: segment.end,
                name: segment.name,
            });
        }
    }
}

impl Iterator for Replay {
    type Item = Result<Recovered, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.waiting.clear();
            self.current = None;
        }
        step.transpose()
    }
}

impl Reading {
    fn take(&mut self) -> Result<Recovered, WalError> {
        let found = parse_record(&self.bytes, self.offset, self.next ^ self.salt)
            .map_err(|flaw| WalError::corrupt(&self.name, self.offset as u64, flaw))?;
        let position = self.next;
        self.next += 1;
        self.offset = found.frame.end;
        Ok(Recovered {
            position,
            received_us: found.received_us,
            device: found.device,
            t0_us: found.t0_us,
            flags: found.flags,
            code: found.code,
            frame: self.bytes.slice(found.frame),
        })
    }
}

/// Opens the log on a disk. See `Wal::open`.
pub(crate) fn open(disk: Arc<dyn Disk>, options: &Options) -> Result<(Wal, Replay), WalError> {
    let Options { segment_bytes, bytes_max, free_bytes_min, first_position, .. } = *options;
    let names = disk.list().map_err(|source| WalError::io("listing", "", source))?;
    let mut segments = read_headers(&*disk, &names)?;
    let mut spare_number = 1 + names.iter().filter_map(|name| parse_spare(name)).max().unwrap_or(0);
    let mut torn = None;
    let active = if let Some((last, sealed)) = segments.split_last_mut() {
        let chain = check_sealed(&*disk, sealed)?;
        check_chain(last, chain)?;
        let (active, tail) = open_last(&*disk, last)?;
        torn = tail;
        active
    } else {
        let (number, first) = (FIRST_NUMBER, first_position);
        let header = Header { number, first, file_bytes: segment_bytes, chain: [0; 32] };
        let spare = spare_name(spare_number);
        spare_number = spare_number.saturating_add(1);
        create(&*disk, &spare, segment_bytes)?;
        place(&*disk, &spare, &header)?
    };
    let sealed_count = segments.len().saturating_sub(1);
    let sealed = segments.iter().take(sealed_count).map(|segment| Sealed {
        name: segment.name.clone(),
        end: segment.end,
        file_bytes: segment.header.file_bytes,
    });
    let mut wal = Wal {
        sealed: sealed.collect(),
        active,
        disk: Arc::clone(&disk),
        segment_bytes,
        bytes_max,
        free_bytes_min,
        spares: Vec::new(),
        spare_number,
        torn,
        poisoned: false,
        buffer: Vec::new(),
    };
    wal.spares = keep_spares(&wal, &names)?;
    Ok((wal, Replay { disk, waiting: segments.into(), current: None, from: 0 }))
}

/// All segments by number, each with a good header, numbers without a hole, positions not going back.
fn read_headers(disk: &dyn Disk, names: &[String]) -> Result<Vec<Segment>, WalError> {
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| parse_segment(name)).collect();
    numbers.sort_unstable();
    let mut segments: Vec<Segment> = Vec::with_capacity(numbers.len());
    for number in numbers {
        let name = segment_name(number);
        let header = read_header(disk, &name, number)?;
        if let Some(before) = segments.last_mut() {
            if before.header.number + 1 != number {
                return Err(WalError::corrupt(&name, 0, Flaw::Gap));
            }
            if header.first < before.header.first {
                return Err(WalError::corrupt(&name, 0, Flaw::Position { found: header.first }));
            }
            before.end = header.first;
        }
        segments.push(Segment { name, end: header.first, header });
    }
    Ok(segments)
}

fn read_header(disk: &dyn Disk, name: &str, number: u64) -> Result<Header, WalError> {
    let found = disk.len(name).map_err(|source| WalError::io("measuring", name, source))?;
    if found < HEADER_BYTES as u64 {
        return Err(WalError::corrupt(name, 0, Flaw::Short));
    }
    let bytes =
        disk.read_at(name, 0, HEADER_BYTES).map_err(|source| WalError::io("reading", name, source))?;
    let header = match Header::parse(&bytes) {
        Ok(header) => header,
        Err(HeaderRefusal::Flaw(flaw)) => return Err(WalError::corrupt(name, 0, flaw)),
        Err(HeaderRefusal::Version(found)) => {
            return Err(WalError::Version { file: name.to_owned(), found, supported: VERSION });
        }
    };
    if header.number != number {
        return Err(WalError::corrupt(name, 0, Flaw::Number { found: header.number }));
    }
    if header.file_bytes != found || found > SEGMENT_BYTES_MAX {
        return Err(WalError::corrupt(name, 0, Flaw::Size { found, expected: header.file_bytes }));
    }
    Ok(header)
}

/// Reads every sealed segment whole: each record good, each digest the one the next header names.
/// Gives the digest of the last of them.
fn check_sealed(disk: &dyn Disk, sealed: &[Segment]) -> Result<Option<[u8; 32]>, WalError> {
    let mut chain = None;
    for segment in sealed {
        check_chain(segment, chain)?;
        let bytes = read_whole(disk, &segment.name, segment.header.file_bytes)?;
        let salt = segment.header.salt();
        let mut offset = HEADER_BYTES;
        for position in segment.header.first..segment.end {
            let found = parse_record(&bytes, offset, position ^ salt)
                .map_err(|flaw| WalError::corrupt(&segment.name, offset as u64, flaw))?;
            offset = found.frame.end;
        }
        let used = bytes.get(..offset).unwrap_or_default();
        chain = Some(*blake3::hash(used).as_bytes());
    }
    Ok(chain)
}

fn check_chain(segment: &Segment, before: Option<[u8; 32]>) -> Result<(), WalError> {
    match before {
        Some(chain) if chain != segment.header.chain => Err(WalError::corrupt(&segment.name, 0, Flaw::Chain)),
        _ => Ok(()),
    }
}

/// Finds the end of the last segment, refuses damage that is no torn tail, and makes what stays durable.
fn open_last(disk: &dyn Disk, last: &mut Segment) -> Result<(Active, Option<TornTail>), WalError> {
    let mut bytes = read_whole(disk, &last.name, last.header.file_bytes)?;
    let salt = last.header.salt();
    let mut next = last.header.first;
    let mut cut = HEADER_BYTES;
    while let Ok(found) = parse_record(&bytes, cut, next ^ salt) {
        cut = found.frame.end;
        next += 1;
    }
    if let Some(later) = later_append(&bytes, cut, next, salt) {
        let flaw = parse_record(&bytes, cut, next ^ salt).err().unwrap_or(Flaw::Mark);
        tracing::error!(file = %last.name, offset = cut, %flaw, "write-ahead log is damaged");
        return Err(WalError::corrupt(&last.name, cut as u64, Flaw::Middle { later: later as u64 }));
    }
    let torn = has_tail(&bytes, cut, next, salt).then(|| TornTail {
        file: last.name.clone(),
        offset: cut as u64,
        position: next,
    });
    mend(disk, &last.name, &mut bytes, cut)?;
    last.end = next;
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes.get(..cut).unwrap_or_default());
    let active = Active {
        name: last.name.clone(),
        number: last.header.number,
        next,
        offset: cut as u64,
        file_bytes: last.header.file_bytes,
        salt,
        hasher,
    };
    Ok((active, torn))
}

/// Whether something of a torn append can be seen after the end. Stale bytes of an earlier life are not it.
fn has_tail(bytes: &[u8], cut: usize, next: u64, salt: u64) -> bool {
    !matches!(parse_record(bytes, cut, next ^ salt), Ok(_) | Err(Flaw::Mark | Flaw::Short))
}

/// Writes the end of the last segment again: the records that the last append before the crash may have left in the
/// page cache only, then zeros over everything that a torn append may have left behind.
///
/// Without the first half, a record read from the cache could be handed out and then lost with the power; without
/// the second, a record of the torn append could follow a new, shorter one and look genuine.
fn mend(disk: &dyn Disk, name: &str, bytes: &mut [u8], cut: usize) -> Result<(), WalError> {
    let reach = usize::try_from(APPEND_BYTES_MAX).unwrap_or(usize::MAX);
    let from = cut.saturating_sub(reach).max(HEADER_BYTES);
    let to = cut.saturating_add(reach).min(bytes.len());
    if let Some(tail) = bytes.get_mut(cut..to) {
        tail.fill(0);
    }
    let window = bytes.get(from..to).unwrap_or_default();
    disk.write_at(name, from as u64, window).map_err(|source| WalError::io("mending", name, source))?;
    disk.sync(name).map_err(|source| WalError::io("syncing", name, source))
}

/// Keeps spares of the right size within the bounds, removes the others.
fn keep_spares(wal: &Wal, names: &[String]) -> Result<Vec<String>, WalError> {
    let mut kept = Vec::new();
    let mut bytes = wal.bytes_used();
    for name in names.iter().filter(|name| parse_spare(name).is_some()) {
        let len = wal.disk.len(name).map_err(|source| WalError::io("measuring", name, source))?;
        let fits = bytes.saturating_add(len) <= wal.bytes_max;
        if len == wal.segment_bytes && fits && kept.len() < SPARES_MAX {
            bytes += len;
            kept.push(name.clone());
        } else {
            wal.disk.remove(name).map_err(|source| WalError::io("removing", name, source))?;
        }
    }
    // Not only for the removed ones: a segment name given just before a kill may not be durable yet.
    wal.disk.sync_dir().map_err(|source| WalError::io("syncing the directory", "", source))?;
    Ok(kept)
}

fn read_whole(disk: &dyn Disk, name: &str, len: u64) -> Result<Vec<u8>, WalError> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    disk.read_at(name, 0, len).map_err(|source| WalError::io("reading", name, source))
}

/// Name of a segment's file.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:016x}{SEGMENT_SUFFIX}")
}

/// Name of a spare file.
pub(crate) fn spare_name(number: u64) -> String {
    format!("{SPARE_PREFIX}{number:016x}")
}

fn parse_segment(name: &str) -> Option<u64> {
    let number = parse_number(name.strip_suffix(SEGMENT_SUFFIX)?)?;
    // The highest number could have no successor.
    (number < u64::MAX).then_some(number)
}

fn parse_spare(name: &str) -> Option<u64> {
    let number = parse_number(name.strip_prefix(SPARE_PREFIX)?)?;
    (number < u64::MAX).then_some(number)
}

fn parse_number(text: &str) -> Option<u64> {
    let is_ours = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if is_ours { u64::from_str_radix(text, 16).ok() } else { None }
}
