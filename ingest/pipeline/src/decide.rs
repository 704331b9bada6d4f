//! The deciding thread: judge, write, acknowledge. Frames come checked (`check`), in the order in which they were taken.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use ingest_devices::{Ask, Limits, New, Standing, Windows, most_telling};
use ingest_intake::admission::Rooms;
use ingest_intake::{Reply, Submission};
use ingest_lake::{Admitted, Lake, LakeError};
use ingest_wal::{Record, Wal, WalError};
use schemas_frame::{Code, DeviceReport, Frame, Verdict, flags};
use schemas_identity::{BootId, DeviceNumber, Register, ShortId};

use crate::check::{Arrival, Checked, Group, InOrder, PATIENCE};
use crate::duties::Duties;
use crate::quarantine::Keeper;
use crate::recover::code_byte;
use crate::verdicts::hint_of;
use crate::{Metrics, Options, RegisterSource, Shared, StartError};

/// Frames decided and made durable together, give or take one submission.
const GROUP_FRAMES_MAX: usize = 16_384;

/// A frame that is to be kept, or its verdict.
enum Fate {
    Kept { admitted: Admitted, name: ShortId, verdict: Verdict, readings: u64 },
    Decided { name: Option<(DeviceNumber, ShortId)>, verdict: Verdict },
}

impl Fate {
    fn code(&self) -> Code {
        match self {
            Fate::Kept { verdict, .. } | Fate::Decided { verdict, .. } => verdict.code,
        }
    }

    fn verdict_mut(&mut self) -> &mut Verdict {
        match self {
            Fate::Kept { verdict, .. } | Fate::Decided { verdict, .. } => verdict,
        }
    }
}

/// State of the deciding thread.
pub struct Decider {
    register: RegisterSource,
    pub(crate) lake: Arc<Lake>,
    pub(crate) wal: Wal,
    pub(crate) windows: Windows,
    pub(crate) quarantine: Keeper,
    pub(crate) duties: Duties,
    metrics: Metrics,
    shared: Arc<Shared>,
    released: u64,
    /// The write-ahead log took nothing the last time.
    is_refusing: bool,
}

impl Arrival {
    fn verdict(&self, code: Code, flags: u32) -> Verdict {
        let (boot, seq) = (Some(self.boot), Some(self.seq));
        Verdict { device: Some(self.kid), boot, seq, code, flags, hint: hint_of(code) }
    }
}

impl Decider {
    pub(crate) fn new(
        options: &Options,
        register: RegisterSource,
        lake: Arc<Lake>,
        wal: Wal,
        duties: Duties,
        metrics: Metrics,
        shared: Arc<Shared>,
    ) -> Result<Decider, StartError> {
        Ok(Decider {
            register,
            lake,
            wal,
            windows: Windows::new(Limits { bytes_max: options.windows_bytes_max, ..Limits::default() }),
            quarantine: Keeper::open(options)?,
            duties,
            metrics,
            shared,
            released: 0,
            is_refusing: false,
        })
    }

    /// Runs until nobody checks any more.
    pub(crate) fn run(mut self, mut checked: InOrder) {
        let mut groups = Vec::new();
        let mut is_open = true;
        while is_open {
            self.release();
            self.duties.look_after(&mut self.windows);
            if !self.lake.has_room() && !self.shared.is_stopping() {
                // Taking nothing is the back-pressure: the queue fills, the doors say so.
                std::thread::sleep(PATIENCE);
                continue;
            }
            is_open = checked.take(&mut groups, GROUP_FRAMES_MAX);
            if groups.is_empty() {
                // Idle: the next segment is made now, so that no sender waits for it later.
                if let Err(error) = self.wal.prepare() {
                    tracing::debug!(%error, "no spare segment yet");
                }
                continue;
            }
            self.decide(&mut groups);
        }
    }

    pub(crate) fn release(&mut self) {
        let covered = self.lake.covered();
        if covered <= self.released {
            return;
        }
        match self.wal.release(covered) {
            Ok(()) => self.released = covered,
            Err(error) => tracing::warn!(%error, "cannot release write-ahead log segments yet"),
        }
    }

