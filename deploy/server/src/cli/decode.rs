//! `vitalog decode`: a frame, or a CBOR sequence of frames, field by field, with the verdict that can be told offline.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use schemas_frame::{Code, FRAME_BYTES_MAX, Frame, Series, next_frame_len};
use schemas_identity::Did;
use schemas_signals::Registry;
use serde_json::{Value, json};

use super::{say, say_json};
use crate::Exit;

/// Values shown of each series.
const VALUES_SHOWN: usize = 5;

#[derive(Debug, Args)]
pub(crate) struct DecodeArguments {
    /// File with the frames' bytes.
    file: PathBuf,
    /// The device's did:key, to check the signature.
    #[arg(long)]
    key: Option<Did>,
    /// Machine-readable output, one object per frame.
    #[arg(long)]
    json: bool,
}

fn series_json(series: &Series<'_>) -> Value {
    let signal = Registry::builtin().by_id(series.signal);
    let values: Vec<f64> = (0..series.len()).map(|index| series.value(index)).collect();
    let least = values.iter().copied().reduce(f64::min);
    let most = values.iter().copied().reduce(f64::max);
    json!({
        "signal": series.signal, "name": signal.map(|signal| &signal.name), "unit": signal.map(|signal| &signal.unit),
        "offset_us": series.offset_us, "period_us": series.period_us,
        "scale": [series.scale.num, series.scale.den], "samples": series.len(), "min": least, "max": most,
        "first": values.iter().take(VALUES_SHOWN).collect::<Vec<_>>(), "quality": series.quality.is_some(),
    })
}

fn signature_code(frame: &Frame<'_>, key: &Did) -> Code {
    let mut message = Vec::new();
    frame.signed_message(&mut message);
    if key.key().short_id() != frame.kid() {
        return Code::KeyUnknown;
    }
    if key.key().verify(&message, frame.signature()) { Code::Ok } else { Code::SigBad }
}

fn frame_json(bytes: &[u8], key: Option<&Did>) -> (Value, Code) {
    if bytes.len() > FRAME_BYTES_MAX {
        return (json!({"bytes": bytes.len(), "verdict": Code::TooBig}), Code::TooBig);
    }
    let frame = match Frame::parse(bytes) {
        Ok(frame) => frame,
        Err(error) => {
            return (
                json!({"bytes": bytes.len(), "verdict": Code::Decode, "hint": error.hint()}),
                Code::Decode,
            );
        }
    };
    let found = ingest_devices::assess(&frame, Registry::builtin());
    let signed = key.map_or(Code::Ok, |key| signature_code(&frame, key));
    let code = if signed == Code::Ok { found.code.unwrap_or(Code::Ok) } else { signed };
    let value = json!({
        "bytes": bytes.len(), "device": frame.kid(), "boot": frame.boot(), "seq": frame.seq(),
        "prev": hex::encode(frame.prev()), "digest16": hex::encode(frame.digest16()),
        "leaf": hex::encode(schemas_evidence::frame_leaf(bytes)),
        "wall_us": frame.wall_us(), "mono_us": frame.mono_us(),
        "series": frame.series().map(|series| series_json(&series)).collect::<Vec<_>>(),
        "signature": hex::encode(frame.signature()), "signature_checked": key.is_some(), "verdict": code,
    });
    (value, code)
}

pub(crate) fn run(arguments: &DecodeArguments) -> anyhow::Result<Exit> {
    let content = std::fs::read(&arguments.file)
        .with_context(|| format!("cannot read {}", arguments.file.display()))?;
    let mut rest = content.as_slice();
    let mut exit = Exit::Done;
    loop {
        let length = next_frame_len(rest).unwrap_or(rest.len()).clamp(1.min(rest.len()), rest.len());
        let (value, code) = frame_json(&rest[..length], arguments.key.as_ref());
        if !code.is_kept() {
            exit = Exit::Refused;
        }
        if arguments.json {
            say_json(&value);
        } else {
            say(serde_json::to_string_pretty(&value)?);
        }
        rest = &rest[length..];
        if rest.is_empty() || code == Code::Decode {
            return Ok(exit);
        }
    }
}
