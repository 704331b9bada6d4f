//! What is told about one device: boots, what is missing, how its clock stands. A copy, so that whoever looks holds
//! nothing back.

use schemas_identity::BootId;

use crate::device::Device;
use crate::windows::{BOOTS_VIEWED, GAPS_REPORTED};

/// Where one device stands. Counts are since the start of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceView {
    /// Boots with their highest durable sequence number, the one last heard of first; at most [`BOOTS_VIEWED`].
    pub boots: Vec<(BootId, u64)>,
    /// How many boots are known.
    pub boots_known: usize,
    /// What is missing, at most [`GAPS_REPORTED`], the boot last heard of first.
    pub gaps: Vec<GapView>,
    /// Gaps closed up by late frames.
    pub gaps_filled: u32,
    /// Gaps given up and not filled since.
    pub gaps_closed: u32,
    /// Frames whose `prev` did not fit.
    pub chain_broken: u32,
    /// Present once a frame arrived that this process saw, or the write-ahead log still held.
    pub times: Option<Times>,
}

/// One stretch of missing frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GapView {
    /// The boot.
    pub boot: BootId,
    /// First missing sequence number.
    pub first: u64,
    /// Last missing sequence number.
    pub last: u64,
    /// Arrival of the frame that showed it, microseconds since 1970 UTC; `None` once it was given up.
    pub since_us: Option<i64>,
}

/// A device's times, microseconds since 1970 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// When its last new frame arrived.
    pub last_arrival_us: i64,
    /// Latest time of measurement, whenever it arrived; `None` while no clock of the device has told one.
    pub last_measured_us: Option<i64>,
    /// Its wall clock minus the arrival, at its last frame; `None` if that had no wall clock.
    pub clock_offset_us: Option<i64>,
    /// Whether the clock of its last frame could not be used.
    pub is_clock_corrected: bool,
}

impl DeviceView {
    pub(crate) fn of(device: &Device) -> Option<DeviceView> {
        let (mut boots, mut gaps, mut boots_known) = (Vec::new(), Vec::new(), 0);
        for boot in device.boots() {
            let Some(highest) = boot.highest() else { continue };
            boots_known += 1;
            let id = BootId(boot.id);
            if boots.len() < BOOTS_VIEWED {
                boots.push((id, highest));
            }
            for (first, last, gap) in boot.gaps(GAPS_REPORTED - gaps.len()) {
                gaps.push(GapView { boot: id, first, last, since_us: gap.since_us() });
            }
        }
        let times = device.times();
        let story = &device.story;
        (boots_known > 0 || times.is_some()).then_some(DeviceView {
            boots,
            boots_known,
            gaps,
            gaps_filled: story.filled,
            gaps_closed: story.closed,
            chain_broken: story.chain_broken,
            times,
        })
    }
}
