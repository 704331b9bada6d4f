//! `vitalog consent why`: what a party may see of me, by which of my statements, or why not.

use std::path::PathBuf;

use clap::Args;
use schemas_identity::token::Scope;
use serde_json::Value;

use super::{ClientOptions, key, say, say_json};
use crate::Exit;

#[derive(Debug, Args)]
pub(crate) struct WhyArguments {
    /// The patient's private key.
    #[arg(long)]
    key: PathBuf,
    /// Who might look: a did:key.
    #[arg(long)]
    party: String,
    /// For which purpose, an HL7 v3 ActReason code.
    #[arg(long)]
    purpose: String,
    /// In which study's name.
    #[arg(long)]
    study: Option<String>,
    /// How fine: raw, 1m or 1h.
    #[arg(long, default_value = "raw")]
    resolution: String,
    #[command(flatten)]
    client: ClientOptions,
}

pub(crate) fn run(arguments: &WhyArguments) -> anyhow::Result<Exit> {
    let key = key::read(&arguments.key)?;
    let server = &arguments.client.server;
    let token = server.own_token(&key, "PATRQT", Scope::Sql)?;
    let study =
        arguments.study.as_ref().map(|study| format!("&study={}", escaped(study))).unwrap_or_default();
    let path = format!(
        "/v1/me/why?party={}&purpose={}&resolution={}{study}",
        escaped(&arguments.party),
        escaped(&arguments.purpose),
        escaped(&arguments.resolution),
    );
    let answer = server.get(&path, Some(&token))?;
    if answer.status != 200 {
        return Err(answer.refusal());
    }
    if arguments.client.json {
        say_json(&answer.body);
        return Ok(Exit::Done);
    }
    let spans = answer.body["may_see"].as_array().map(Vec::as_slice).unwrap_or_default();
    for span in spans {
        say(line(span));
    }
    if let Some(reason) = answer.body["reason"]["text"].as_str() {
        let statement = answer.body["reason"]["statement"].as_str();
        let by = statement.map(|id| format!(", by statement {id}")).unwrap_or_default();
        say(format!("sees nothing: {reason}{by}"));
    }
    Ok(Exit::Done)
}

fn line(span: &Value) -> String {
    let signals: Vec<&str> =
        span["signals"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!(
        "device {}  signals {}  from {}  to {}  by {}",
        span["device"].as_str().unwrap_or("-"),
        signals.join(","),
        span["from"].as_str().unwrap_or("ever"),
        span["to"].as_str().unwrap_or("open"),
        span["by"].as_str().unwrap_or("my own look"),
    )
}

/// A value for a query string (RFC 3986): unreserved characters stay, all other bytes are escaped.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
