//! After a restart: stored ranges and the write-ahead log give the windows and the tail back.

use bytes::Bytes;
use ingest_devices::Ask;
use ingest_lake::{Admitted, Lake};
use schemas_frame::{Code, Frame};
use schemas_identity::DeviceNumber;

use crate::{Decider, Options, StartError};

/// Frames put into the tail at a time.
const CHUNK_FRAMES: usize = 4_096;

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Frames that were acknowledged and not yet in a batch.
    pub frames: u64,
    /// Records that were in a batch already.
    pub covered: u64,
}

/// A code as one byte of a write-ahead log record.
pub(crate) fn code_byte(code: Code) -> u8 {
    Code::ALL.iter().position(|known| *known == code).unwrap_or(0) as u8
}

fn code_of(byte: u8) -> Code {
    Code::ALL.get(usize::from(byte)).copied().unwrap_or(Code::Ok)
}

/// A write-ahead log that is new begins where the lake ends: a position means one frame for ever.
pub(crate) fn wal_options(options: &Options, lake: &Lake) -> ingest_wal::Options {
    ingest_wal::Options { first_position: lake.covered(), ..options.wal.clone() }
}

impl Decider {
    /// Restores the windows from the lake, then replays records that no batch covers.
    pub(crate) fn recover(&mut self, replay: ingest_wal::Replay) -> Result<Recovered, StartError> {
        // Stored ranges do not tell when they arrived: what is missing among them is known since now.
        self.windows.arrive(self.duties.now_us());
        for range in self.lake.ranges() {
            self.windows.restore(&range);
        }
        let covered = self.lake.covered();
        let next = self.wal.next_position();
        let first = replay.first_position().unwrap_or(next);
        // A gap on either side. Below `covered` new frames would be taken for old ones at the start after this one.
        if first > covered || next < covered {
            return Err(StartError::Missing { first, next, covered });
        }
        let mut recovered = Recovered::default();
        let mut chunk = Vec::with_capacity(CHUNK_FRAMES);
        for record in replay {
            let record = record?;
            let Ok(frame) = Frame::parse(&record.frame) else { continue };
            self.remember(&frame, record.device, record.received_us);
            if record.position < covered {
                recovered.covered += 1;
                continue;
            }
            recovered.frames += 1;
            chunk.push(Admitted {
                position: record.position,
                device: record.device,
                t0_us: record.t0_us,
                received_us: record.received_us,
                flags: record.flags,
                code: code_of(record.code),
                frame: Bytes::copy_from_slice(&record.frame),
            });
            if chunk.len() == CHUNK_FRAMES {
                self.lake.push(std::mem::take(&mut chunk));
            }
        }
        self.lake.push(chunk);
        self.windows.begin();
        Ok(recovered)
    }

    fn remember(&mut self, frame: &Frame<'_>, device: u32, received_us: i64) {
        let ask = Ask {
            device: DeviceNumber(device),
            boot: frame.boot(),
            seq: frame.seq(),
            digest: frame.digest16(),
            prev: frame.prev(),
            is_revoked: false,
        };
        self.windows.arrive(received_us);
        self.windows.record(&ask);
        self.windows.place(ask.device, ask.boot, (frame.wall_us(), frame.mono_us()), received_us);
    }
}
