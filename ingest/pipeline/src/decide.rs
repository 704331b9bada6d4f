//! The deciding thread: receive, admit, verify, judge, write, acknowledge.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingest_devices::{Ask, Gated, Limits, Standing, Windows, assess, key_for, most_telling};
use ingest_intake::admission::Received;
use ingest_intake::{Drain, Inbox, Reply, Submission};
use ingest_lake::{Admitted, Lake, LakeError};
use ingest_verify::hashes::SideBySide;
use ingest_wal::{Record, Wal, WalError};
use schemas_evidence::{FrameHasher, Hash32};
use schemas_frame::{Code, DeviceReport, Frame, Verdict, VerifiedFrame, Verifier, flags, verify_all};
use schemas_identity::{BootId, DeviceNumber, Register, ShortId};
use schemas_signals::Registry;

use crate::quarantine::Quarantine;
use crate::recover::code_byte;
use crate::{Clock, Metrics, Options, RegisterSource, Shared, StartError};

/// How long the thread waits for frames before it looks at the rest of its duties.
const PATIENCE: Duration = Duration::from_millis(50);
/// Seconds after which a sender that met pressure should come back.
const RETRY_HINT: &str = "the server is busy or its disk is full: send the same frame again later";

/// A frame that passed so far, or its verdict.
enum Fate {
    Kept { admitted: Admitted, name: ShortId, verdict: Verdict, readings: u64 },
    Decided { name: Option<(DeviceNumber, ShortId)>, verdict: Verdict },
}

/// A verified frame as it came.
struct Arrival {
    bytes: bytes::Bytes,
    /// [`Frame::digest16`], computed for a whole group side by side.
    digest: [u8; 16],
    received_us: i64,
}

fn first16(digest: &Hash32) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    first
}

/// State of the deciding thread.
pub struct Decider {
    register: RegisterSource,
    verifier: Box<dyn Verifier>,
    pub(crate) lake: Arc<Lake>,
    wal: Wal,
    pub(crate) windows: Windows,
    quarantine: Quarantine,
    metrics: Option<Metrics>,
    clock: Clock,
    shared: Arc<Shared>,
    released: u64,
}

fn verdict_of(frame: &Frame<'_>, code: Code, flags: u32, hint: Option<String>) -> Verdict {
    Verdict { device: Some(frame.kid()), boot: Some(frame.boot()), seq: Some(frame.seq()), code, flags, hint }
}

fn hint_of(code: Code) -> Option<String> {
    let text = match code {
        Code::KeyUnknown => "no device with this kid is enrolled",
        Code::KeyRevoked => "this key is revoked: rotate it with the maker",
        Code::SigBad => "the signature does not verify under the enrolled key",
        Code::Equivocation => {
            "another frame has this device, boot and seq: use a new boot id after losing state"
        }
        Code::SeqOld => "this seq was given up or erased",
        Code::NotBound => "nobody wears this device at that time: bind it; the frame is kept",
        Code::RetryAfter => RETRY_HINT,
        _ => return None,
    };
    Some(text.to_owned())
}

impl Decider {
    pub(crate) fn new(
        options: &Options,
        register: RegisterSource,
        verifier: Box<dyn Verifier>,
        lake: Arc<Lake>,
        wal: Wal,
    ) -> Result<Decider, StartError> {
        Ok(Decider {
            register,
            verifier,
            lake,
            wal,
            windows: Windows::new(Limits::default()),
            quarantine: Quarantine::open(&options.quarantine)?,
            metrics: None,
            clock: Arc::new(|| 0),
            shared: Arc::default(),
            released: 0,
        })
    }

    pub(crate) fn measure(&mut self, metrics: Metrics, clock: Clock, shared: Arc<Shared>) {
        self.metrics = Some(metrics);
        self.clock = clock;
        self.shared = shared;
    }

