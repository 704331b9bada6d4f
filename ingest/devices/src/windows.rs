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
//! | frames comparable by digest, per boot | [`DIGESTS_PER_BOOT`] | `NeedsLookup`: the stored frame decides |
//! | boots with digests, per device | [`BOOTS_WITH_DIGESTS`] | runs and last digest stay |
//! | runs per boot (gaps + 1) | [`RUNS_PER_BOOT`] | the lowest is given up; below it `NeedsLookup`, and if nothing is stored `SEQ_OLD` |
//! | boots per device | [`BOOTS_PER_DEVICE`] | the longest unheard is forgotten; from then on frames of unknown boots of that device cost a look-up each |
//! | gaps in a report | [`GAPS_REPORTED`] | the lowest are told |
//!
//! # Revoked keys
//!
//! A frame of a revoked key is kept (and flagged `COMPROMISED`) only where the chain ties it to a neighbour accepted
//! while the key was good: its `prev` is that frame's digest, or that frame's `prev` is its digest. The second proves
//! that it existed before, so it vouches in turn for the frame before itself; the first proves nothing against a thief
//! who has seen the last frame, so it vouches for no further one. All else is `KEY_REVOKED`.

use std::collections::HashMap;

use schemas_evidence::manifest::DeviceRange;
use schemas_frame::{Code, DeviceReport, flags};
use schemas_identity::{BootId, DeviceNumber, ShortId};

use crate::boot::{Boot, Digest, Known, Seen};
use crate::clock::{self, Placed};

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
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            digests_per_boot: DIGESTS_PER_BOOT,
            boots_with_digests: BOOTS_WITH_DIGESTS,
            runs_per_boot: RUNS_PER_BOOT,
            boots_per_device: BOOTS_PER_DEVICE,
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

#[derive(Debug, Default)]
struct Device {
    /// The boot last heard of comes last.
    boots: Vec<Boot>,
    /// A boot was given up: an unknown one may have stored frames.
    has_forgotten: bool,
}

/// The sequence windows of all devices.
#[derive(Debug, Default)]
pub struct Windows {
    devices: HashMap<u32, Device>,
    reserved: Vec<(u32, [u8; 8])>,
    limits: Limits,
}

impl Windows {
    /// Empty windows.
    #[must_use]
    pub fn new(limits: Limits) -> Windows {
        Windows { devices: HashMap::new(), reserved: Vec::new(), limits }
    }

    /// Decides about a frame and, if it is new, reserves its place.
    pub fn judge_and_reserve(&mut self, ask: &Ask) -> Standing {
        match self.look_up(ask) {
            Known::Seen(seen) if seen.digest == ask.digest => Standing::Dup,
            Known::Seen(_) => Standing::Equivocation,
            Known::Stored | Known::Below => Standing::NeedsLookup,
            Known::New => self.admit(ask),
        }
    }

