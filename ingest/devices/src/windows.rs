//! Exactly once: per device and boot, which sequence numbers are durable, which are reserved by the group that is being
//! written, and whether the chain of `prev` holds. In memory; rebuilt from stored ranges and the write-ahead log.
//!
//! Frames of one group are judged one after the other against what is durable *and* reserved; then one `commit` after
//! the durable write, or one `rollback` if it failed. No verdict of a group, `DUP` included, may be told before that.
//!
//! # Bounds
//!
//! | what | limit | beyond it |
//! |---|---|---|
//! | memory of all devices | [`BYTES_MAX`] | digests go first, then the boots and runs of the devices that have most (`fleet`); what is gone costs a look-up |
//! | frames comparable by digest, per boot | [`DIGESTS_PER_BOOT`] | `NeedsLookup`: the stored frame decides |
//! | boots with digests, per device | [`BOOTS_WITH_DIGESTS`] | runs and last digest stay |
//! | runs per boot (gaps + 1) | [`RUNS_PER_BOOT`] | the lowest is given up; below it `NeedsLookup`, and if nothing is stored `SEQ_OLD` |
//! | boots per device | [`BOOTS_PER_DEVICE`] | the longest unheard is forgotten; from then on frames of unknown boots of that device cost a look-up each |
//! | gaps in a report | [`GAPS_REPORTED`] | the lowest are told |
//! | boots in a view | [`BOOTS_VIEWED`] | the ones last heard of are told |
//!
//! An ordinary device (one boot, one run, last digest, anchor, where it stands) is one slot of 136 bytes.
//!
//! # The gap ledger
//!
//! What is missing is what lies between the runs (`runs`), so the ledger is bounded with them and cannot disagree with
//! what is stored. After a restart open gaps are there again, from the stored ranges and the write-ahead log; the time
//! since when a gap is known begins anew unless the log still holds the frame that showed it, and so do all counts. A
//! boot's frames lost after its last one that arrived are no gap: nobody but the device knows of them.
//!
//! # Revoked keys
//!
//! A frame of a revoked key is kept (and flagged `COMPROMISED`) only where the chain ties it to a neighbour accepted
//! while the key was good: its `prev` is that frame's digest, or that frame's `prev` is its digest. The second proves
//! that it existed before, so it vouches in turn for the frame before itself; the first proves nothing against a thief
//! who has seen the last frame, so it vouches for no further one. All else is `KEY_REVOKED`.

use schemas_evidence::manifest::DeviceRange;
use schemas_frame::{Code, DeviceReport, flags};
use schemas_identity::{BootId, DeviceNumber, ShortId};

use crate::boot::{Boot, Known, Reserved, Seen};
use crate::clock::{self, Placed};
use crate::device::Device;
use crate::fleet::Fleet;
use crate::runs::Tally;
use crate::view::DeviceView;

/// Memory of all devices, without what a group has reserved: a million ordinary ones, and digests for those that sent
/// last.
pub const BYTES_MAX: usize = 256 << 20;
/// Frames per boot that are compared without a look-up.
pub const DIGESTS_PER_BOOT: usize = 64;
/// Boots per device, the ones last heard of, that keep so many.
pub const BOOTS_WITH_DIGESTS: usize = 2;
/// Runs of durable sequence numbers per boot.
pub const RUNS_PER_BOOT: usize = 1024;
/// Boots per device.
pub const BOOTS_PER_DEVICE: usize = 1024;
/// Gaps told in one report.
pub const GAPS_REPORTED: usize = 128;
/// Boots told in one view.
pub const BOOTS_VIEWED: usize = 64;

