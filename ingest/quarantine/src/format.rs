//! The bytes of a segment. Pure functions: any bytes at all give records or an end, never a panic.

use schemas_frame::{Code, FRAME_BYTES_MAX};

/// Bytes of a record before its content.
pub const RECORD_BYTES: usize = 28;
/// Bytes of a door's name; longer names are cut.
pub const DOOR_BYTES: usize = 8;
const VERSION: u8 = 1;
const KIND_FRAME: u8 = 1;
const KIND_MARK: u8 = 2;
const MARK_BYTES: usize = 16;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A frame as received.
    Frame(&'a [u8]),
    /// The frame at this segment and offset was accepted since.
    Mark {
        /// Number of the segment.
        segment: u64,
        /// Where the frame's record begins.
        offset: u64,
    },
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Arrival, or when the mark was made, microseconds since 1970 UTC.
    pub received_us: i64,
    /// Why it was refused, or what it was accepted with.
    pub code: Code,
    /// The door it came through, padded with zeros.
    pub door: [u8; DOOR_BYTES],
    /// What it holds.
    pub kind: Kind<'a>,
}

impl Record<'_> {
    /// The door's name.
    #[must_use]
    pub fn door_name(&self) -> String {
        String::from_utf8_lossy(&self.door).trim_end_matches('\0').to_owned()
    }

    /// Appends the record's bytes.
    pub fn encode(&self, into: &mut Vec<u8>) {
        let mut mark = [0; MARK_BYTES];
        let (kind, content) = match self.kind {
            Kind::Frame(frame) => (KIND_FRAME, frame),
            Kind::Mark { segment, offset } => {
                mark[..8].copy_from_slice(&segment.to_le_bytes());
                mark[8..].copy_from_slice(&offset.to_le_bytes());
                (KIND_MARK, mark.as_slice())
            }
        };
        let at = into.len();
        into.extend_from_slice(&[0; 4]);
        into.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
        into.extend_from_slice(&[VERSION, kind, code_byte(self.code), 0]);
        into.extend_from_slice(&self.received_us.to_le_bytes());
        into.extend_from_slice(&self.door);
        into.extend_from_slice(content);
        let crc = crc32c::crc32c(&into[at + 4..]).to_le_bytes();
        into[at..at + 4].copy_from_slice(&crc);
    }
}

/// A door's name as a record has it.
pub(crate) fn door_bytes(name: &str) -> [u8; DOOR_BYTES] {
    let mut door = [0; DOOR_BYTES];
    for (to, from) in door.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    door
}

fn code_byte(code: Code) -> u8 {
    Code::ALL.iter().position(|known| *known == code).unwrap_or(usize::from(u8::MAX)) as u8
}

/// The records of a segment with their offsets, up to its end or the first that is not whole.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// Reads from the beginning.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Records<'a> {
        Records { bytes, at: 0 }
    }

    /// Where the next record would begin: the length that is good, once there is no further one.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (usize, Record<'a>);

    fn next(&mut self) -> Option<(usize, Record<'a>)> {
        let rest = self.bytes.get(self.at..)?;
        let (record, len) = parse(rest)?;
        let at = self.at;
        self.at += len;
        Some((at, record))
    }
}

fn parse(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let (header, rest) = bytes.split_first_chunk::<RECORD_BYTES>()?;
    let field = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let length = usize::try_from(field(4)).ok().filter(|length| *length <= FRAME_BYTES_MAX)?;
    let content = rest.get(..length)?;
    let len = RECORD_BYTES + length;
    if crc32c::crc32c(bytes.get(4..len)?) != field(0) || header[8] != VERSION || header[11] != 0 {
        return None;
    }
    let received_us = i64::from_le_bytes(header[12..20].try_into().ok()?);
    let door = header[20..28].try_into().ok()?;
    let code = *Code::ALL.get(usize::from(header[10]))?;
    let kind = match header[9] {
        KIND_FRAME => Kind::Frame(content),
        KIND_MARK => {
            let mark: &[u8; MARK_BYTES] = content.try_into().ok()?;
            let (segment, offset) = mark.split_at(8);
            let segment = u64::from_le_bytes(segment.try_into().ok()?);
            Kind::Mark { segment, offset: u64::from_le_bytes(offset.try_into().ok()?) }
        }
        _ => return None,
    };
    Some((Record { received_us, code, door, kind }, len))
}