    /// Some groups: all of their frames are judged, made durable together, and answered.
    pub(crate) fn decide(&mut self, groups: &mut Vec<Group>) {
        let register = (self.register)();
        let oldest = groups.iter().map(|group| group.taken_at).min();
        let mut submissions = Vec::new();
        let mut fates = Vec::new();
        let (mut readings, mut written, mut bytes) = (0, 0, 0);
        let bytes_max = self.wal.append_bytes_max();
        for group in groups.drain(..) {
            submissions.extend(group.submissions);
            for checked in group.checked {
                let cost = record_bytes(&checked);
                if bytes + cost > bytes_max {
                    readings += self.settle(fates.get_mut(written..).unwrap_or_default());
                    (written, bytes) = (fates.len(), 0);
                }
                bytes += cost;
                fates.push(self.judge(&register, checked));
            }
        }
        readings += self.settle(fates.get_mut(written..).unwrap_or_default());
        let codes = fates.iter().map(Fate::code);
        let is_kept =
            self.quarantine.group(&submissions, codes, self.duties.now_us(), &self.metrics.admission);
        if !is_kept {
            // Without its evidence a contradiction is not refused for good.
            let contradictions = fates.iter_mut().filter(|fate| fate.code() == Code::Equivocation);
            contradictions.for_each(|fate| retry(fate.verdict_mut()));
        }
        self.answer(submissions, fates);
        let took = oldest.map(|oldest| oldest.elapsed()).unwrap_or_default();
        self.metrics.group(readings, took, self.wal.bytes_used());
    }

    /// Makes judged frames durable and visible, or takes their verdicts back. Gives the number of readings kept.
    fn settle(&mut self, fates: &mut [Fate]) -> u64 {
        match self.write(fates) {
            Ok(readings) => {
                self.is_refusing = false;
                readings
            }
            Err(error) => {
                self.refuse_all(fates, &error);
                0
            }
        }
    }

    fn judge(&mut self, register: &Register, checked: Checked) -> Fate {
        let arrival = match checked {
            Checked::Arrived(arrival) => arrival,
            Checked::Refused(verdict) => return Fate::Decided { name: None, verdict },
        };
        let ask = Ask {
            device: arrival.gated.device,
            boot: arrival.boot,
            seq: arrival.seq,
            digest: arrival.digest,
            prev: arrival.prev,
            is_revoked: arrival.gated.standing.is_revoked(),
        };
        self.windows.arrive(arrival.received_us);
        let lake = &self.lake;
        let look_up = |device: DeviceNumber, boot: BootId, seq| stored_digest(lake, device, boot, seq);
        let code = match self.windows.judge_with(&ask, look_up) {
            Ok(Standing::New(new)) => return self.keep(register, arrival, new),
            Ok(Standing::Dup) => Code::Dup,
            Ok(Standing::Equivocation) => {
                let (device, seq) = (arrival.gated.name, arrival.seq);
                tracing::error!(%device, seq, "equivocation: a second frame under one number");
                Code::Equivocation
            }
            Ok(Standing::Revoked) => Code::KeyRevoked,
            Ok(Standing::SeqOld) => Code::SeqOld,
            Ok(Standing::NeedsLookup) => Code::RetryAfter,
            Err(error) => {
                tracing::error!(%error, "cannot look a stored frame up");
                Code::RetryAfter
            }
        };
        let name = Some((arrival.gated.device, arrival.gated.name));
        Fate::Decided { name, verdict: arrival.verdict(code, 0) }
    }

    fn keep(&mut self, register: &Register, arrival: Arrival, new: New) -> Fate {
        let device = arrival.gated.device;
        let times = (arrival.wall_us, arrival.mono_us);
        let placed = self.windows.place(device, arrival.boot, times, arrival.received_us);
        let mut flag_bits = new.flags() | arrival.found.flags;
        let mut codes: Vec<Code> = new.code().into_iter().chain(arrival.found.code).collect();
        if placed.is_corrected {
            flag_bits |= flags::CLOCK;
            codes.push(Code::Clock);
        }
        if placed.is_late {
            flag_bits |= flags::LATE;
        }
        if register.binding_at(device, placed.t0_us).is_none() {
            codes.push(Code::NotBound);
        }
        let code = most_telling(&codes);
        let verdict = arrival.verdict(code, flag_bits);
        let (name, readings) = (arrival.gated.name, arrival.readings);
        let admitted = Admitted {
            position: 0,
            device: device.0,
            t0_us: placed.t0_us,
            received_us: arrival.received_us,
            flags: flag_bits,
            code,
            frame: arrival.bytes,
        };
        Fate::Kept { admitted, name, verdict, readings }
    }

