//! The verification of an evidence file, step by step, each step named.
//!
//! ```text
//! format -> frame -> enrolment -> entry -> path -> proof -> policy -> anchors
//! ```
//!
//! It stops at the first step that fails. What it is not: a statement about the person who wore the device, about the truth
//! of a reading, or about the device's key not having been stolen; [`Verified::unproved`] says so each time.

use std::fmt;

use schemas_frame::{DecodeError, Frame, Reference, verify_all};
use schemas_identity::{Body, BootId, Did, PublicKey, ShortId, Statement, statement::StatementError};
use thiserror::Error;

use super::{BatchPath, ENROLMENT_STATEMENTS_MAX, Evidence, FormatError};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::entry::{Entry, EntryError, entry_leaf};
use crate::merkle::{self, Blake3Frames, ProofError, Sha256Rfc6962, frame_leaf};
use crate::note::{Note, NoteError};
use crate::policy::{Accepted, Policy, PolicyError};
use crate::proof::{TlogProof, TlogProofError};

/// A step of the verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// The file is an evidence file in its one encoding.
    Format,
    /// The frame is well-formed and signed by the enrolled key.
    Frame,
    /// A maker the policy trusts enrolled that key for this deployment.
    Enrolment,
    /// The entry is that of a batch.
    Entry,
    /// The frame is in that batch.
    Path,
    /// The entry is in the log.
    Proof,
    /// The log's head is signed by a log the policy trusts and cosigned as it demands.
    Policy,
    /// What others said about that head.
    Anchors,
}

impl Step {
    /// All steps in their order.
    pub const ALL: [Step; 8] = [
        Step::Format,
        Step::Frame,
        Step::Enrolment,
        Step::Entry,
        Step::Path,
        Step::Proof,
        Step::Policy,
        Step::Anchors,
    ];

