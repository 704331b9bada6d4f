//! The checks of a manifest, step by step, each with its finding: it holds, it is not proved, or it is wrong.
//!
//! ```text
//! format -> fields -> policy -> signature -> snapshot -> access -> files -> sql -> result -> log
//! ```
//!
//! It stops at the first that is wrong. What was not given (the answer's bytes, the statement, a copy of the log) is reported
//! as unproved, never passed over. What it is not: I/O; the caller hands in bytes, and says what came of the log's audit.

use std::fmt;

use super::{AnswerManifest, AnswerProof, LISTED_MAX, ProvedEntry};
use crate::checkpoint::Checkpoint;
use crate::entry::{Entry, entry_leaf};
use crate::merkle::{self, Hash32, Sha256Rfc6962};
use crate::note::Note;
use crate::policy::{Accepted, Policy};
use crate::tiles::LogAudit;

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Check {
    /// The file is a manifest.
    Format,
    /// The readable fields are those in the signed text.
    Fields,
    /// The checkpoint is one that the policy accepts.
    Policy,
    /// The fields are signed by that log.
    Signature,
    /// The state read is a prefix of that log.
    Snapshot,
    /// The access was logged, under the epoch named.
    Access,
    /// The entries that commit to the files read are in the log.
    Files,
    /// The statement is the one that was asked.
    Sql,
    /// The bytes are those that were sent.
    Result,
    /// A copy of the whole log agrees.
    Log,
}

impl Check {
    /// All steps in their order.
    pub const ALL: [Check; 10] = [
        Check::Format,
        Check::Fields,
        Check::Policy,
        Check::Signature,
        Check::Snapshot,
        Check::Access,
        Check::Files,
        Check::Sql,
        Check::Result,
        Check::Log,
    ];

    /// The name used in output.
    pub fn name(self) -> &'static str {
        match self {
            Check::Format => "format",
            Check::Fields => "fields",
            Check::Policy => "policy",
            Check::Signature => "signature",
            Check::Snapshot => "snapshot",
            Check::Access => "access",
            Check::Files => "files",
            Check::Sql => "sql",
            Check::Result => "result",
            Check::Log => "log",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What came of a step; the sentence says what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Verified.
    Holds(String),
    /// Nothing was given to check it with.
    Unproved(String),
    /// Wrong.
    Fails(String),
    /// An earlier step was wrong.
    NotReached,
}

/// A step and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepFinding {
    /// The step.
    pub step: Check,
    /// What came of it.
    pub finding: Finding,
}

/// What a manifest proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The manifest.
    pub manifest: AnswerManifest,
    /// The log's head.
    pub checkpoint: Checkpoint,
    /// Witnesses that cosigned it: name and time in seconds since 1970.
    pub witnesses: Vec<(String, u64)>,
    /// What it does not prove, one sentence each.
    pub unproved: Vec<String>,
}

/// A whole check: every step in order, and the result: what is proved, or the first step that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checking {
    /// All steps.
    pub steps: Vec<StepFinding>,
    /// What is proved, or the step that is wrong and why.
    pub result: Result<Checked, (Check, String)>,
}

/// Reads a whole log and audits it against heads that must be prefixes of it. The text says why it could not.
pub type Reader<'a> = &'a mut dyn FnMut(&[Checkpoint]) -> Result<LogAudit, String>;

type Held = Result<Finding, String>;

impl Checking {
    /// Checks a manifest against the verifier's own policy. `result`: length and BLAKE3 of the answer's bytes. `log`: reads the
    /// log, if there is one to read.
    pub fn run(
        bytes: &[u8],
        policy: &Policy,
        result: Option<(u64, Hash32)>,
        log: Option<Reader<'_>>,
    ) -> Checking {
        let mut steps = Vec::new();
        let result = run(bytes, policy, result, log, &mut steps);
        if let Err((step, problem)) = &result {
            steps.push(StepFinding { step: *step, finding: Finding::Fails(problem.clone()) });
        }
        for step in Check::ALL.into_iter().skip(steps.len()) {
            steps.push(StepFinding { step, finding: Finding::NotReached });
        }
        Checking { steps, result }
    }
}

