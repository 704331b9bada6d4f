//! Reading: what is kept and was not accepted since. Reads files that are being appended to: what is not whole is not there.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use schemas_frame::Frame;
use schemas_identity::{BootId, ShortId};

use crate::format::{Kind, Records};
use crate::store::segments;
use crate::{Reason, RecordId};

/// Which frames are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Of this reason only.
    pub reason: Option<Reason>,
    /// Signed in the name of this key only.
    pub device: Option<ShortId>,
    /// At most so many, the oldest of each reason first.
    pub count_max: usize,
    /// At most so many bytes of frames, but at least one frame.
    pub bytes_max: usize,
}

/// A frame that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub id: RecordId,
    /// Arrival, microseconds since 1970 UTC.
    pub received_us: i64,
    /// Name of the door.
    pub door: String,
    /// Device, boot and number that it claims, if it can be read.
    pub claims: Option<(ShortId, BootId, u64)>,
    /// The bytes as received.
    pub frame: Vec<u8>,
}

/// Lists frames; true if there are more.
///
/// # Errors
/// The system's.
pub fn list(directory: &Path, filter: &Filter) -> io::Result<(Vec<Entry>, bool)> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for reason in Reason::ALL {
        if filter.reason.is_some_and(|wanted| wanted != reason) {
            continue;
        }
        let accepted = marks(directory, reason)?;
        for segment in segments(directory, reason)? {
            for (offset, record) in Records::new(&read(directory, reason, segment)?) {
                let Kind::Frame(frame) = record.kind else { continue };
                let claims = Frame::parse(frame).ok().map(|frame| (frame.kid(), frame.boot(), frame.seq()));
                let is_other =
                    filter.device.is_some_and(|device| claims.map(|claims| claims.0) != Some(device));
                let offset = offset as u64;
                if is_other || accepted.contains(&(segment, offset)) {
                    continue;
                }
                bytes += frame.len();
                if found.len() >= filter.count_max || (bytes > filter.bytes_max && !found.is_empty()) {
                    return Ok((found, true));
                }
                let (id, door) = (RecordId { reason, segment, offset }, record.door_name());
                let received_us = record.received_us;
                found.push(Entry { id, received_us, door, claims, frame: frame.to_vec() });
            }
        }
    }
    Ok((found, false))
}

fn marks(directory: &Path, reason: Reason) -> io::Result<HashSet<(u64, u64)>> {
    let mut accepted = HashSet::new();
    for segment in segments(directory, reason)? {
        for (_, record) in Records::new(&read(directory, reason, segment)?) {
            if let Kind::Mark { segment, offset } = record.kind {
                accepted.insert((segment, offset));
            }
        }
    }
    Ok(accepted)
}

/// A segment that made room meanwhile reads as empty.
fn read(directory: &Path, reason: Reason, segment: u64) -> io::Result<Vec<u8>> {
    match fs::read(directory.join(reason.file_name(segment))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}
