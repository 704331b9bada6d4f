//! What people and programs are shown. What it is not: coloured; meaning never depends on colour.

use std::fmt::Write as _;

use schemas_evidence::answer::{Checked, Checking, Finding, StepFinding};
use schemas_evidence::policy::Accepted;
use schemas_evidence::tiles::LogAudit;
use schemas_evidence::{Checkpoint, Outcome, Verification, Verified};
use serde_json::{Value, json};

/// Widest name of a step.
const STEP_WIDTH: usize = 10;

/// A verification for reading: each step with its outcome, then the verdict.
pub fn evidence_text(verification: &Verification) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for report in &verification.steps {
        let (mark, sentence) = match &report.outcome {
            Outcome::Holds(sentence) => ("ok", sentence.as_str()),
            Outcome::Fails(sentence) => ("FAIL", sentence.as_str()),
            Outcome::NotReached => ("-", "not reached"),
        };
        let _ = writeln!(text, "{mark:<5} {:<STEP_WIDTH$} {sentence}", report.step.name());
    }
    match &verification.result {
        Ok(verified) => verdict(&mut text, verified),
        Err(error) => {
            let _ = writeln!(text, "\nREFUSED at step `{}`: {error}", error.step());
        }
    }
    text
}

fn verdict(text: &mut String, verified: &Verified) {
    let Verified { device, boot, seq, log_index, checkpoint, .. } = verified;
    let _ = writeln!(
        text,
        "\nVERIFIED: device {} signed frame {seq} of boot {boot}; since entry {log_index} it is in the log {}.",
        device.id, checkpoint.origin
    );
    let _ = writeln!(text, "Log head: {} entries, root {}.", checkpoint.size, hex::encode(checkpoint.root));
    for (witness, time_s) in &verified.witnesses {
        let _ = writeln!(text, "Witness {witness} saw that head at {time_s} (seconds since 1970 UTC).");
    }
    let _ = writeln!(text, "Not proved by this file:");
    for sentence in &verified.unproved {
        let _ = writeln!(text, "  - {sentence}");
    }
}

/// A verification for programs.
pub fn evidence_json(verification: &Verification) -> Value {
    let steps: Vec<Value> = verification
        .steps
        .iter()
        .map(|report| {
            let (outcome, detail) = match &report.outcome {
                Outcome::Holds(sentence) => ("holds", Some(sentence)),
                Outcome::Fails(sentence) => ("fails", Some(sentence)),
                Outcome::NotReached => ("not-reached", None),
            };
            json!({"step": report.step.name(), "outcome": outcome, "detail": detail})
        })
        .collect();
    match &verification.result {
        Ok(verified) => verified_json(verified, steps),
        Err(error) => {
            json!({"verified": false, "step": error.step().name(), "error": error.to_string(), "steps": steps})
        }
    }
}

fn verified_json(verified: &Verified, steps: Vec<Value>) -> Value {
    let device = &verified.device;
    json!({
        "verified": true,
        "device": {
            "id": device.id.to_string(),
            "key": device.key.did().to_string(),
            "rotations": device.rotations,
            "maker": device.maker.to_string(),
            "model": device.model,
        },
        "boot": verified.boot.to_string(),
        "seq": verified.seq,
        "wall_us": verified.wall_us,
        "series": verified.series,
        "batch": verified.batch,
        "leaf": verified.leaf,
        "frames": verified.frames,
        "log": head_json(&verified.checkpoint),
        "log_index": verified.log_index,
        "witnesses": witnesses_json(&verified.witnesses),
        "unproved": verified.unproved,
        "steps": steps,
    })
}

/// A check of a manifest for reading.
pub fn manifest_text(checking: &Checking) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for StepFinding { step, finding } in &checking.steps {
        let (mark, sentence) = match finding {
            Finding::Holds(sentence) => ("ok", sentence.as_str()),
            Finding::Unproved(sentence) => ("open", sentence.as_str()),
            Finding::Fails(sentence) => ("FAIL", sentence.as_str()),
            Finding::NotReached => ("-", "not reached"),
        };
        let _ = writeln!(text, "{mark:<5} {:<STEP_WIDTH$} {sentence}", step.name());
    }
    match &checking.result {
        Ok(checked) => manifest_verdict(&mut text, checked),
        Err((step, problem)) => {
            let _ = writeln!(text, "\nREFUSED at step `{step}`: {problem}");
        }
    }
    text
}