fn run(
    bytes: &[u8],
    policy: &Policy,
    result: Option<(u64, Hash32)>,
    log: Option<Reader<'_>>,
    steps: &mut Vec<StepFinding>,
) -> Result<Checked, (Check, String)> {
    let mut put = |step: Check, held: Held| -> Result<(), (Check, String)> {
        let finding = held.map_err(|problem| (step, problem))?;
        steps.push(StepFinding { step, finding });
        Ok(())
    };
    let manifest = AnswerManifest::parse(bytes).map_err(|error| (Check::Format, error.to_string()))?;
    let Some(proof) = manifest.proof.clone() else {
        return Err((Check::Format, "field `proof` is missing: ask the server for the manifest".to_owned()));
    };
    let format = format!("manifest of an answer, version 1, {} bytes", bytes.len());
    put(Check::Format, Ok(Finding::Holds(format)))?;
    put(Check::Fields, fields(&manifest))?;
    let accepted = accept(policy, &proof).map_err(|problem| (Check::Policy, problem))?;
    put(Check::Policy, Ok(Finding::Holds(policy_sentence(&accepted))))?;
    let head = accepted.checkpoint.clone();
    put(Check::Signature, signature(&manifest, policy, &head))?;
    put(Check::Snapshot, snapshot(&manifest, &proof, &head))?;
    let entries = included(&proof, &head).map_err(|problem| (Check::Access, problem))?;
    put(Check::Access, access(&manifest, &entries))?;
    put(Check::Files, files(&manifest, &entries))?;
    put(Check::Sql, sql(&manifest))?;
    put(Check::Result, result_bytes(&manifest, result))?;
    put(Check::Log, whole_log(&manifest, &head, log))?;
    let mut unproved = unproved(&manifest, policy, &accepted);
    unproved.extend(steps.iter().filter_map(|step| match &step.finding {
        Finding::Unproved(sentence) => Some(sentence.clone()),
        _ => None,
    }));
    Ok(Checked { manifest, checkpoint: head, witnesses: accepted.witnesses, unproved })
}

/// Compares line by line, so that the field is named.
fn fields(manifest: &AnswerManifest) -> Held {
    let note = Note::parse(&manifest.signed).map_err(|error| format!("field `signed`: {error}"))?;
    let readable = manifest.to_text();
    let (mut ours, mut theirs) = (readable.lines(), note.text.lines());
    let mut count = 0;
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => return Ok(Finding::Holds(format!("{count} fields are as in the signed text"))),
            (Some(ours), Some(theirs)) if ours == theirs => count += 1,
            (ours, theirs) => {
                let line = ours.or(theirs).unwrap_or_default();
                let name = line.split(": ").next().unwrap_or_default();
                let shown = |line: Option<&str>| match line {
                    Some(line) => format!("{:?}", line.chars().take(120).collect::<String>()),
                    None => "nothing".to_owned(),
                };
                return Err(format!(
                    "field `{name}`: the file says {}, the signed text {}",
                    shown(ours),
                    shown(theirs)
                ));
            }
        }
    }
}

fn accept(policy: &Policy, proof: &AnswerProof) -> Result<Accepted, String> {
    policy.open(&proof.checkpoint).map_err(|error| format!("field `checkpoint`: {error}"))
}

fn policy_sentence(accepted: &Accepted) -> String {
    let names: Vec<&str> = accepted.witnesses.iter().map(|(name, _)| name.as_str()).collect();
    let head = &accepted.checkpoint;
    let cosigned = if names.is_empty() { "no witness".to_owned() } else { names.join(", ") };
    format!("checkpoint of {} entries signed by {}; {cosigned}", head.size, head.origin)
}

/// The log that signed the checkpoint must also have signed the fields.
fn signature(manifest: &AnswerManifest, policy: &Policy, head: &Checkpoint) -> Held {
    if manifest.origin != head.origin {
        return Err(format!(
            "field `origin` is {:?}, the checkpoint is one of {:?}",
            manifest.origin, head.origin
        ));
    }
    let keys = policy.logs().filter(|key| key.name() == head.origin);
    let mut problem = "field `signed`: the policy has no key of this log".to_owned();
    for key in keys {
        match crate::note::open_note(&manifest.signed, key) {
            Ok(_) => return Ok(Finding::Holds(format!("all fields are signed by {}", head.origin))),
            Err(error) => problem = format!("field `signed`: {error}: a field was changed, or it is forged"),
        }
    }
    Err(problem)
}

