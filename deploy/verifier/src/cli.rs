//! Arguments and exit codes: 0 verified, 1 failed, 2 usage, 3 refused. What it is not: verification; that is in the schemas.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use schemas_evidence::answer::{ANSWER_BYTES_MAX, Checking, Reader};
use schemas_evidence::evidence::EVIDENCE_BYTES_MAX;
use schemas_evidence::note::NOTE_BYTES_MAX;
use schemas_evidence::policy::POLICY_BYTES_MAX;
use schemas_evidence::tiles::{self, AuditError, LogAudit};
use schemas_evidence::{
    Checkpoint, Hash32, Policy, PolicyParseError, Strictness, Verification, open_checkpoint,
};
use thiserror::Error;

use crate::report;
use crate::source::open_source;

/// Entries between two lines of progress.
const PROGRESS_EVERY: u64 = 65_536;

/// What the process says when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Verified.
    Done = 0,
    /// A file or a server could not be read; nothing is known.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Read and refused.
    Refused = 3,
}

#[derive(Parser)]
#[command(
    name = "vitalog-verify",
    version,
    about = "Checks evidence files and logs of vitalog, offline, against your own policy",
    after_help = "\
Exit code: 0 verified, 1 could not be read, 2 wrong command line, 3 refused.

Examples:
  vitalog-verify evidence frame.evidence --policy hospital.policy
  vitalog-verify evidence frame.evidence --policy hospital.policy --json
  vitalog-verify manifest answer.manifest --policy hospital.policy --result answer.csv
  vitalog-verify log /var/lib/vitalog/log --policy hospital.policy
  vitalog-verify log https://vitalog.example/log --policy hospital.policy --kept last-month.checkpoint"
)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Checks one frame: signed by an enrolled device, in a batch, in the log, under a head your policy accepts
    #[command(after_help = "\
The steps, in order: format, frame, enrolment, entry, path, proof, policy, anchors.
The first that fails is named and the exit code is 3. No network is used.

Example:
  vitalog-verify evidence frame.evidence --policy hospital.policy")]
    Evidence(EvidenceArgs),
    /// Checks the manifest of an answer: what was asked of which state of the log, logged before rows left, with which bytes
    #[command(after_help = "\
The steps, in order: format, fields, policy, signature, snapshot, access, files, sql, result, log.
The first that is wrong is named and the exit code is 3. What was not given is called unproved.
No network is used unless --log names a URL.

Example:
  vitalog-verify manifest answer.manifest --policy hospital.policy --result answer.csv --log /srv/copy-of-log")]
    Manifest(ManifestArgs),
    /// Recomputes a whole log: each entry, each tile, the root, and that it extends heads you kept
    #[command(after_help = "\
DIR holds `checkpoint` and `tile/`; a URL serves the same files (C2SP tlog-tiles).

Example:
  vitalog-verify log https://vitalog.example/log --policy hospital.policy --kept last-month.checkpoint")]
    Log(LogArgs),
}