    /// The name used in output.
    pub fn name(self) -> &'static str {
        match self {
            Step::Format => "format",
            Step::Frame => "frame",
            Step::Enrolment => "enrolment",
            Step::Entry => "entry",
            Step::Path => "path",
            Step::Proof => "proof",
            Step::Policy => "policy",
            Step::Anchors => "anchors",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What becomes of parts that the verifier has no means to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strictness {
    /// They refuse the file: every byte of an accepted file has been checked.
    #[default]
    Everything,
    /// Signature lines of unknown witnesses and anchors of unknown kinds are ignored and listed as unproved.
    KnownParts,
}

/// Why an evidence file is refused. [`EvidenceError::step`] names the step.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EvidenceError {
    /// Not an evidence file.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The frame does not decode.
    #[error("the frame is malformed: {0}")]
    FrameMalformed(DecodeError),
    /// The frame's signature does not verify under the enrolled key.
    #[error("the frame is not signed by device {device}")]
    FrameSignature {
        /// Short id of the enrolled key.
        device: ShortId,
    },
    /// The frame names another key than the one enrolled.
    #[error("the frame names key {frame}, the enrolment ends in key {enrolled}")]
    FrameKey {
        /// Short id in the frame.
        frame: ShortId,
        /// Short id of the enrolled key.
        enrolled: ShortId,
    },
    /// A statement of the enrolment does not hold.
    #[error("statement {number} of the enrolment does not hold: {source}")]
    Statement {
        /// Counted from 1.
        number: usize,
        /// Why.
        source: StatementError,
    },
    /// The statements are not one `enrol` followed by `rotate`s of the same device.
    #[error("statement {number} of the enrolment is not {expected}")]
    EnrolmentChain {
        /// Counted from 1.
        number: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// More than [`ENROLMENT_STATEMENTS_MAX`].
    #[error("the enrolment has more than {ENROLMENT_STATEMENTS_MAX} statements")]
    EnrolmentTooLong,
    /// The maker who signed the enrolment is not one the policy trusts.
    #[error("maker {maker} is not in the policy")]
    Maker {
        /// The maker.
        maker: Did,
    },
    /// The entry does not read.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The entry is not that of a batch.
    #[error("the entry is of kind {kind}, not batch")]
    EntryKind {
        /// Its kind.
        kind: &'static str,
    },
    /// The path speaks of another number of frames than the entry.
    #[error("the path counts {path} frames, the entry {entry}")]
    PathSize {
        /// In the path.
        path: u64,
        /// In the entry.
        entry: u64,
    },
    /// The path does not lead from the frame to the batch root.
    #[error("the frame is not leaf {index} of the batch: {source}")]
    Path {
        /// Leaf index claimed.
        index: u64,
        /// Why.
        source: ProofError,
    },
    /// The proof does not read, or does not lead from the entry to the checkpoint.
    #[error(transparent)]
    Proof(TlogProofError),
    /// The checkpoint inside the proof does not read.
    #[error("the checkpoint in the proof is malformed: {0}")]
    ProofCheckpoint(CheckpointError),
    /// The proof carries extra data, which nothing vouches for.
    #[error("the proof carries extra data that nobody signed")]
    ProofExtra,
    /// The policy does not accept the checkpoint.
    #[error(transparent)]
    Policy(PolicyError),
    /// A signature line by somebody the policy does not know (only with [`Strictness::Everything`]).
    #[error("the checkpoint carries a signature by {signer:?}, whom the policy does not know")]
    UnknownSigner {
        /// The name in the line.
        signer: String,
    },
    /// An anchor this verifier cannot check (only with [`Strictness::Everything`]).
    #[error("an anchor of kind {kind:?} cannot be checked here")]
    UnknownAnchor {
        /// Its kind.
        kind: String,
    },
}

impl EvidenceError {
    /// The step that failed.
    pub fn step(&self) -> Step {
        match self {
            EvidenceError::Format(_) => Step::Format,
            EvidenceError::FrameMalformed(_)
            | EvidenceError::FrameSignature { .. }
            | EvidenceError::FrameKey { .. } => Step::Frame,
            EvidenceError::Statement { .. }
            | EvidenceError::EnrolmentChain { .. }
            | EvidenceError::EnrolmentTooLong
            | EvidenceError::Maker { .. } => Step::Enrolment,
            EvidenceError::Entry(_) | EvidenceError::EntryKind { .. } => Step::Entry,
            EvidenceError::PathSize { .. } | EvidenceError::Path { .. } => Step::Path,
            EvidenceError::Proof(_) | EvidenceError::ProofCheckpoint(_) | EvidenceError::ProofExtra => {
                Step::Proof
            }
            EvidenceError::Policy(_) | EvidenceError::UnknownSigner { .. } => Step::Policy,
            EvidenceError::UnknownAnchor { .. } => Step::Anchors,
        }
    }
}

/// What a verified file proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Who signed the frame.
    pub device: Device,
    /// The device's boot.
    pub boot: BootId,
    /// Sequence number within it.
    pub seq: u64,
    /// The device's own clock at t0, microseconds since 1970 UTC. A claim of the device.
    pub wall_us: Option<i64>,
    /// Number of series in the frame.
    pub series: usize,
    /// The batch's id.
    pub batch: String,
    /// The frame's place in the batch.
    pub leaf: u64,
    /// Frames in the batch.
    pub frames: u64,
    /// The entry's index in the log.
    pub log_index: u64,
    /// The log's head.
    pub checkpoint: Checkpoint,
    /// Witnesses that cosigned it: name and time in seconds since 1970.
    pub witnesses: Vec<(String, u64)>,
    /// What this file does not prove, one sentence each.
    pub unproved: Vec<String>,
}

/// The device behind a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Short id of the first key: its name in the tables.
    pub id: ShortId,
    /// The key the frame is signed with.
    pub key: PublicKey,
    /// How often the key was replaced before.
    pub rotations: usize,
    /// Who enrolled it.
    pub maker: Did,
    /// What the maker calls it.
    pub model: String,
}

/// The outcome of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It holds; the sentence says what was found.
    Holds(String),
    /// It does not; the sentence says why.
    Fails(String),
    /// An earlier step failed.
    NotReached,
}

/// One step and its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepReport {
    /// The step.
    pub step: Step,
    /// Its outcome.
    pub outcome: Outcome,
}

/// A whole verification: each step in order, and the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// All eight steps.
    pub steps: Vec<StepReport>,
    /// What the file proves, or the first failure.
    pub result: Result<Verified, EvidenceError>,
}

impl Verification {
    /// Verifies `bytes` against the verifier's own policy.
    pub fn run(bytes: &[u8], policy: &Policy, strictness: Strictness) -> Verification {
        let mut trail = Trail::default();
        let result = run(bytes, policy, strictness, &mut trail);
        let mut steps = trail.held;
        if let Err(error) = &result {
            steps.retain(|report| report.step < error.step());
            steps.push(StepReport { step: error.step(), outcome: Outcome::Fails(error.to_string()) });
        }
        for step in Step::ALL {
            if !steps.iter().any(|report| report.step == step) {
                steps.push(StepReport { step, outcome: Outcome::NotReached });
            }
        }
        Verification { steps, result }
    }
}

#[derive(Default)]
struct Trail {
    held: Vec<StepReport>,
}

