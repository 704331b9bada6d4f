//! `vitalog access-report`: who read me, why, when, which signals, how many rows; and who was refused.

use std::path::PathBuf;

use clap::Args;
use schemas_identity::token::Scope;

use super::{ClientOptions, key, say, say_json};
use crate::Exit;

#[derive(Debug, Args)]
pub(crate) struct AccessReportArguments {
    /// The patient's private key.
    #[arg(long)]
    key: PathBuf,
    #[command(flatten)]
    client: ClientOptions,
}

pub(crate) fn run(arguments: &AccessReportArguments) -> anyhow::Result<Exit> {
    let key = key::read(&arguments.key)?;
    let server = &arguments.client.server;
    let token = server.own_token(&key, "PATRQT", Scope::Sql)?;
    let answer = server.get("/v1/me/accesses", Some(&token))?;
    if answer.status != 200 {
        return Err(answer.refusal());
    }
    if arguments.client.json {
        say_json(&answer.body);
        return Ok(Exit::Done);
    }
    for access in answer.body["accesses"].as_array().into_iter().flatten() {
        let plain = |name: &str| match &access[name] {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
        say(format!(
            "no {}  {}  {}  purpose {}  study {}  signals {}  rows {}  {}",
            plain("number"),
            plain("at"),
            plain("recipient"),
            plain("purpose"),
            plain("study"),
            plain("signals"),
            plain("rows"),
            plain("outcome"),
        ));
    }
    Ok(Exit::Done)
}
