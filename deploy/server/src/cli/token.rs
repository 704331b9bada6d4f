//! `vitalog token`: a bearer token signed by the asker's own key; the server stores no password.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, ValueEnum};
use schemas_identity::token::{Scope, Token, issue};
use serde_json::json;

use super::{key, say, say_json};
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

#[derive(Debug, Args)]
pub(crate) struct TokenArguments {
    /// Private key of whoever asks.
    #[arg(long)]
    key: PathBuf,
    /// Purpose of use, an HL7 v3 ActReason code such as TREAT, CAREMGT, HRESCH, PUBHLTH, PATRQT.
    #[arg(long)]
    purpose: String,
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
    if arguments.ttl < 1 || arguments.ttl > TTL_SECONDS_MAX {
        bail!("--ttl must be between 1s and 24h");
    }
    let key = key::read(&arguments.key)?;
    let mut id = [0u8; 16];
    getrandom::fill(&mut id).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    let issued_s = now_s();
    let token = Token {
        iss: key.public().did(),
        jti: hex::encode(id),
        purpose: arguments.purpose.clone(),
        study: arguments.study.clone(),
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