    /// Runs until the doors are closed or the pipeline is stopped.
    pub(crate) fn run(mut self, mut inbox: Inbox) {
        let mut submissions = Vec::new();
        loop {
            self.release();
            if !self.lake.has_room() && !self.shared.is_stopping() {
                // Taking nothing is the back-pressure: the queue fills, the doors say so.
                std::thread::sleep(PATIENCE);
                continue;
            }
            let received = inbox.blocking_recv_timeout(&mut submissions, Drain::default(), PATIENCE);
            if !submissions.is_empty() {
                self.group(&mut submissions);
            }
            let is_idle = !matches!(received, Received::Some(_));
            if matches!(received, Received::Closed) || (is_idle && self.shared.is_stopping()) {
                return;
            }
        }
    }

    fn release(&mut self) {
        let covered = self.lake.covered();
        if covered <= self.released {
            return;
        }
        match self.wal.release(covered) {
            Ok(()) => self.released = covered,
            Err(error) => tracing::warn!(%error, "cannot release write-ahead log segments yet"),
        }
    }

    /// One group: everything taken is decided, made durable together, and answered.
    fn group(&mut self, submissions: &mut Vec<Submission>) {
        let started = Instant::now();
        let mut fates = self.admit(submissions);
        let readings = match self.write(&mut fates) {
            Ok(readings) => readings,
            Err(error) => {
                self.refuse_all(&mut fates, &error);
                0
            }
        };
        self.answer(submissions, fates);
        if let Some(metrics) = &self.metrics {
            metrics.group(readings, started.elapsed(), self.wal.bytes_used());
        }
    }

    /// Receive, admit, verify, judge: one fate per frame, in order.
    fn admit(&mut self, submissions: &[Submission]) -> Vec<Fate> {
        let register = (self.register)();
        let received_us = (self.clock)();
        let mut fates: Vec<Option<Fate>> = Vec::new();
        let mut candidates = Vec::new();
        let mut gates: Vec<(usize, Gated, bytes::Bytes)> = Vec::new();
        for bytes in submissions.iter().flat_map(|submission| &submission.frames) {
            match Self::gate(&register, bytes) {
                Ok((frame, gated)) => {
                    gates.push((fates.len(), gated, bytes.clone()));
                    candidates.push((frame, gated.key));
                    fates.push(None);
                }
                Err(verdict) => fates.push(Some(Fate::Decided { name: None, verdict })),
            }
        }
        let verified = verify_all(self.verifier.as_ref(), candidates);
        let frames: Vec<&[u8]> = gates.iter().map(|(_, _, bytes)| bytes.as_ref()).collect();
        let digests = SideBySide.digests(&frames);
        for (((at, gated, bytes), result), digest) in gates.into_iter().zip(verified).zip(digests) {
            let fate = match result {
                Ok(frame) => {
                    let arrival = Arrival { bytes, digest: first16(&digest), received_us };
                    self.judge(&register, &frame, &gated, arrival)
                }
                Err(frame) => {
                    let verdict = verdict_of(&frame, Code::SigBad, 0, hint_of(Code::SigBad));
                    Fate::Decided { name: None, verdict }
                }
            };
            fates[at] = Some(fate);
        }
        fates.into_iter().flatten().collect()
    }

