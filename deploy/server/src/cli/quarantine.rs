//! `vitalog quarantine`: refused frames that are kept, and offering them again after a key or the register was mended.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use schemas_frame::Code;
use schemas_identity::ShortId;
use schemas_identity::token::Scope;
use serde_json::Value;

use super::{ClientOptions, key, say, say_json};
use crate::Exit;

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// Show what is kept: what each frame claims to be and why it was refused.
    #[command(after_help = "Example: vitalog quarantine list --key operator.pem --code KEY_UNKNOWN")]
    List(QuarantineArguments),
    /// Offer kept frames again; those that are accepted leave. Doing it twice does no harm.
    #[command(
        after_help = "Example: vitalog quarantine replay --key operator.pem --device 0123456789abcdef --json"
    )]
    Replay(QuarantineArguments),
}

#[derive(Debug, Args)]
pub(crate) struct QuarantineArguments {
    /// An operator's private key.
    #[arg(long)]
    key: PathBuf,
    /// Only frames refused with this code.
    #[arg(long)]
    code: Option<Code>,
    /// Only frames in the name of this key's short id.
    #[arg(long)]
    device: Option<ShortId>,
    /// At most so many, the oldest first.
    #[arg(long)]
    limit: Option<usize>,
    #[command(flatten)]
    client: ClientOptions,
}

impl QuarantineArguments {
    fn query(&self) -> String {
        let code = self.code.map(|code| format!("code={code}"));
        let device = self.device.map(|device| format!("device={device}"));
        let limit = self.limit.map(|limit| format!("limit={limit}"));
        let parts: Vec<String> = [code, device, limit].into_iter().flatten().collect();
        parts.join("&")
    }

    fn token(&self) -> anyhow::Result<String> {
        self.client.server.own_token(&key::read(&self.key)?, "SYSADMIN", Scope::Operate)
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn line(frame: &Value, fields: &[&str]) -> String {
    let values: Vec<String> = fields.iter().map(|field| plain(&frame[*field])).collect();
    values.join("  ")
}

pub(crate) fn run(command: &QuarantineCommand) -> anyhow::Result<Exit> {
    let (arguments, is_replay) = match command {
        QuarantineCommand::List(arguments) => (arguments, false),
        QuarantineCommand::Replay(arguments) => (arguments, true),
    };
    let (server, token) = (&arguments.client.server, arguments.token()?);
    let answer = match is_replay {
        true => server.post_as(&format!("/v1/quarantine/replay?{}", arguments.query()), &token)?,
        false => server.get(&format!("/v1/quarantine?{}", arguments.query()), Some(&token))?,
    };
    if answer.status != 200 {
        return Err(answer.refusal());
    }
    if arguments.client.json {
        say_json(&answer.body);
        return Ok(Exit::Done);
    }
    let fields: &[&str] = match is_replay {
        true => &["id", "was", "code", "device", "boot", "seq", "hint"],
        false => &["id", "code", "received", "door", "device", "boot", "seq", "bytes"],
    };
    for frame in answer.body["frames"].as_array().context("the answer has no frames")? {
        say(line(frame, fields));
    }
    if is_replay {
        eprintln!("{} offered again, {} accepted", answer.body["replayed"], answer.body["accepted"]);
    }
    if answer.body["more"] == true {
        eprintln!("there are more: raise --limit, or narrow with --code and --device");
    }
    Ok(Exit::Done)
}
