//! Record files on disk. The layout stands at the head of the crate; this file reads and writes it.
//!
//! A group is one write and one sync, so a crash can only tear the last group of the last file. Damage anywhere else is not
//! a torn tail: opening refuses and names the place. What it is not: aware of what a record says.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::AuditError;

const FILE_MAGIC: &[u8; 16] = b"vitalog-audit-1\n";
const GROUP_MAGIC: &[u8; 4] = b"vAG1";
const GROUP_HEAD_BYTES: usize = 12;
const RECORD_HEAD_BYTES: usize = 1 + 8 + 8 + 32 + 4;
const ITEM_RECORD: u8 = 1;
const ITEM_LINK: u8 = 2;
/// A record that is to be read together with another: builds that would pass over what it refers to refuse the file.
const ITEM_REFERRING: u8 = 3;
/// Largest payload of a group that is read back: a record of the most subjects and some company.
pub(crate) const GROUP_BYTES_MAX: usize = 256 * 1024 * 1024;

/// One thing in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Record { number: u64, log_size: u64, salt: [u8; 32], body: Vec<u8>, refers: bool },
    Link { number: u64, log_index: u64 },
}

/// Where a record's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: u32,
    /// Of the body; the salt and the log size stand right before it.
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
}

/// The files of a directory, the last one open for appending.
pub(crate) struct Files {
    dir: PathBuf,
    number: u32,
    file: File,
    length: u64,
    file_bytes_max: u64,
    is_poisoned: bool,
}

impl Files {
    /// Reads all files in order, handing each item to `visit`; cuts a torn tail off the last one.
    /// Returns the files ready for appending and how many bytes were cut.
    pub(crate) fn open(
        dir: &Path,
        file_bytes_max: u64,
        mut visit: impl FnMut(Item, Option<Place>) -> Result<(), AuditError>,
    ) -> Result<(Files, u64), AuditError> {
        let numbers = existing(dir)?;
        let last = numbers.last().copied();
        let mut torn_bytes = 0;
        for number in numbers {
            let path = path_of(dir, number);
            let bytes = fs::read(&path).map_err(AuditError::io("read", &path))?;
            let good = scan(&bytes, number, &path, &mut visit)?;
            if good < bytes.len() {
                if Some(number) != last || holds_group_after(&bytes, good) {
                    return Err(corrupt(&path, good, "a group that does not check, before others that do"));
                }
                torn_bytes = (bytes.len() - good) as u64;
                cut(&path, good)?;
            }
        }
        let number = last.unwrap_or(1);
        let (file, length) = open_for_append(dir, number)?;
        let files = Files { dir: dir.to_owned(), number, file, length, file_bytes_max, is_poisoned: false };
        Ok((files, torn_bytes))
    }

    /// The number of the file that the next group will be in.
    pub(crate) fn next_file(&self) -> u32 {
        if self.length >= self.file_bytes_max { self.number + 1 } else { self.number }
    }

    /// Writes items as one group and syncs. When it returns they are durable; the places are those of the records.
    pub(crate) fn append(&mut self, items: &[Item]) -> Result<Vec<Place>, AuditError> {
        if self.is_poisoned {
            return Err(AuditError::Poisoned);
        }
        let written = self.try_append(items);
        // After a failed write or sync nobody knows what the disk has: only reading it again can tell.
        self.is_poisoned = written.is_err();
        written
    }

    fn try_append(&mut self, items: &[Item]) -> Result<Vec<Place>, AuditError> {
        let number = self.next_file();
        if number != self.number {
            (self.file, self.length) = open_for_append(&self.dir, number)?;
            self.number = number;
        }
        let (group, places) = encode(items, self.number, self.length);
        let path = path_of(&self.dir, self.number);
        self.file.write_all(&group).map_err(AuditError::io("write", &path))?;
        self.file.sync_data().map_err(AuditError::io("sync", &path))?;
        self.length += group.len() as u64;
        Ok(places)
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.is_poisoned
    }
}