/// The bounds above as values, so that tests can make them small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Frames per boot that are compared without a look-up.
    pub digests_per_boot: usize,
    /// Boots per device that keep so many; the others keep the last one.
    pub boots_with_digests: usize,
    /// Runs per boot.
    pub runs_per_boot: usize,
    /// Boots per device.
    pub boots_per_device: usize,
    /// Memory of all devices.
    pub bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            digests_per_boot: DIGESTS_PER_BOOT,
            boots_with_digests: BOOTS_WITH_DIGESTS,
            runs_per_boot: RUNS_PER_BOOT,
            boots_per_device: BOOTS_PER_DEVICE,
            bytes_max: BYTES_MAX,
        }
    }
}

/// One frame whose signature verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// The device.
    pub device: DeviceNumber,
    /// The boot.
    pub boot: BootId,
    /// The sequence number.
    pub seq: u64,
    /// First 16 bytes of the BLAKE3 of the frame's bytes (`Frame::digest16`).
    pub digest: [u8; 16],
    /// What the frame says the digest of the one before was.
    pub prev: [u8; 16],
    /// Whether its key is revoked.
    pub is_revoked: bool,
}

/// A frame to be stored; its place is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct New {
    /// The frame before it has not arrived (yet).
    pub has_gap_before: bool,
    /// It does not fit the neighbour that is known: code `CHAIN`.
    pub is_chain_broken: bool,
    /// Of a revoked key, and tied to a frame from before.
    pub is_compromised: bool,
}

impl New {
    /// Flag bits of these findings.
    #[must_use]
    pub fn flags(self) -> u32 {
        let gap = if self.has_gap_before { flags::GAP } else { 0 };
        let compromised = if self.is_compromised { flags::COMPROMISED } else { 0 };
        gap | compromised
    }

    /// `CHAIN` or nothing.
    #[must_use]
    pub fn code(self) -> Option<Code> {
        self.is_chain_broken.then_some(Code::Chain)
    }
}

/// How a frame stands to what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// To be stored; reserved until `commit` or `rollback`.
    New(New),
    /// The very same frame is stored, or reserved by this group.
    Dup,
    /// Another frame has this device, boot and sequence number.
    Equivocation,
    /// Its key is revoked and nothing ties it to a frame from before.
    Revoked,
    /// Nothing is stored under this number, and its time to be accepted is over.
    SeqOld,
    /// Look up the stored frame of this device, boot and sequence number and call `resolve`.
    NeedsLookup,
}

/// What became of gaps since the start, over all devices. A closed gap that is filled after all counts twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GapCounts {
    /// Seen by a frame beyond them, or split off one.
    pub opened: u64,
    /// Closed up by late frames.
    pub filled: u64,
    /// Given up: too old, or the bounds gave up what told of them.
    pub closed: u64,
}

impl GapCounts {
    pub(crate) fn add(&mut self, tally: Tally) {
        self.opened += u64::from(tally.opened);
        self.filled += u64::from(tally.filled);
        self.closed += u64::from(tally.closed);
    }
}

/// The sequence windows of all devices.
#[derive(Debug)]
pub struct Windows {
    fleet: Fleet,
    reserved: Vec<(u32, [u8; 8])>,
    limits: Limits,
    /// Arrival of what is judged now.
    now_us: i64,
}

impl Default for Windows {
    fn default() -> Windows {
        Windows::new(Limits::default())
    }
}

impl Windows {
    /// Empty windows.
    #[must_use]
    pub fn new(limits: Limits) -> Windows {
        Windows { fleet: Fleet::new(limits.bytes_max), reserved: Vec::new(), limits, now_us: 0 }
    }

    /// The arrival time of what is judged, recorded or restored from now on, microseconds since 1970 UTC: since when the
    /// gaps are known that it shows.
    pub fn arrive(&mut self, now_us: i64) {
        self.now_us = now_us;
    }

    /// Decides about a frame and, if it is new, reserves its place.
    pub fn judge_and_reserve(&mut self, ask: &Ask) -> Standing {
        match self.look_up(ask) {
            Known::Seen(seen) if seen.digest == ask.digest => Standing::Dup,
            Known::Seen(_) => Standing::Equivocation,
            Known::Stored | Known::Below | Known::Unsure => Standing::NeedsLookup,
            Known::New => self.admit(ask),
        }
    }