    fn gate<'a>(register: &Register, bytes: &'a bytes::Bytes) -> Result<(Frame<'a>, Gated), Verdict> {
        let frame = Frame::parse(bytes).map_err(|error| {
            let hint = Some(error.hint());
            Verdict { device: None, boot: None, seq: None, code: Code::Decode, flags: 0, hint }
        })?;
        match key_for(register, frame.kid()) {
            Ok(gated) => Ok((frame, gated)),
            Err(code) => Err(verdict_of(&frame, code, 0, hint_of(code))),
        }
    }

    fn judge(
        &mut self,
        register: &Register,
        frame: &VerifiedFrame<'_>,
        gated: &Gated,
        arrival: Arrival,
    ) -> Fate {
        let Arrival { bytes, digest, received_us } = arrival;
        let ask = Ask {
            device: gated.device,
            boot: frame.boot(),
            seq: frame.seq(),
            digest,
            prev: frame.prev(),
            is_revoked: gated.standing.is_revoked(),
        };
        let lake = self.lake.clone();
        let look_up = |device: DeviceNumber, boot: BootId, seq| stored_digest(&lake, device, boot, seq);
        let code = match self.windows.judge_with(&ask, look_up) {
            Ok(Standing::New(new)) => return self.keep(register, frame, gated, bytes, received_us, new),
            Ok(Standing::Dup) => Code::Dup,
            Ok(Standing::Equivocation) => {
                tracing::error!(device = %gated.name, seq = frame.seq(), "equivocation: a second frame under one number");
                self.quarantine.keep(&bytes);
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
        let verdict = verdict_of(frame, code, 0, hint_of(code));
        Fate::Decided { name: Some((gated.device, gated.name)), verdict }
    }

    fn keep(
        &mut self,
        register: &Register,
        frame: &VerifiedFrame<'_>,
        gated: &Gated,
        bytes: bytes::Bytes,
        received_us: i64,
        new: ingest_devices::New,
    ) -> Fate {
        let times = (frame.wall_us(), frame.mono_us());
        let placed = self.windows.place(gated.device, frame.boot(), times, received_us);
        let found = assess(frame, Registry::builtin());
        let mut flag_bits = new.flags() | found.flags;
        let mut codes: Vec<Code> = new.code().into_iter().chain(found.code).collect();
        if placed.is_corrected {
            flag_bits |= flags::CLOCK;
            codes.push(Code::Clock);
        }
        if placed.is_late {
            flag_bits |= flags::LATE;
        }
        if register.binding_at(gated.device, placed.t0_us).is_none() {
            codes.push(Code::NotBound);
        }
        let code = most_telling(&codes);
        let readings = frame.series().map(|series| series.len() as u64).sum();
        let admitted = Admitted {
            position: 0,
            device: gated.device.0,
            t0_us: placed.t0_us,
            received_us,
            flags: flag_bits,
            code,
            // A copy of its own: a small frame must not keep a whole request body in memory.
            frame: bytes::Bytes::copy_from_slice(&bytes),
        };
        let verdict = verdict_of(frame, code, flag_bits, hint_of(code));
        Fate::Kept { admitted, name: gated.name, verdict, readings }
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
        let mut positions = self.wal.append(&records)?;
        let mut total = 0;
        let mut pushed = Vec::with_capacity(records.len());
        for fate in fates.iter_mut() {
            if let Fate::Kept { admitted, readings, .. } = fate {
                admitted.position = positions.next().unwrap_or(0);
                total += *readings;
                pushed.push(admitted.clone());
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
        tracing::error!(%error, "write-ahead log refused a group: senders are asked to wait");
        for fate in fates {
            if let Fate::Kept { verdict, .. } = fate {
                verdict.code = Code::RetryAfter;
                verdict.flags = 0;
                verdict.hint = hint_of(Code::RetryAfter);
            }
        }
    }

    fn answer(&mut self, submissions: &mut Vec<Submission>, fates: Vec<Fate>) {
        let mut fates = fates.into_iter();
        for submission in submissions.drain(..) {
            let mut verdicts = Vec::with_capacity(submission.frames.len());
            let mut touched = BTreeSet::new();
            for fate in fates.by_ref().take(submission.frames.len()) {
                let (verdict, device) = match fate {
                    Fate::Kept { verdict, admitted, name, .. } => (verdict, Some((admitted.device, name))),
                    Fate::Decided { verdict, name } => (verdict, name.map(|(number, name)| (number.0, name))),
                };
                if let Some(metrics) = &self.metrics {
                    metrics.verdict(verdict.code);
                }
                touched.extend(device);
                verdicts.push(verdict);
            }
            let report = |(number, name): (u32, ShortId)| -> DeviceReport {
                self.windows.report(DeviceNumber(number), name)
            };
            let reports = touched.into_iter().map(report).collect();
            submission.reply.send(Reply { verdicts, reports });
        }
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