/// Reads one record back: its salt and body.
pub(crate) fn read(dir: &Path, place: Place) -> Result<([u8; 32], Vec<u8>), AuditError> {
    let path = path_of(dir, place.file);
    let mut file = File::open(&path).map_err(AuditError::io("open", &path))?;
    let (mut salt, mut body) = ([0; 32], vec![0; place.bytes as usize]);
    file.seek(SeekFrom::Start(place.offset.saturating_sub(36))).map_err(AuditError::io("seek", &path))?;
    file.read_exact(&mut salt).map_err(AuditError::io("read", &path))?;
    file.seek(SeekFrom::Start(place.offset)).map_err(AuditError::io("seek", &path))?;
    file.read_exact(&mut body).map_err(AuditError::io("read", &path))?;
    Ok((salt, body))
}

fn path_of(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.audit"))
}

fn corrupt(path: &Path, offset: usize, problem: &'static str) -> AuditError {
    AuditError::Corrupt { path: path.to_owned(), offset: offset as u64, problem }
}

/// Numbers of the files there are: 1, 2, 3 and so on without a gap.
fn existing(dir: &Path) -> Result<Vec<u32>, AuditError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(AuditError::io("list", dir))? {
        let name = entry.map_err(AuditError::io("list", dir))?.file_name();
        let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".audit")) else { continue };
        if let Ok(number) = stem.parse::<u32>() {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    for (expected, number) in (1..).zip(&numbers) {
        if expected != *number {
            return Err(corrupt(&path_of(dir, expected), 0, "the file is missing"));
        }
    }
    Ok(numbers)
}

/// Opens a file at its end, with its head written and the directory synced if it is new.
fn open_for_append(dir: &Path, number: u32) -> Result<(File, u64), AuditError> {
    let path = path_of(dir, number);
    let mut options = OpenOptions::new();
    let mut file = options.append(true).create(true).open(&path).map_err(AuditError::io("open", &path))?;
    let length = file.metadata().map_err(AuditError::io("stat", &path))?.len();
    if length > 0 {
        return Ok((file, length));
    }
    file.write_all(FILE_MAGIC).map_err(AuditError::io("write", &path))?;
    file.sync_all().map_err(AuditError::io("sync", &path))?;
    sync_dir(dir)?;
    Ok((file, FILE_MAGIC.len() as u64))
}

fn sync_dir(dir: &Path) -> Result<(), AuditError> {
    let opened = File::open(dir).map_err(AuditError::io("open", dir))?;
    opened.sync_all().map_err(AuditError::io("sync", dir))
}

fn cut(path: &Path, length: usize) -> Result<(), AuditError> {
    let file = OpenOptions::new().write(true).open(path).map_err(AuditError::io("open", path))?;
    file.set_len(length as u64).map_err(AuditError::io("truncate", path))?;
    file.sync_all().map_err(AuditError::io("sync", path))
}

fn encode(items: &[Item], file: u32, at: u64) -> (Vec<u8>, Vec<Place>) {
    let mut group = vec![0; GROUP_HEAD_BYTES];
    let mut places = Vec::new();
    for item in items {
        match item {
            Item::Record { number, log_size, salt, body, refers } => {
                group.push(if *refers { ITEM_REFERRING } else { ITEM_RECORD });
                group.extend_from_slice(&number.to_le_bytes());
                group.extend_from_slice(&log_size.to_le_bytes());
                group.extend_from_slice(salt);
                group.extend_from_slice(&(body.len() as u32).to_le_bytes());
                places.push(Place { file, offset: at + group.len() as u64, bytes: body.len() as u32 });
                group.extend_from_slice(body);
            }
            Item::Link { number, log_index } => {
                group.push(ITEM_LINK);
                group.extend_from_slice(&number.to_le_bytes());
                group.extend_from_slice(&log_index.to_le_bytes());
            }
        }
    }
    let payload = group.split_off(GROUP_HEAD_BYTES);
    let mut out = Vec::with_capacity(GROUP_HEAD_BYTES + payload.len());
    out.extend_from_slice(GROUP_MAGIC);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
    out.extend_from_slice(&payload);
    (out, places)
}