    /// Goes on after `NeedsLookup` with the digest of the stored frame, or the certainty that none is stored.
    /// The look-up must have seen everything durable, the lake's tail included.
    pub fn resolve(&mut self, ask: &Ask, stored: Option<[u8; 16]>) -> Standing {
        match (stored, self.look_up(ask)) {
            (Some(digest), _) if digest == ask.digest => Standing::Dup,
            (Some(_), _) => Standing::Equivocation,
            // Where little is known the look-up has told the rest.
            (None, Known::Unsure | Known::New) => self.admit(ask),
            // Once durable here and gone from there: erased. It must not come back.
            (None, _) => Standing::SeqOld,
        }
    }

    /// `judge_and_reserve`, and `resolve` where needed, with a look-up into what is stored.
    ///
    /// # Errors
    /// The look-up's; nothing is reserved then.
    pub fn judge_with<E>(
        &mut self,
        ask: &Ask,
        look_up: impl FnOnce(DeviceNumber, BootId, u64) -> Result<Option<[u8; 16]>, E>,
    ) -> Result<Standing, E> {
        match self.judge_and_reserve(ask) {
            Standing::NeedsLookup => Ok(self.resolve(ask, look_up(ask.device, ask.boot, ask.seq)?)),
            decided => Ok(decided),
        }
    }

    /// Everything reserved is durable now.
    pub fn commit(&mut self) {
        let (limits, now_us) = (self.limits, self.now_us);
        for (number, boot) in std::mem::take(&mut self.reserved) {
            let mut tally = Tally::default();
            let Some(device) = self.fleet.get_mut(number) else { continue };
            if let Some(found) = device.find_mut(boot) {
                let broken = found.commit(Device::bounds(limits), now_us, &mut tally);
                device.story.chain_broken = device.story.chain_broken.saturating_add(broken);
            }
            device.touch(boot, limits);
            self.fleet.settle(number, tally);
        }
        self.fleet.keep_budget();
    }

    /// Nothing reserved was stored.
    pub fn rollback(&mut self) {
        for (number, boot) in std::mem::take(&mut self.reserved) {
            if let Some(device) = self.fleet.get_mut(number) {
                device.rollback(boot);
            }
            self.fleet.settle(number, Tally::default());
        }
    }

    /// Takes over a frame that is durable already (write-ahead log after a restart). Repeating it changes nothing.
    /// `is_revoked` is whether it was stored with `flags::COMPROMISED`, not how its key stands today.
    pub fn record(&mut self, ask: &Ask) {
        let is_vouched = !ask.is_revoked;
        let seen = Seen { seq: ask.seq, digest: ask.digest, prev: Some(ask.prev), is_vouched };
        let (limits, now_us) = (self.limits, self.now_us);
        let (boot, mut tally) = self.fleet.get_or_make(ask.device.0).boot_mut(ask.boot.0, limits);
        boot.store(seen, Device::bounds(limits), now_us, &mut tally);
        self.fleet.settle(ask.device.0, tally);
        self.fleet.keep_budget();
    }

    /// Takes over a stored range. Give ranges oldest batch first, before any new frame is judged.
    ///
    /// The last frame of a range counts as accepted under a good key: ranges do not tell, and the most that a thief
    /// gains is one more flagged frame.
    pub fn restore(&mut self, range: &DeviceRange) {
        if range.first > range.last {
            return;
        }
        let last = Seen { seq: range.last, digest: range.last_digest, prev: None, is_vouched: true };
        let (limits, now_us) = (self.limits, self.now_us);
        let (boot, mut tally) = self.fleet.get_or_make(range.device).boot_mut(range.boot, limits);
        boot.restore(range.first, last, Device::bounds(limits), now_us, &mut tally);
        self.fleet.settle(range.device, tally);
        self.fleet.keep_budget();
    }