fn snapshot(manifest: &AnswerManifest, proof: &AnswerProof, head: &Checkpoint) -> Held {
    let AnswerManifest { log_size, log_root, .. } = manifest;
    if *log_size > head.size {
        return Err(format!("field `log_size` is {log_size}, the checkpoint has only {} entries", head.size));
    }
    let path: Vec<Hash32> = proof.consistency.iter().map(|hash| hash.0).collect();
    if *log_size == 0 {
        let is_empty = path.is_empty() && log_root.0 == merkle::root::<Sha256Rfc6962>(&[]);
        let wrong = || "field `log_root` is not the root of an empty log".to_owned();
        return is_empty.then(|| Finding::Holds("an empty log was read".to_owned())).ok_or_else(wrong);
    }
    merkle::verify_consistency::<Sha256Rfc6962>(*log_size, head.size, &path, &log_root.0, &head.root)
        .map_err(|error| {
            format!("fields `log_root` and `consistency` do not lead to the checkpoint: {error}")
        })?;
    Ok(Finding::Holds(format!("read as of log size {log_size}, a prefix of this log")))
}

/// Every entry of the proof, once it is shown to be in the log; indices rise.
fn included(proof: &AnswerProof, head: &Checkpoint) -> Result<Vec<(u64, Entry)>, String> {
    let mut entries: Vec<(u64, Entry)> = Vec::with_capacity(proof.entries.len());
    for ProvedEntry { index, entry, path } in &proof.entries {
        if entries.last().is_some_and(|(before, _)| before >= index) {
            return Err(format!("field `entries`: entry {index} does not follow the one before it"));
        }
        let path: Vec<Hash32> = path.iter().map(|hash| hash.0).collect();
        merkle::verify_inclusion::<Sha256Rfc6962>(&entry_leaf(entry), *index, head.size, &path, &head.root)
            .map_err(|error| format!("field `entries`: entry {index} is not in the log: {error}"))?;
        let parsed =
            Entry::parse(entry).map_err(|error| format!("field `entries`: entry {index}: {error}"))?;
        entries.push((*index, parsed));
    }
    Ok(entries)
}

fn access(manifest: &AnswerManifest, entries: &[(u64, Entry)]) -> Held {
    let at = |wanted: u64| entries.iter().find(|(index, _)| *index == wanted).map(|(_, entry)| entry);
    let AnswerManifest { query_index, consent_epoch, .. } = manifest;
    match at(*query_index) {
        Some(Entry::Query { epoch, .. }) if epoch == consent_epoch => {}
        Some(Entry::Query { epoch, .. }) => {
            return Err(format!(
                "field `consent_epoch` is {consent_epoch}, entry {query_index} says {epoch}"
            ));
        }
        _ => return Err(format!("field `query_index`: no access record is proved at {query_index}")),
    }
    let Some(result) = manifest.result_index else {
        return Ok(Finding::Holds(format!(
            "access record at entry {query_index}, epoch {consent_epoch}; its completion comes later"
        )));
    };
    match at(result) {
        Some(Entry::Result { .. }) if result > *query_index => Ok(Finding::Holds(format!(
            "access record at entry {query_index}, epoch {consent_epoch}; completed at entry {result}"
        ))),
        _ => Err(format!("field `result_index`: no completion is proved at {result}")),
    }
}