    /// Durable first, then visible, then counted as seen. Gives the number of readings kept.
    fn write(&mut self, fates: &mut [Fate]) -> Result<u64, WalError> {
        let mut records = Vec::new();
        for fate in fates.iter() {
            if let Fate::Kept { admitted, .. } = fate {
                records.push(Record {
                    received_us: admitted.received_us,
                    device: admitted.device,
                    t0_us: admitted.t0_us,
                    flags: admitted.flags,
                    code: code_byte(admitted.code),
                    frame: &admitted.frame,
                });
            }
        }
        if records.is_empty() {
            return Ok(0);
        }
        let count = records.len();
        let mut positions = self.wal.append(&records)?;
        let mut own = own_copies(fates);
        let (mut total, mut pushed) = (0, Vec::with_capacity(count));
        for fate in fates.iter_mut() {
            if let Fate::Kept { admitted, readings, .. } = fate {
                admitted.position = positions.next().unwrap_or(0);
                total += *readings;
                let frame = own.split_to(admitted.frame.len());
                pushed.push(Admitted { frame, ..admitted.clone() });
            }
        }
        // From here on the frames are promised: they are durable and will be replayed.
        self.windows.commit();
        self.lake.push(pushed);
        Ok(total)
    }

    fn refuse_all(&mut self, fates: &mut [Fate], error: &WalError) {
        self.windows.rollback();
        if !error.is_recoverable() {
            self.shared.fail();
        }
        // Senders try again many times a second while a disk is full: said once, until it takes something again.
        if !std::mem::replace(&mut self.is_refusing, true) {
            tracing::error!(%error, "write-ahead log refused frames: senders are asked to wait");
        }
        for fate in fates {
            match fate {
                // What was judged beside frames that were just refused here may have been judged by them.
                Fate::Kept { verdict, .. } | Fate::Decided { verdict, name: Some(_), .. } => retry(verdict),
                Fate::Decided { name: None, .. } => {}
            }
        }
    }

    fn answer(&mut self, submissions: Vec<Submission>, fates: Vec<Fate>) {
        let mut fates = fates.into_iter();
        // One lock of the queue for all answers, not one for each.
        let mut rooms = Rooms::default();
        let (mut answers, answered_at) = (self.metrics.answers(), Instant::now());
        for submission in submissions {
            let mut verdicts = Vec::with_capacity(submission.frames.len());
            let mut touched = Vec::new();
            for fate in fates.by_ref().take(submission.frames.len()) {
                let (verdict, device) = match fate {
                    Fate::Kept { verdict, admitted, name, .. } => (verdict, Some((admitted.device, name))),
                    Fate::Decided { verdict, name } => (verdict, name.map(|(number, name)| (number.0, name))),
                };
                answers.verdict(verdict.code);
                touched.extend(device);
                verdicts.push(verdict);
            }
            touched.sort_unstable();
            touched.dedup();
            let report = |(number, name): (u32, ShortId)| -> DeviceReport {
                self.windows.report(DeviceNumber(number), name)
            };
            let reports = touched.into_iter().map(report).collect();
            answers.durable(answered_at.saturating_duration_since(submission.offered_at));
            submission.reply.send_with(Reply { verdicts, reports }, &mut rooms);
        }
        self.metrics.answered(&answers);
    }
}

/// The bytes of all frames that are kept, in one piece that lives as long as their batch is in the tail.
fn own_copies(fates: &[Fate]) -> Bytes {
    let kept = || {
        fates.iter().filter_map(|fate| match fate {
            Fate::Kept { admitted, .. } => Some(&admitted.frame),
            Fate::Decided { .. } => None,
        })
    };
    let mut own = BytesMut::with_capacity(kept().map(Bytes::len).sum());
    kept().for_each(|frame| own.extend_from_slice(frame));
    own.freeze()
}

/// Takes a verdict back: the sender is to send the same frame again.
fn retry(verdict: &mut Verdict) {
    verdict.code = Code::RetryAfter;
    verdict.flags = 0;
    verdict.hint = hint_of(Code::RetryAfter);
}

/// What a frame costs in the write-ahead log if it is kept.
fn record_bytes(checked: &Checked) -> u64 {
    match checked {
        Checked::Arrived(arrival) => arrival.bytes.len() as u64 + Wal::RECORD_OVERHEAD_BYTES,
        Checked::Refused(_) => 0,
    }
}

fn stored_digest(
    lake: &Lake,
    device: DeviceNumber,
    boot: BootId,
    seq: u64,
) -> Result<Option<[u8; 16]>, LakeError> {
    let stored = lake.find(device.0, *boot.as_bytes(), seq)?;
    Ok(stored.and_then(|stored| Frame::parse(&stored.frame).ok().map(|frame| frame.digest16())))
}