    /// Ends what a restart replays: it is not news, so counting begins here.
    pub fn begin(&mut self) {
        self.fleet.forget_counts();
    }

    /// Closes gaps that are too old among the next `devices` devices; to be called again and again, it goes round.
    pub fn tend(&mut self, devices: usize, now_us: i64) {
        self.fleet.close_old_gaps(devices, now_us);
    }

    /// Places a frame in time and lets the boot learn from its clock. For frames judged new, or recorded; the frame
    /// is genuine, so a later rollback takes nothing of that back.
    pub fn place(
        &mut self,
        device: DeviceNumber,
        boot: BootId,
        times: (Option<i64>, u64),
        received_us: i64,
    ) -> Placed {
        let (wall_us, mono_us) = times;
        let Some(state) = self.fleet.get_mut(device.0) else {
            return clock::place(wall_us, mono_us, received_us, None);
        };
        let anchor = state.find(boot.0).and_then(Boot::anchor);
        let placed = clock::place(wall_us, mono_us, received_us, anchor);
        if let Some(found) = state.find_mut(boot.0) {
            found.set_anchor(clock::learn(anchor, placed, mono_us, received_us));
            let is_derived = anchor.is_some_and(|anchor| anchor.is_measured) && placed.t0_us != received_us;
            state.note(placed, !placed.is_corrected || is_derived, wall_us, received_us);
        }
        placed
    }

    /// Where the device stands: the boot last heard of, its highest durable sequence number, what is missing below it.
    #[must_use]
    pub fn report(&self, device: DeviceNumber, name: ShortId) -> DeviceReport {
        for boot in self.fleet.get(device.0).into_iter().flat_map(Device::boots) {
            if let Some(highest) = boot.highest() {
                let acked_to = Some((BootId(boot.id), highest));
                let gaps =
                    boot.gaps(GAPS_REPORTED).into_iter().map(|(first, last, _)| (first, last)).collect();
                return DeviceReport { device: name, acked_to, gaps };
            }
        }
        DeviceReport { device: name, acked_to: None, gaps: Vec::new() }
    }

    /// All that is told about a device; `None` if it never sent.
    #[must_use]
    pub fn view(&self, device: DeviceNumber) -> Option<DeviceView> {
        DeviceView::of(self.fleet.get(device.0)?)
    }

    /// What became of gaps since `begin`.
    #[must_use]
    pub fn gap_counts(&self) -> GapCounts {
        self.fleet.counts
    }

    /// Memory in use, without what is reserved, and how often the budget was used up.
    #[must_use]
    pub fn memory(&self) -> (usize, u64) {
        (self.fleet.bytes(), self.fleet.passes())
    }

    fn look_up(&self, ask: &Ask) -> Known {
        self.fleet.get(ask.device.0).map_or(Known::New, |device| device.look_up(ask.boot.0, ask.seq))
    }

    fn admit(&mut self, ask: &Ask) -> Standing {
        let limits = self.limits;
        let device = self.fleet.get_or_make(ask.device.0);
        let ties = device.ties(ask);
        if ask.is_revoked && !ties.proven_older && !ties.follows_vouched {
            return Standing::Revoked;
        }
        let is_vouched = !ask.is_revoked || ties.proven_older;
        let is_chain_broken = ties.is_broken;
        let (boot, tally) = device.boot_mut(ask.boot.0, limits);
        let is_first = !boot.has_reserved();
        boot.reserve(ask.seq, Reserved { digest: ask.digest, prev: ask.prev, is_vouched, is_chain_broken });
        if is_first {
            self.reserved.push((ask.device.0, ask.boot.0));
        }
        if tally != Tally::default() {
            self.fleet.settle(ask.device.0, tally);
        }
        Standing::New(New {
            has_gap_before: ties.has_gap_before,
            is_chain_broken,
            is_compromised: ask.is_revoked,
        })
    }
}

#[cfg(test)]
mod tests;