impl Trail {
    fn holds(&mut self, step: Step, sentence: String) {
        self.held.push(StepReport { step, outcome: Outcome::Holds(sentence) });
    }
}

fn run(
    bytes: &[u8],
    policy: &Policy,
    strictness: Strictness,
    trail: &mut Trail,
) -> Result<Verified, EvidenceError> {
    let evidence = Evidence::parse(bytes)?;
    trail.holds(Step::Format, format!("evidence file version 1, {} bytes, deterministic", bytes.len()));

    let frame = Frame::parse(&evidence.frame).map_err(EvidenceError::FrameMalformed)?;
    let proof = TlogProof::parse(&evidence.proof).map_err(EvidenceError::Proof)?;
    let origin = claimed_origin(&proof)?;
    let device = enrolled_device(&evidence.enrolment, &origin, policy)?;
    check_signature(frame, &device)?;
    let bytes = evidence.frame.len();
    let (boot, seq) = (frame.boot(), frame.seq());
    trail.holds(
        Step::Frame,
        format!("{bytes} bytes signed by {}, boot {boot}, seq {seq}", device.key.short_id()),
    );
    trail.holds(Step::Enrolment, device_sentence(&device));

    let (batch, frames, root) = batch_entry(&evidence.entry)?;
    trail.holds(Step::Entry, format!("batch {batch} of {frames} frames"));
    check_path(&evidence, frames, &root)?;
    trail.holds(
        Step::Path,
        format!("leaf {} of the batch, {} hashes", evidence.path.index, evidence.path.path.len()),
    );

    let head = check_proof(&proof, &evidence.entry)?;
    trail.holds(Step::Proof, format!("entry {} of a log of {} entries", proof.index, head.size));
    let accepted = check_policy(&proof, policy, strictness)?;
    trail.holds(Step::Policy, policy_sentence(&accepted));
    let mut unproved = unproved_by_this_file(policy, &accepted);
    unproved.extend(check_anchors(&evidence, strictness)?);
    trail.holds(Step::Anchors, "none".to_owned());

    Ok(Verified {
        boot,
        seq,
        wall_us: frame.wall_us(),
        series: frame.series_len(),
        device,
        batch,
        leaf: evidence.path.index,
        frames,
        log_index: proof.index,
        checkpoint: accepted.checkpoint,
        witnesses: accepted.witnesses,
        unproved,
    })
}

/// The log the checkpoint names; believed only once the policy has accepted the checkpoint.
fn claimed_origin(proof: &TlogProof) -> Result<String, EvidenceError> {
    Ok(claimed_head(proof)?.origin)
}

fn claimed_head(proof: &TlogProof) -> Result<Checkpoint, EvidenceError> {
    let malformed = |error: NoteError| EvidenceError::ProofCheckpoint(error.into());
    let note = Note::parse(&proof.checkpoint).map_err(malformed)?;
    Checkpoint::from_text(note.text).map_err(EvidenceError::ProofCheckpoint)
}

/// Follows the statements from the first key to the one in use.
///
/// The maker vouches for each key, so every statement must be signed by the same maker, whom the policy trusts.
fn enrolled_device(enrolment: &str, origin: &str, policy: &Policy) -> Result<Device, EvidenceError> {
    let mut device: Option<Device> = None;
    for (before, compact) in enrolment.split('\n').enumerate() {
        let number = before + 1;
        if number > ENROLMENT_STATEMENTS_MAX {
            return Err(EvidenceError::EnrolmentTooLong);
        }
        let statement = Statement::parse(compact, origin)
            .map_err(|source| EvidenceError::Statement { number, source })?;
        device = Some(match device {
            None => first_key(&statement, policy)?,
            Some(known) => next_key(known, &statement, number)?,
        });
    }
    device.ok_or(EvidenceError::EnrolmentChain { number: 1, expected: "an enrolment" })
}

fn first_key(statement: &Statement, policy: &Policy) -> Result<Device, EvidenceError> {
    let Body::Enrol(enrol) = &statement.body else {
        return Err(EvidenceError::EnrolmentChain { number: 1, expected: "an enrolment" });
    };
    let maker = statement.signer;
    if !policy.trusts_maker(&maker) {
        return Err(EvidenceError::Maker { maker });
    }
    let key = *enrol.device_key.key();
    Ok(Device { id: key.short_id(), key, rotations: 0, maker, model: enrol.model.clone() })
}