    /// Goes on after `NeedsLookup` with the digest of the stored frame, or the certainty that none is stored.
    /// The look-up must have seen everything durable, the lake's tail included.
    pub fn resolve(&mut self, ask: &Ask, stored: Option<[u8; 16]>) -> Standing {
        match (stored, self.look_up(ask)) {
            (Some(digest), _) if digest == ask.digest => Standing::Dup,
            (Some(_), _) => Standing::Equivocation,
            // A boot of which little is known: the look-up has told the rest.
            (None, Known::Below) if self.is_unsure(ask) => self.admit(ask),
            (None, Known::New) => self.admit(ask),
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
        let limits = self.limits;
        for (device, boot) in std::mem::take(&mut self.reserved) {
            let Some(state) = self.devices.get_mut(&device) else { continue };
            if let Some(found) = state.find_mut(boot) {
                found.commit(limits.runs_per_boot, limits.digests_per_boot);
            }
            state.touch(boot, limits);
        }
    }

    /// Nothing reserved was stored.
    pub fn rollback(&mut self) {
        for (device, boot) in std::mem::take(&mut self.reserved) {
            let Some(state) = self.devices.get_mut(&device) else { continue };
            if let Some(found) = state.find_mut(boot) {
                found.drop_reserved();
            }
            state.boots.retain(|candidate| candidate.id != boot || !candidate.is_empty());
        }
    }

    /// Takes over a frame that is durable already (write-ahead log after a restart). Repeating it changes nothing.
    /// `is_revoked` is whether it was stored with `flags::COMPROMISED`, not how its key stands today.
    pub fn record(&mut self, ask: &Ask) {
        let limits = self.limits;
        let is_vouched = !ask.is_revoked;
        let seen = Seen { seq: ask.seq, digest: ask.digest, prev: Some(ask.prev), is_vouched };
        let boot = self.boot_mut(ask.device, ask.boot);
        boot.add_run(ask.seq, ask.seq, limits.runs_per_boot);
        boot.remember(seen, limits.digests_per_boot);
    }

    /// Takes over a stored range. Give ranges oldest batch first, before any new frame is judged.
    ///
    /// The last frame of a range counts as accepted under a good key: ranges do not tell, and the most that a thief
    /// gains is one more flagged frame.
    pub fn restore(&mut self, range: &DeviceRange) {
        if range.first > range.last {
            return;
        }
        let limits = self.limits;
        let last = Seen { seq: range.last, digest: range.last_digest, prev: None, is_vouched: true };
        let boot = self.boot_mut(DeviceNumber(range.device), BootId(range.boot));
        boot.add_run(range.first, range.last, limits.runs_per_boot);
        if boot.find(range.last).is_none() {
            boot.remember(last, limits.digests_per_boot);
        }
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
        let found = self.devices.get_mut(&device.0).and_then(|state| state.find_mut(boot.0));
        let anchor = found.as_ref().and_then(|state| state.anchor);
        let placed = clock::place(wall_us, mono_us, received_us, anchor);
        if let Some(state) = found {
            state.anchor = Some(clock::learn(anchor, placed, mono_us, received_us));
        }
        placed
    }

    /// Where the device stands: the boot last heard of, its highest durable sequence number, what is missing below it.
    #[must_use]
    pub fn report(&self, device: DeviceNumber, name: ShortId) -> DeviceReport {
        let boots = self.devices.get(&device.0).map(|state| state.boots.as_slice()).unwrap_or_default();
        for boot in boots.iter().rev() {
            if let Some(highest) = boot.highest() {
                let acked_to = Some((BootId(boot.id), highest));
                return DeviceReport { device: name, acked_to, gaps: boot.gaps(GAPS_REPORTED) };
            }
        }
        DeviceReport { device: name, acked_to: None, gaps: Vec::new() }
    }

    fn look_up(&self, ask: &Ask) -> Known {
        let Some(device) = self.devices.get(&ask.device.0) else {
            return Known::New;
        };
        match device.find(ask.boot.0) {
            None if device.has_forgotten => Known::Below,
            None => Known::New,
            Some(boot) => match boot.look_up(ask.seq) {
                Known::New if boot.is_partial => Known::Below,
                known => known,
            },
        }
    }

    /// Whether `Below` only means that little is known about the boot.
    fn is_unsure(&self, ask: &Ask) -> bool {
        let boot = self.devices.get(&ask.device.0).and_then(|device| device.find(ask.boot.0));
        boot.is_none_or(|boot| boot.is_partial && boot.look_up(ask.seq) == Known::New)
    }

    fn admit(&mut self, ask: &Ask) -> Standing {
        let unheard = Device::default();
        let ties = self.devices.get(&ask.device.0).unwrap_or(&unheard).ties(ask);
        if ask.is_revoked && !ties.proven_older && !ties.follows_vouched {
            return Standing::Revoked;
        }
        let is_vouched = !ask.is_revoked || ties.proven_older;
        let seen = Seen { seq: ask.seq, digest: ask.digest, prev: Some(ask.prev), is_vouched };
        let boot = self.boot_mut(ask.device, ask.boot);
        let is_first = !boot.has_reserved();
        boot.reserve(seen);
        if is_first {
            self.reserved.push((ask.device.0, ask.boot.0));
        }
        Standing::New(New {
            has_gap_before: ties.has_gap_before,
            is_chain_broken: ties.is_broken,
            is_compromised: ask.is_revoked,
        })
    }

    /// The boot, made if need be, as the one last heard of.
    fn boot_mut(&mut self, device: DeviceNumber, boot: BootId) -> &mut Boot {
        let limits = self.limits;
        self.devices.entry(device.0).or_default().boot_mut(boot.0, limits)
    }
}

/// What the neighbours say about a frame.
#[derive(Debug, Default)]
struct Ties {
    has_gap_before: bool,
    is_broken: bool,
    follows_vouched: bool,
    proven_older: bool,
}

impl Device {
    fn find(&self, boot: [u8; 8]) -> Option<&Boot> {
        self.boots.iter().rev().find(|candidate| candidate.id == boot)
    }

