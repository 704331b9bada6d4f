//! `vitalog token`: a bearer token signed by the asker's own key; the server stores no password. `list` and `revoke`: what
//! the server saw used of them, and their end before their time.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use schemas_identity::token::{Scope, Token, issue};
use serde_json::json;

use super::{ClientOptions, key, say, say_json};
use crate::Exit;
use crate::client::now_s;

/// Longest life a server accepts (DESIGN, tokens).
const TTL_SECONDS_MAX: i64 = 24 * 3600;

/// What a token may be used for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum TokenScope {
    /// Ask in SQL.
    Sql,
    /// Publish frames over MQTT.
    Publish,
    /// Operate the deployment.
    Operate,
}

impl From<TokenScope> for Scope {
    fn from(scope: TokenScope) -> Scope {
        match scope {
            TokenScope::Sql => Scope::Sql,
            TokenScope::Publish => Scope::Publish,
            TokenScope::Operate => Scope::Operate,
        }
    }
}

/// What else than making one.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Tokens of a key that were used: for what, when last, and whether they are revoked.
    #[command(after_help = "Example: vitalog token list --key researcher.pem")]
    List(OwnerOptions),
    /// End tokens before their time: one by its id, or `*` for all issued until now.
    #[command(
        after_help = "Examples:\n  vitalog token revoke 5f0c... --key researcher.pem\n  vitalog token revoke '*' --key researcher.pem"
    )]
    Revoke {
        /// The token's id (`jti`), or `*`.
        jti: String,
        #[command(flatten)]
        owner: OwnerOptions,
    },
}

/// Whose tokens.
#[derive(Debug, Args)]
pub(crate) struct OwnerOptions {
    /// Private key that signed the tokens, or the one that replaced it.
    #[arg(long)]
    key: PathBuf,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct TokenArguments {
    #[command(subcommand)]
    command: Option<TokenCommand>,
    /// Private key of whoever asks.
    #[arg(long, required = true)]
    key: Option<PathBuf>,
    /// Purpose of use, an HL7 v3 ActReason code such as TREAT, CAREMGT, HRESCH, PUBHLTH, PATRQT.
    #[arg(long, required = true)]
    purpose: Option<String>,
    /// Study in whose name is asked.
    #[arg(long)]
    study: Option<String>,
    /// Life of the token: a number with s, m or h, at most 24h.
    #[arg(long, default_value = "1h", value_parser = seconds)]
    ttl: i64,
    /// Log origin of the deployment; servers of other origins refuse the token.
    #[arg(long, env = "VITALOG_AUD", default_value = crate::config::DEV_ORIGIN)]
    aud: String,
    /// What the token may be used for.
    #[arg(long, value_enum, default_value = "sql")]
    scope: TokenScope,
    /// Machine-readable output.
    #[arg(long)]
    json: bool,
}

/// `90`, `90s`, `15m` or `1h` as seconds.
pub(crate) fn seconds(text: &str) -> Result<i64, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("`{text}`: write a number with s, m or h")),
    };
    let number: i64 = digits.parse().map_err(|_| format!("`{text}`: write a number with s, m or h"))?;
    number.checked_mul(factor).ok_or_else(|| format!("`{text}` is too long"))
}

pub(crate) fn run(arguments: &TokenArguments) -> anyhow::Result<Exit> {
    match &arguments.command {
        None => make(arguments),
        Some(TokenCommand::List(owner)) => list(owner),
        Some(TokenCommand::Revoke { jti, owner }) => revoke(jti, owner),
    }
}

fn list(owner: &OwnerOptions) -> anyhow::Result<Exit> {
    let key = key::read(&owner.key)?;
    let server = &owner.client.server;
    let answer = server.get("/v1/tokens", Some(&server.own_token(&key, "PATRQT", Scope::Sql)?))?;
    if answer.status != 200 {
        return Err(answer.refusal());
    }
    if owner.client.json {
        say_json(&answer.body);
        return Ok(Exit::Done);
    }
    for token in answer.body["tokens"].as_array().into_iter().flatten() {
        let plain = |name: &str| token[name].as_str().unwrap_or("-").to_owned();
        say(format!(
            "{}  {}  scope {}  purpose {}  study {}  first used {}  last used {}  expires {}",
            plain("jti"),
            if token["revoked"] == true { "revoked" } else { "live" },
            plain("scope"),
            plain("purpose"),
            plain("study"),
            plain("first_used"),
            plain("last_used"),
            plain("expires"),
        ));
    }
    Ok(Exit::Done)
}

fn revoke(jti: &str, owner: &OwnerOptions) -> anyhow::Result<Exit> {
    // It becomes a part of the path; ids that the command line makes are hex.
    if jti != "*" && !jti.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)) {
        bail!("an id of letters, digits and `-_.~` is needed, or `*`");
    }
    let key = key::read(&owner.key)?;
    let server = &owner.client.server;
    let token = server.own_token(&key, "PATRQT", Scope::Sql)?;
    let answer = server.delete_as(&format!("/v1/tokens/{jti}"), &token)?;
    if answer.status != 200 {
        return Err(answer.refusal());
    }
    if owner.client.json {
        say_json(&answer.body);
    } else {
        say(format!("revoked {jti}"));
    }
    Ok(Exit::Done)
}

fn make(arguments: &TokenArguments) -> anyhow::Result<Exit> {
    if arguments.ttl < 1 || arguments.ttl > TTL_SECONDS_MAX {
        bail!("--ttl must be between 1s and 24h");
    }
    let key = key::read(arguments.key.as_deref().context("--key is needed")?)?;
    let mut id = [0u8; 16];
    getrandom::fill(&mut id).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    let issued_s = now_s();
    let token = Token {
        iss: key.public().did(),
        jti: hex::encode(id),
        purpose: arguments.purpose.clone().context("--purpose is needed")?,
        study: arguments.study.clone(),
        vouched: None,
        scope: arguments.scope.into(),
        iat_s: issued_s,
        exp_s: issued_s + arguments.ttl,
    };
    let text = issue(&token, &arguments.aud, &key);
    if arguments.json {
        say_json(&json!({"token": text, "jti": token.jti, "exp": token.exp_s}));
    } else {
        say(text);
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    /// Guarantee: a duration is read as written or refused, never guessed.
    #[test]
    fn durations() {
        let data = [
            ("90", Ok(90)),
            ("15m", Ok(900)),
            ("1h", Ok(3600)),
            ("24h", Ok(86400)),
            ("1d", Err(())),
            ("h", Err(())),
        ];
        for (text, expected) in data {
            assert_eq!(seconds(text).map_err(|_| ()), expected, "{text}");
        }
    }
}