fn files(manifest: &AnswerManifest, entries: &[(u64, Entry)]) -> Held {
    let AnswerManifest { batches, sets, log_size, .. } = manifest;
    let (mut batch_count, mut set_count) = (0, 0);
    for (index, entry) in entries {
        match entry {
            Entry::Batch { .. } if index < log_size => batch_count += 1,
            Entry::Batch { .. } => {
                return Err(format!(
                    "field `entries`: batch entry {index} is not before log size {log_size}"
                ));
            }
            Entry::Compact { .. } => set_count += 1,
            _ if *index == manifest.query_index || Some(*index) == manifest.result_index => {}
            other => {
                return Err(format!(
                    "field `entries`: entry {index}, a {}, does not belong here",
                    other.kind()
                ));
            }
        }
    }
    let is_left_out = batches.saturating_add(*sets) > LISTED_MAX as u64;
    match (batch_count, set_count) {
        (found, _) if !is_left_out && found != *batches => {
            Err(format!("field `batches` is {batches}, {found} are proved"))
        }
        (_, found) if !is_left_out && found != *sets => {
            Err(format!("field `sets` is {sets}, {found} are proved"))
        }
        (0, 0) if is_left_out => Ok(Finding::Unproved(format!(
            "that there were {batches} batches and {sets} sets: too many to be listed"
        ))),
        _ if is_left_out => Err("field `entries`: some batches are listed, others not".to_owned()),
        _ => Ok(Finding::Holds(format!(
            "{batches} batch and {sets} set entries commit to files and roots, all in the log"
        ))),
    }
}

fn sql(manifest: &AnswerManifest) -> Held {
    let Some(sql) = &manifest.sql else {
        return Ok(Finding::Unproved("what was asked: the file does not carry the statement".to_owned()));
    };
    if *blake3::hash(sql.as_bytes()).as_bytes() == manifest.sql_blake3.0 {
        Ok(Finding::Holds("the statement has the digest signed".to_owned()))
    } else {
        Err("field `sql` is not the statement with the digest `sql_blake3`".to_owned())
    }
}

fn result_bytes(manifest: &AnswerManifest, result: Option<(u64, Hash32)>) -> Held {
    let signed = &manifest.result;
    match result {
        None => Ok(Finding::Unproved("that a file is this answer: none was given".to_owned())),
        Some((bytes, _)) if bytes != signed.bytes => {
            Err(format!("field `result.bytes` is {}, the file given has {bytes} bytes", signed.bytes))
        }
        Some((_, digest)) if digest != signed.blake3.0 => Err(format!(
            "field `result.blake3` is {}, that of the file given is {}",
            signed.blake3,
            hex::encode(digest)
        )),
        Some(_) => Ok(Finding::Holds(format!(
            "the file given is the answer: {} bytes of {:?}",
            signed.bytes, signed.media
        ))),
    }
}

fn whole_log(manifest: &AnswerManifest, head: &Checkpoint, log: Option<Reader<'_>>) -> Held {
    let Some(read) = log else {
        let sentence = "that no batch was left out of what was read: no copy of the log was given";
        return Ok(Finding::Unproved(sentence.to_owned()));
    };
    let as_of = Checkpoint { size: manifest.log_size, root: manifest.log_root.0, ..head.clone() };
    let audit = read(&[head.clone(), as_of])?;
    if let Some(finding) = audit.findings.first() {
        return Err(format!("the log given: {}: {}", finding.place, finding.problem));
    }
    match audit.batches_at.get(1) {
        Some(batches) if *batches == manifest.batches => Ok(Finding::Holds(format!(
            "the log given extends all of this and has exactly {batches} batches before entry {}",
            manifest.log_size
        ))),
        found => Err(format!(
            "field `batches` is {}, the log given has {} before entry {}",
            manifest.batches,
            found.copied().unwrap_or(0),
            manifest.log_size
        )),
    }
}

fn unproved(manifest: &AnswerManifest, policy: &Policy, accepted: &Accepted) -> Vec<String> {
    let mut unproved = vec![
        "that the rows are right, and all that consent allowed: that is computed, ask again as of the same log size"
            .to_owned(),
        format!(
            "what the access record behind entry {} says: it is kept sealed, by the deployment",
            manifest.query_index
        ),
    ];
    if manifest.live_tail {
        unproved
            .push("rows that no batch held yet: a question as of this log size does not see them".to_owned());
    }
    if policy.is_unwitnessed() {
        unproved
            .push("that the log shows everybody the same history: the policy asks for no witness".to_owned());
    }
    for signer in &accepted.unknown_signers {
        unproved.push(format!("the signature by {signer:?} on the checkpoint: not checked"));
    }
    unproved
}
