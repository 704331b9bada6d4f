//! The bytes of a segment: header and record, both ways. Pure functions; no files here. Layout: see the crate's page.

use std::ops::Range;

use crate::error::Flaw;

/// Most bytes of one frame in a record; the frame room's own limit is lower.
pub const RECORD_FRAME_BYTES_MAX: usize = 1 << 20;
/// Newest format version this program reads, and the one it writes.
pub(crate) const VERSION: u16 = 1;
/// Bytes of a segment's header.
pub(crate) const HEADER_BYTES: usize = 96;
/// Bytes of a record before its frame.
pub(crate) const RECORD_BYTES: usize = 48;

const MAGIC: [u8; 8] = *b"VITALWAL";
const HEADER_CRC_AT: usize = 92;

/// One thing to be made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
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
    /// The frame as received.
    pub frame: &'a [u8],
}

impl Record<'_> {
    pub(crate) fn encoded_len(&self) -> usize {
        RECORD_BYTES + self.frame.len()
    }
}

/// What a segment's first bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) number: u64,
    pub(crate) first: u64,
    pub(crate) file_bytes: u64,
    pub(crate) chain: [u8; 32],
}

/// Why a header is not usable: damage, or a version from the future.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderRefusal {
    Flaw(Flaw),
    Version(u16),
}

impl From<Flaw> for HeaderRefusal {
    fn from(flaw: Flaw) -> Self {
        HeaderRefusal::Flaw(flaw)
    }
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0_u8; HEADER_BYTES];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&self.number.to_le_bytes());
        out[24..32].copy_from_slice(&self.first.to_le_bytes());
        out[32..40].copy_from_slice(&self.file_bytes.to_le_bytes());
        out[56..88].copy_from_slice(&self.chain);
        let crc = crc32c::crc32c(&out[..HEADER_CRC_AT]);
        out[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Header, HeaderRefusal> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(Flaw::Short)?;
        if bytes[0..8] != MAGIC {
            return Err(Flaw::Magic.into());
        }
        // The version comes before the checksum: a later format may check itself in another way.
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version > VERSION {
            return Err(HeaderRefusal::Version(version));
        }
        let stored = u32_at(bytes, HEADER_CRC_AT).ok_or(Flaw::Short)?;
        let computed = crc32c::crc32c(&bytes[..HEADER_CRC_AT]);
        if stored != computed {
            return Err(Flaw::Checksum { stored, computed }.into());
        }
        let reserved = [&bytes[10..16], &bytes[40..56], &bytes[88..92]];
        if version != VERSION || reserved.iter().any(|part| part.iter().any(|byte| *byte != 0)) {
            return Err(Flaw::Reserved.into());
        }
        let mut chain = [0_u8; 32];
        chain.copy_from_slice(&bytes[56..88]);
        Ok(Header {
            number: u64_at(bytes, 16).ok_or(Flaw::Short)?,
            first: u64_at(bytes, 24).ok_or(Flaw::Short)?,
            file_bytes: u64_at(bytes, 32).ok_or(Flaw::Short)?,
            chain,
        })
    }

    /// What every record of this segment's present life is marked with.
    pub(crate) fn salt(&self) -> u64 {
        let digest = blake3::hash(&self.encode());
        u64_at(digest.as_bytes(), 0).unwrap_or_default()
    }
}

/// A record found in a segment's bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) received_us: i64,
    pub(crate) device: u32,
    pub(crate) t0_us: i64,
    pub(crate) flags: u32,
    pub(crate) code: u8,
    /// Index of the record in the append that wrote it.
    pub(crate) index: u32,
    /// Where the frame is in the segment; the next record starts at its end.
    pub(crate) frame: Range<usize>,
}