/// Visits the items of a file's good groups and returns how many bytes are good.
fn scan(
    bytes: &[u8],
    file: u32,
    path: &Path,
    visit: &mut impl FnMut(Item, Option<Place>) -> Result<(), AuditError>,
) -> Result<usize, AuditError> {
    if !bytes.starts_with(FILE_MAGIC) {
        // A crash right after creating the file leaves less than a head; any other beginning is not ours.
        return if FILE_MAGIC.starts_with(bytes) || bytes.iter().all(|byte| *byte == 0) {
            Ok(0)
        } else {
            Err(corrupt(path, 0, "not a record file of this format"))
        };
    }
    let mut at = FILE_MAGIC.len();
    while let Some(payload) = group_at(bytes, at) {
        let begin = at + GROUP_HEAD_BYTES;
        items(payload, |item, offset| {
            let place = match &item {
                Item::Record { body, .. } => {
                    Some(Place { file, offset: (begin + offset) as u64, bytes: body.len() as u32 })
                }
                Item::Link { .. } => None,
            };
            visit(item, place)
        })?
        .ok_or_else(|| corrupt(path, at, "an item that does not end where it should"))?;
        at = begin + payload.len();
    }
    Ok(at)
}

/// The payload of the group that begins here, if it is whole and checks.
fn group_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let head = bytes.get(at..at.checked_add(GROUP_HEAD_BYTES)?)?;
    let (magic, head) = head.split_first_chunk::<4>()?;
    let (length, head) = head.split_first_chunk::<4>()?;
    let crc = head.first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if magic != GROUP_MAGIC || length > GROUP_BYTES_MAX {
        return None;
    }
    let payload = bytes.get(at + GROUP_HEAD_BYTES..)?.get(..length)?;
    (crc32c::crc32c(payload) == u32::from_le_bytes(*crc)).then_some(payload)
}

/// Whether any whole group begins after a place: then what is there is damage, not a torn end.
fn holds_group_after(bytes: &[u8], at: usize) -> bool {
    let mut from = at + 1;
    while let Some(found) =
        bytes.get(from..).and_then(|rest| rest.windows(4).position(|four| four == GROUP_MAGIC))
    {
        if group_at(bytes, from + found).is_some() {
            return true;
        }
        from += found + 1;
    }
    false
}

type Visited = Result<Option<()>, AuditError>;

/// Visits each item with its body's offset in the payload; nothing if the payload does not divide into items.
fn items(payload: &[u8], mut visit: impl FnMut(Item, usize) -> Result<(), AuditError>) -> Visited {
    let mut at = 0;
    while at < payload.len() {
        let Some((item, offset, length)) = payload.get(at..).and_then(item_at) else { return Ok(None) };
        visit(item, at + offset)?;
        at += length;
    }
    Ok(Some(()))
}

/// The item at the front, the offset of its body and its whole length.
fn item_at(bytes: &[u8]) -> Option<(Item, usize, usize)> {
    let (kind, rest) = bytes.split_first()?;
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let number = u64::from_le_bytes(*number);
    let (second, rest) = rest.split_first_chunk::<8>()?;
    let second = u64::from_le_bytes(*second);
    match *kind {
        ITEM_LINK => Some((Item::Link { number, log_index: second }, 17, 17)),
        ITEM_RECORD | ITEM_REFERRING => {
            let (salt, rest) = rest.split_first_chunk::<32>()?;
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let length = u32::from_le_bytes(*length) as usize;
            let body = rest.get(..length)?.to_vec();
            let item =
                Item::Record { number, log_size: second, salt: *salt, body, refers: *kind == ITEM_REFERRING };
            Some((item, RECORD_HEAD_BYTES, RECORD_HEAD_BYTES + length))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