#[derive(Args)]
struct EvidenceArgs {
    /// The evidence file
    file: PathBuf,
    /// Your policy: which logs, witnesses and makers you believe
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Ignore (and list) signatures of unknown witnesses and anchors of unknown kinds instead of refusing them
    #[arg(long)]
    allow_unknown: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ManifestArgs {
    /// The manifest
    file: PathBuf,
    /// Your policy: which logs and witnesses you believe
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The bytes of the answer, as they were sent
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
    /// Directory or http(s) URL of the log: shows that no batch was left out
    #[arg(long, value_name = "DIR|URL")]
    log: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct LogArgs {
    /// Directory or http(s) URL of the log
    #[arg(value_name = "DIR|URL")]
    log: String,
    /// Your policy: which logs and witnesses you believe
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// A checkpoint you kept earlier; the log must extend it. May be repeated
    #[arg(long, value_name = "FILE")]
    kept: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Why there is no verdict, or why an input was refused before one.
#[derive(Debug, Error)]
enum Failure {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is longer than {bytes_max} bytes")]
    TooLong { path: PathBuf, bytes_max: usize },
    #[error("{path}: {source}")]
    Policy { path: PathBuf, source: PolicyParseError },
    #[error("{path} is not a checkpoint signed by a log of the policy")]
    Kept { path: PathBuf },
    #[error("{0}")]
    Audit(#[from] AuditError),
    #[error("cannot write the result: {0}")]
    Write(#[from] std::io::Error),
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Failure::Kept { .. } | Failure::Audit(AuditError::Policy(_)) => Exit::Refused,
            _ => Exit::Failed,
        }
    }
}

/// Runs a command line (its first word is the program's name); results go to `out`, talk to `err`. Returns the exit code.
pub fn run(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let command = match Command::try_parse_from(arguments) {
        Ok(command) => command,
        Err(message) => {
            // Help and version are data and no error; clap knows which is which.
            let (to, exit): (&mut dyn Write, _) =
                if message.use_stderr() { (err, Exit::Usage) } else { (out, Exit::Done) };
            let _ = write!(to, "{message}");
            return exit as u8;
        }
    };
    let result = match command.what {
        What::Evidence(arguments) => evidence(&arguments, out),
        What::Manifest(arguments) => manifest(&arguments, out, err),
        What::Log(arguments) => log(&arguments, out, err),
    };
    let exit = result.unwrap_or_else(|failure| {
        let _ = writeln!(err, "vitalog-verify: {failure}");
        failure.exit()
    });
    exit as u8
}

fn evidence(arguments: &EvidenceArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let policy = read_policy(&arguments.policy)?;
    // One byte more than allowed is read, so that a file that is too long is refused as such and not as cut off.
    let bytes = read(&arguments.file, EVIDENCE_BYTES_MAX + 1)?;
    let strictness = if arguments.allow_unknown { Strictness::KnownParts } else { Strictness::Everything };
    let verification = Verification::run(&bytes, &policy, strictness);
    if arguments.json {
        writeln!(out, "{:#}", report::evidence_json(&verification))?;
    } else {
        write!(out, "{}", report::evidence_text(&verification))?;
    }
    Ok(if verification.result.is_ok() { Exit::Done } else { Exit::Refused })
}

fn manifest(arguments: &ManifestArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Failure> {
    let policy = read_policy(&arguments.policy)?;
    let bytes = read(&arguments.file, ANSWER_BYTES_MAX + 1)?;
    let result = arguments.result.as_deref().map(digest_of).transpose()?;
    // A log that cannot be read leaves the question open, and that is no refusal of the manifest.
    let mut failure = None;
    let mut read_log = |kept: &[Checkpoint]| {
        let place = arguments.log.as_deref().unwrap_or_default();
        let audit = audit_log(place, &policy, kept, err);
        audit.map_err(|error| failure.insert(error).to_string())
    };
    let log: Option<Reader<'_>> = arguments.log.as_ref().map(|_| &mut read_log as Reader<'_>);
    let checking = Checking::run(&bytes, &policy, result, log);
    match failure {
        // A log that the policy refuses has been read: the report names the step.
        Some(AuditError::Policy(_)) | None => {}
        Some(error) => return Err(error.into()),
    }
    if arguments.json {
        writeln!(out, "{:#}", report::manifest_json(&checking))?;
    } else {
        write!(out, "{}", report::manifest_text(&checking))?;
    }
    Ok(if checking.result.is_ok() { Exit::Done } else { Exit::Refused })
}

/// Length and BLAKE3 of a file of any length.
fn digest_of(path: &Path) -> Result<(u64, Hash32), Failure> {
    let failed = |source| Failure::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    let bytes = std::io::copy(&mut file, &mut hasher).map_err(failed)?;
    Ok((bytes, *hasher.finalize().as_bytes()))
}

fn log(arguments: &LogArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Failure> {
    let policy = read_policy(&arguments.policy)?;
    let mut kept = Vec::new();
    for path in &arguments.kept {
        kept.push(read_kept(path, &policy)?);
    }
    let audit = audit_log(&arguments.log, &policy, &kept, err)?;
    if arguments.json {
        writeln!(out, "{:#}", report::log_json(&audit))?;
    } else {
        write!(out, "{}", report::log_text(&audit, &kept))?;
    }
    Ok(if audit.is_clean() { Exit::Done } else { Exit::Refused })
}

fn audit_log(
    place: &str,
    policy: &Policy,
    kept: &[Checkpoint],
    err: &mut dyn Write,
) -> Result<LogAudit, AuditError> {
    let mut told = 0;
    let mut progress = |entries: u64| {
        if entries - told >= PROGRESS_EVERY {
            told = entries;
            let _ = writeln!(err, "{entries} entries checked");
        }
    };
    tiles::audit(open_source(place).as_mut(), policy, kept, &mut progress)
}

fn read_policy(path: &Path) -> Result<Policy, Failure> {
    let bytes = read_whole(path, POLICY_BYTES_MAX)?;
    Policy::parse(&bytes).map_err(|source| Failure::Policy { path: path.to_owned(), source })
}

/// A head the verifier kept: signed by a log of the policy. Cosignatures are not asked for; the verifier saw it.
fn read_kept(path: &Path, policy: &Policy) -> Result<Checkpoint, Failure> {
    let refused = || Failure::Kept { path: path.to_owned() };
    let note = String::from_utf8(read_whole(path, NOTE_BYTES_MAX)?).map_err(|_| refused())?;
    policy.logs().find_map(|key| open_checkpoint(&note, key).ok()).ok_or_else(refused)
}

fn read_whole(path: &Path, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let bytes = read(path, bytes_max + 1)?;
    if bytes.len() > bytes_max {
        return Err(Failure::TooLong { path: path.to_owned(), bytes_max });
    }
    Ok(bytes)
}

/// The first `bytes_max` bytes of a file.
fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let failed = |source| Failure::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(bytes_max as u64).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