    fn find_mut(&mut self, boot: [u8; 8]) -> Option<&mut Boot> {
        self.boots.iter_mut().rev().find(|candidate| candidate.id == boot)
    }

    fn boot_mut(&mut self, boot: [u8; 8], limits: Limits) -> &mut Boot {
        if self.find(boot).is_none() {
            self.make_room(limits);
            self.boots.push(Boot::new(boot, self.has_forgotten));
        }
        self.touch(boot, limits);
        let last = self.boots.len() - 1;
        &mut self.boots[last]
    }

    /// Forgets the boot longest unheard of, unless it has reserved frames: those are bounded by the group.
    fn make_room(&mut self, limits: Limits) {
        if self.boots.len() < limits.boots_per_device.max(1) {
            return;
        }
        if let Some(index) = self.boots.iter().position(|boot| !boot.has_reserved()) {
            self.boots.remove(index);
            self.has_forgotten = true;
        }
    }

    /// Makes a boot the one last heard of, and lets the one that it pushes back keep its last digest only.
    fn touch(&mut self, boot: [u8; 8], limits: Limits) {
        let Some(index) = self.boots.iter().rposition(|candidate| candidate.id == boot) else {
            return;
        };
        self.boots[index..].rotate_left(1);
        let behind = self.boots.len().checked_sub(limits.boots_with_digests.max(1) + 1);
        if let Some(older) = behind.and_then(|index| self.boots.get_mut(index)) {
            older.shrink();
        }
    }

    fn ties(&self, ask: &Ask) -> Ties {
        let mut ties = Ties::default();
        let boot = self.find(ask.boot.0);
        let before = match ask.seq.checked_sub(1) {
            Some(seq) => {
                let known = boot.map_or(Known::New, |boot| boot.look_up(seq));
                let is_unsure = boot.map_or(self.has_forgotten, |boot| boot.is_partial);
                ties.has_gap_before = known == Known::New && !is_unsure;
                if let Known::Seen(seen) = known { Some(seen) } else { None }
            }
            None => None,
        };
        if let Some(seen) = before {
            ties.is_broken = seen.digest != ask.prev;
            ties.follows_vouched = !ties.is_broken && seen.is_vouched;
        }
        if ask.seq == 0 {
            self.ties_to_boot_before(ask, &mut ties);
        }
        let after = ask.seq.checked_add(1).and_then(|seq| boot?.find(seq));
        if let Some((after, prev)) = after.and_then(|seen| Some((seen, seen.prev?))) {
            ties.proven_older = prev == ask.digest && after.is_vouched;
            ties.is_broken |= prev != ask.digest;
        }
        ties
    }

    /// At sequence number 0 `prev` is zeros, or the digest of the last frame of the boot before. It is broken if all
    /// of the device's boots are known and it is the last frame of none.
    fn ties_to_boot_before(&self, ask: &Ask, ties: &mut Ties) {
        if ask.prev == Digest::default() {
            return;
        }
        let mut is_certain = !self.has_forgotten;
        let mut others = 0;
        for boot in self.boots.iter().filter(|boot| boot.id != ask.boot.0) {
            others += 1;
            match boot.last() {
                Some(seen) if seen.digest == ask.prev => {
                    ties.follows_vouched = seen.is_vouched;
                    return;
                }
                Some(_) => {}
                None => is_certain = false,
            }
        }
        // A device may have had boots before it was enrolled: its first one here proves nothing.
        ties.is_broken = is_certain && others > 0;
    }
}

#[cfg(test)]
mod tests;