fn next_key(known: Device, statement: &Statement, number: usize) -> Result<Device, EvidenceError> {
    let Body::Rotate(rotate) = &statement.body else {
        return Err(EvidenceError::EnrolmentChain { number, expected: "a rotation" });
    };
    if statement.signer != known.maker {
        return Err(EvidenceError::EnrolmentChain {
            number,
            expected: "signed by the maker who enrolled the device",
        });
    }
    if *rotate.old.key() != known.key {
        return Err(EvidenceError::EnrolmentChain { number, expected: "a rotation of the key before it" });
    }
    Ok(Device { key: *rotate.new.key(), rotations: known.rotations + 1, ..known })
}

fn check_signature(frame: Frame<'_>, device: &Device) -> Result<(), EvidenceError> {
    let enrolled = device.key.short_id();
    if frame.kid() != enrolled {
        return Err(EvidenceError::FrameKey { frame: frame.kid(), enrolled });
    }
    match verify_all(&Reference, vec![(frame, device.key)]).pop() {
        Some(Ok(_)) => Ok(()),
        _ => Err(EvidenceError::FrameSignature { device: enrolled }),
    }
}

fn batch_entry(entry: &str) -> Result<(String, u64, merkle::Hash32), EvidenceError> {
    match Entry::parse(entry)? {
        Entry::Batch { id, frames, root, .. } => Ok((id, frames, root)),
        other => Err(EvidenceError::EntryKind { kind: other.kind() }),
    }
}

fn check_path(evidence: &Evidence, frames: u64, root: &merkle::Hash32) -> Result<(), EvidenceError> {
    let BatchPath { index, size, path } = &evidence.path;
    if *size != frames {
        return Err(EvidenceError::PathSize { path: *size, entry: frames });
    }
    let leaf = frame_leaf(&evidence.frame);
    merkle::verify_inclusion::<Blake3Frames>(&leaf, *index, *size, path, root)
        .map_err(|source| EvidenceError::Path { index: *index, source })
}

fn check_proof(proof: &TlogProof, entry: &str) -> Result<Checkpoint, EvidenceError> {
    if proof.extra.is_some() {
        return Err(EvidenceError::ProofExtra);
    }
    let head = claimed_head(proof)?;
    let leaf = entry_leaf(entry);
    merkle::verify_inclusion::<Sha256Rfc6962>(&leaf, proof.index, head.size, &proof.path, &head.root)
        .map_err(|source| EvidenceError::Proof(TlogProofError::Path(source)))?;
    Ok(head)
}

fn check_policy(
    proof: &TlogProof,
    policy: &Policy,
    strictness: Strictness,
) -> Result<Accepted, EvidenceError> {
    let accepted = policy.open(&proof.checkpoint).map_err(EvidenceError::Policy)?;
    match (strictness, accepted.unknown_signers.first()) {
        (Strictness::Everything, Some(signer)) => {
            Err(EvidenceError::UnknownSigner { signer: signer.chars().take(80).collect() })
        }
        _ => Ok(accepted),
    }
}

/// No anchor can be checked offline yet; what is ignored is named.
fn check_anchors(evidence: &Evidence, strictness: Strictness) -> Result<Vec<String>, EvidenceError> {
    let mut ignored = Vec::new();
    for anchor in &evidence.anchors {
        if strictness == Strictness::Everything {
            return Err(EvidenceError::UnknownAnchor { kind: anchor.kind.clone() });
        }
        ignored.push(format!("the anchor of kind {:?}: not checked", anchor.kind));
    }
    Ok(ignored)
}

fn device_sentence(device: &Device) -> String {
    let rotated = match device.rotations {
        0 => String::new(),
        times => format!(", key replaced {times} times"),
    };
    format!("device {} ({:?}{rotated}) enrolled by {}", device.id, device.model, device.maker)
}

fn policy_sentence(accepted: &Accepted) -> String {
    let names: Vec<&str> = accepted.witnesses.iter().map(|(name, _)| name.as_str()).collect();
    let origin = &accepted.checkpoint.origin;
    if names.is_empty() {
        format!("checkpoint signed by {origin}; no witness")
    } else {
        format!("checkpoint signed by {origin}, cosigned by {}", names.join(", "))
    }
}

fn unproved_by_this_file(policy: &Policy, accepted: &Accepted) -> Vec<String> {
    let mut unproved = vec![
        "that the device's key had not been revoked or stolen when it signed".to_owned(),
        "who wore the device, and that its clock and sensors were right".to_owned(),
    ];
    if policy.is_unwitnessed() {
        unproved
            .push("that the log shows everybody the same history: the policy asks for no witness".to_owned());
    }
    for signer in &accepted.unknown_signers {
        unproved.push(format!("the signature by {signer:?} on the checkpoint: not checked"));
    }
    unproved
}