fn manifest_verdict(text: &mut String, checked: &Checked) {
    let Checked { manifest, checkpoint, .. } = checked;
    let study = manifest.study.as_ref().map(|study| format!(" in study {study:?}")).unwrap_or_default();
    let _ = writeln!(
        text,
        "\nVERIFIED: the log {} answered {} for {:?}{study} with {} rows, {} bytes of {:?}.",
        checkpoint.origin,
        manifest.principal,
        manifest.purpose,
        manifest.rows,
        manifest.result.bytes,
        manifest.result.media
    );
    let _ = writeln!(
        text,
        "Asked of log size {} under consent epoch {}, at {} (microseconds since 1970 UTC, the server's clock).",
        manifest.log_size, manifest.consent_epoch, manifest.asked_us
    );
    if let Some(sql) = &manifest.sql {
        let _ = writeln!(text, "Statement: {sql:?}");
    }
    if let Some(rerun) = &manifest.rerun {
        let _ = writeln!(
            text,
            "Asked before, manifest {}: since then {} people withdrew, {} joined, {} changed what may be seen.",
            rerun.of, rerun.withdrawn, rerun.joined, rerun.changed
        );
    }
    for (witness, time_s) in &checked.witnesses {
        let _ = writeln!(text, "Witness {witness} saw that log at {time_s} (seconds since 1970 UTC).");
    }
    let _ = writeln!(text, "Not proved by this file:");
    for sentence in &checked.unproved {
        let _ = writeln!(text, "  - {sentence}");
    }
}

/// A check of a manifest for programs.
pub fn manifest_json(checking: &Checking) -> Value {
    let steps: Vec<Value> = checking
        .steps
        .iter()
        .map(|StepFinding { step, finding }| {
            let (outcome, detail) = match finding {
                Finding::Holds(sentence) => ("holds", Some(sentence)),
                Finding::Unproved(sentence) => ("unproved", Some(sentence)),
                Finding::Fails(sentence) => ("fails", Some(sentence)),
                Finding::NotReached => ("not-reached", None),
            };
            json!({"step": step.name(), "outcome": outcome, "detail": detail})
        })
        .collect();
    match &checking.result {
        Ok(Checked { manifest, checkpoint, witnesses, unproved }) => json!({
            "verified": true,
            "id": manifest.id,
            "principal": manifest.principal,
            "purpose": manifest.purpose,
            "study": manifest.study,
            "sql": manifest.sql,
            "log_size": manifest.log_size,
            "consent_epoch": manifest.consent_epoch,
            "rows": manifest.rows,
            "result": manifest.result,
            "rerun": manifest.rerun,
            "log": head_json(checkpoint),
            "witnesses": witnesses_json(witnesses),
            "unproved": unproved,
            "steps": steps,
        }),
        Err((step, problem)) => {
            json!({"verified": false, "step": step.name(), "error": problem, "steps": steps})
        }
    }
}

fn head_json(head: &Checkpoint) -> Value {
    json!({"origin": head.origin, "size": head.size, "root": hex::encode(head.root)})
}

fn witnesses_json(witnesses: &[(String, u64)]) -> Value {
    witnesses.iter().map(|(name, time_s)| json!({"name": name, "time_s": time_s})).collect()
}

/// An audit of a log for reading.
pub fn log_text(audit: &LogAudit, kept: &[Checkpoint]) -> String {
    let Accepted { checkpoint, witnesses, .. } = &audit.head;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "log       {}", checkpoint.origin);
    let _ = writeln!(text, "head      {} entries, root {}", checkpoint.size, hex::encode(checkpoint.root));
    if witnesses.is_empty() {
        let _ = writeln!(text, "witnesses none");
    }
    for (witness, time_s) in witnesses {
        let _ = writeln!(text, "witness   {witness} at {time_s} (seconds since 1970 UTC)");
    }
    for (kind, count) in &audit.kinds {
        let _ = writeln!(text, "entries   {count:>10} {kind}");
    }
    for finding in &audit.findings {
        let _ = writeln!(text, "FAIL      {}: {}", finding.place, finding.problem);
    }
    let verdict = match audit.findings.len() {
        0 if kept.is_empty() => "SOUND: every entry, tile and the root agree.".to_owned(),
        0 => format!("SOUND: every entry, tile and the root agree; {} kept head(s) extended.", kept.len()),
        count => format!("REFUSED: {count} finding(s)."),
    };
    let _ = writeln!(text, "\n{verdict}");
    text
}

/// An audit of a log for programs.
pub fn log_json(audit: &LogAudit) -> Value {
    let findings: Vec<Value> = audit
        .findings
        .iter()
        .map(|finding| json!({"place": finding.place, "problem": finding.problem}))
        .collect();
    json!({
        "sound": audit.is_clean(),
        "log": head_json(&audit.head.checkpoint),
        "witnesses": witnesses_json(&audit.head.witnesses),
        "unknown_signers": audit.head.unknown_signers,
        "kinds": audit.kinds,
        "findings": findings,
    })
}