/// Appends one record's bytes to `out`. The caller has checked the frame's length.
pub(crate) fn encode_record(out: &mut Vec<u8>, record: &Record<'_>, mark: u64, index: u32) {
    let start = out.len();
    let len = u32::try_from(record.frame.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&mark.to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    out.extend_from_slice(&record.device.to_le_bytes());
    out.extend_from_slice(&record.received_us.to_le_bytes());
    out.extend_from_slice(&record.t0_us.to_le_bytes());
    out.extend_from_slice(&record.flags.to_le_bytes());
    out.extend_from_slice(&[record.code, 0, 0, 0]);
    out.extend_from_slice(record.frame);
    let crc = record_crc(&out[start..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the record at `offset`, which must carry exactly `mark`.
pub(crate) fn parse_record(segment: &[u8], offset: usize, mark: u64) -> Result<Found, Flaw> {
    let rest = segment.get(offset..).ok_or(Flaw::Short)?;
    if u64_at(rest, 8).ok_or(Flaw::Short)? != mark {
        return Err(Flaw::Mark);
    }
    parse_marked(rest, offset)
}

/// Reads a record whose mark has been looked at; `rest` starts at `offset` of the segment.
fn parse_marked(rest: &[u8], offset: usize) -> Result<Found, Flaw> {
    let len = u32_at(rest, 0).ok_or(Flaw::Short)?;
    let frame_len = usize::try_from(len).map_err(|_| Flaw::Length { len })?;
    if frame_len > RECORD_FRAME_BYTES_MAX {
        return Err(Flaw::Length { len });
    }
    let bytes = rest.get(..RECORD_BYTES + frame_len).ok_or(Flaw::Short)?;
    let stored = u32_at(bytes, 4).ok_or(Flaw::Short)?;
    let computed = record_crc(bytes);
    if stored != computed {
        return Err(Flaw::Checksum { stored, computed });
    }
    if bytes[45..48] != [0; 3] {
        return Err(Flaw::Reserved);
    }
    Ok(Found {
        index: u32_at(bytes, 16).ok_or(Flaw::Short)?,
        device: u32_at(bytes, 20).ok_or(Flaw::Short)?,
        received_us: u64_at(bytes, 24).ok_or(Flaw::Short)?.cast_signed(),
        t0_us: u64_at(bytes, 32).ok_or(Flaw::Short)?.cast_signed(),
        flags: u32_at(bytes, 40).ok_or(Flaw::Short)?,
        code: bytes[44],
        frame: offset + RECORD_BYTES..offset + RECORD_BYTES + frame_len,
    })
}

/// Looks after `cut` for a record of an append that began later than position `torn`, the first bad one.
///
/// Its presence proves that the append holding `torn` had been synced, so the bad record is damage.
pub(crate) fn later_append(segment: &[u8], cut: usize, torn: u64, salt: u64) -> Option<usize> {
    let last_start = segment.len().checked_sub(RECORD_BYTES)?;
    // No more records than this fit between here and the end, so no higher position can be genuine.
    let reach = (segment.len() / RECORD_BYTES) as u64;
    for offset in cut + 1..=last_start {
        let position = u64_at(segment, offset + 8)? ^ salt;
        if position <= torn || position - torn > reach {
            continue;
        }
        if let Ok(found) = parse_marked(segment.get(offset..)?, offset)
            && position - u64::from(found.index).min(position) > torn
        {
            return Some(offset);
        }
    }
    None
}

/// Over everything in the record but the checksum itself.
fn record_crc(record: &[u8]) -> u32 {
    let head = record.get(..4).unwrap_or_default();
    let rest = record.get(8..).unwrap_or_default();
    crc32c::crc32c_append(crc32c::crc32c(head), rest)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header { number: 7, first: 42, file_bytes: 4096, chain: [9; 32] }
    }

    fn record(frame: &[u8]) -> Record<'_> {
        Record { received_us: -5, device: 3, t0_us: i64::MAX, flags: 0x21, code: 4, frame }
    }

    // A header comes back as it was, and no single changed bit is taken for one.
    #[test]
    fn header_round_trip_and_bit_flips() {
        let bytes = header().encode();
        assert_eq!(Header::parse(&bytes), Ok(header()));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::parse(&bad).is_err(), "bit {bit}");
        }
        assert_eq!(Header::parse(&bytes[..95]), Err(Flaw::Short.into()));
    }

    // A header of a newer program is told apart from damage.
    #[test]
    fn newer_version_is_named() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        assert_eq!(Header::parse(&bytes), Err(HeaderRefusal::Version(2)));
    }

    // A record comes back as it was; each single changed bit and each cut is refused.
    #[test]
    fn record_round_trip_bit_flips_and_cuts() {
        let mut bytes = Vec::new();
        encode_record(&mut bytes, &record(b"frame bytes"), 77, 5);
        let found = parse_record(&bytes, 0, 77).unwrap();
        assert_eq!((found.received_us, found.device, found.t0_us), (-5, 3, i64::MAX));
        assert_eq!((found.flags, found.code, found.index), (0x21, 4, 5));
        assert_eq!(&bytes[found.frame], b"frame bytes");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_record(&bad, 0, 77).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(parse_record(&bytes[..len], 0, 77).is_err(), "cut to {len}");
        }
        assert_eq!(parse_record(&bytes, usize::MAX, 77), Err(Flaw::Short));
    }

    // A record of another position or of another life of the file is never taken.
    #[test]
    fn foreign_mark_is_refused() {
        let mut bytes = Vec::new();
        encode_record(&mut bytes, &record(b"x"), 77, 0);
        assert_eq!(parse_record(&bytes, 0, 78), Err(Flaw::Mark));
    }

    // The rest of the torn append does not count as a later append; the next append does, wherever it starts.
    #[test]
    fn later_append_is_told_from_the_rest_of_the_same() {
        let mut bytes = vec![0; 10];
        encode_record(&mut bytes, &record(b"same"), 11 ^ 99, 1);
        assert_eq!(later_append(&bytes, 0, 10, 99), None);
        let start = bytes.len();
        encode_record(&mut bytes, &record(b"next"), 12 ^ 99, 0);
        assert_eq!(later_append(&bytes, 0, 10, 99), Some(start));
        assert_eq!(later_append(&bytes, 0, 10, 98), None);
        assert_eq!(later_append(&[], 0, 10, 99), None);
    }
}
