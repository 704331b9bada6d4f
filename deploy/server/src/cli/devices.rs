//! `vitalog enrol`, `bind`, `rotate`, `revoke-key`, `devices`: statements about keys and who wears what.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use schemas_identity::statement::{Bind, Body, Enrol, RevokeKey, Rotate, proof_of_possession, sign_with_co};
use schemas_identity::token::Scope;
use schemas_identity::{Did, SecretKey, ShortId, time};
use serde_json::{Value, json};

use super::{ClientOptions, key, say, say_json};
use crate::Exit;
use crate::client::{Answer, Server, now_s};

#[derive(Debug, Args)]
pub(crate) struct EnrolArguments {
    /// The device's private key.
    #[arg(long)]
    device_key: PathBuf,
    /// The maker's private key; the development maker's if left out.
    #[arg(long)]
    maker_key: Option<PathBuf>,
    /// Model name.
    #[arg(long)]
    model: String,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Debug, Args)]
pub(crate) struct RotateArguments {
    /// Private key so far.
    #[arg(long)]
    old: PathBuf,
    /// Private key from now on.
    #[arg(long)]
    new: PathBuf,
    /// The maker's private key, for a device; a person signs with the old key.
    #[arg(long)]
    maker_key: Option<PathBuf>,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeKeyArguments {
    /// The dead key's did:key.
    dead: Did,
    /// Private key of its maker, of an operator, or the key itself.
    #[arg(long)]
    key: PathBuf,
    /// Since when others may hold it (RFC 3339).
    #[arg(long)]
    compromised_from: Option<String>,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Debug, Args)]
pub(crate) struct DevicesArguments {
    /// Private key of a wearer, maker, device or operator; not needed with --dev.
    #[arg(long)]
    key: Option<PathBuf>,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Debug, Args)]
pub(crate) struct BindArguments {
    /// Short id of the device.
    #[arg(long)]
    device: ShortId,
    /// The wearer's private key.
    #[arg(long)]
    subject_key: PathBuf,
    /// The device's private key, as second signature.
    #[arg(long, conflicts_with = "registrar_key", required_unless_present = "registrar_key")]
    device_key: Option<PathBuf>,
    /// A registrar's private key, as second signature.
    #[arg(long)]
    registrar_key: Option<PathBuf>,
    /// Worn from (RFC 3339); open if left out.
    #[arg(long)]
    from: Option<String>,
    /// Worn until.
    #[arg(long)]
    to: Option<String>,
    #[command(flatten)]
    client: ClientOptions,
}

pub(crate) fn moment(text: Option<&String>) -> anyhow::Result<Option<i64>> {
    match text {
        Some(text) => Ok(Some(time::parse_rfc3339_us(text).with_context(|| format!("`{text}`"))?)),
        None => Ok(None),
    }
}

fn receipt(client: &ClientOptions, receipt: &Value) -> anyhow::Result<Exit> {
    if client.json {
        say_json(receipt);
    } else {
        say(receipt["id"].as_str().context("the server's receipt has no id")?);
    }
    Ok(Exit::Done)
}

fn enrolment(server: &Server, device: &SecretKey, maker: &SecretKey, model: &str) -> Body {
    Body::Enrol(Enrol {
        device_key: device.public().did(),
        model: model.to_owned(),
        signals: Vec::new(),
        pop: proof_of_possession(&server.aud, &maker.public().did(), device),
    })
}

/// Accepts a receipt, or the refusal that says it was done before.
fn or_already(answer: Answer, codes: &[&str]) -> anyhow::Result<Value> {
    let code = answer.body["error"]["code"].as_str().unwrap_or("");
    match answer.status {
        200 | 201 => Ok(answer.body),
        409 if codes.contains(&code) => Ok(json!({"already": true})),
        _ => Err(answer.refusal()),
    }
}

/// Enrols a device; one that is enrolled already is fine.
pub(crate) fn enrol_device(
    server: &Server,
    device: &SecretKey,
    maker: &SecretKey,
    model: &str,
) -> anyhow::Result<Value> {
    let answer = server.state_answer(&enrolment(server, device, maker, model), maker)?;
    or_already(answer, &["duplicate-key"])
}

fn binding(
    server: &Server,
    device: ShortId,
    subject: &SecretKey,
    co: &SecretKey,
    from: Option<i64>,
    to: Option<i64>,
) -> anyhow::Result<Answer> {
    let mut nonce = [0u8; 16];
    getrandom::fill(&mut nonce).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    let body = Body::Bind(Bind { device, from, to, co: String::new() });
    let compact = sign_with_co(&body, &server.aud, now_s(), nonce, subject, co);
    server.post("/v1/statements", "application/jose", compact.as_bytes())
}

/// Binds a device; one that is bound then already is fine.
pub(crate) fn bind_device(
    server: &Server,
    device: ShortId,
    subject: &SecretKey,
    co: &SecretKey,
    from: Option<i64>,
    to: Option<i64>,
) -> anyhow::Result<Value> {
    or_already(binding(server, device, subject, co, from, to)?, &["binding-overlap"])
}

pub(crate) fn enrol(arguments: &EnrolArguments) -> anyhow::Result<Exit> {
    let device = key::read(&arguments.device_key)?;
    let maker = match &arguments.maker_key {
        Some(path) => key::read(path)?,
        None => crate::serve::dev_maker(),
    };
    let server = &arguments.client.server;
    let body = enrolment(server, &device, &maker, &arguments.model);
    receipt(&arguments.client, &server.state(&body, &maker)?)
}

pub(crate) fn rotate(arguments: &RotateArguments) -> anyhow::Result<Exit> {
    let (old, new) = (key::read(&arguments.old)?, key::read(&arguments.new)?);
    let signer = match &arguments.maker_key {
        Some(path) => key::read(path)?,
        None => key::read(&arguments.old)?,
    };
    let server = &arguments.client.server;
    let pop = proof_of_possession(&server.aud, &signer.public().did(), &new);
    let body = Body::Rotate(Rotate { old: old.public().did(), new: new.public().did(), pop });
    receipt(&arguments.client, &server.state(&body, &signer)?)
}

pub(crate) fn revoke_key(arguments: &RevokeKeyArguments) -> anyhow::Result<Exit> {
    let signer = key::read(&arguments.key)?;
    let compromised_from = moment(arguments.compromised_from.as_ref())?;
    let body = Body::RevokeKey(RevokeKey { key: arguments.dead, compromised_from });
    receipt(&arguments.client, &arguments.client.server.state(&body, &signer)?)
}

pub(crate) fn bind(arguments: &BindArguments) -> anyhow::Result<Exit> {
    let subject = key::read(&arguments.subject_key)?;
    let Some(co) = arguments.device_key.as_ref().or(arguments.registrar_key.as_ref()) else {
        bail!("give --device-key or --registrar-key");
    };
    let (from, to) = (moment(arguments.from.as_ref())?, moment(arguments.to.as_ref())?);
    let answer = binding(&arguments.client.server, arguments.device, &subject, &key::read(co)?, from, to)?;
    match answer.status {
        200 | 201 => receipt(&arguments.client, &answer.body),
        _ => Err(answer.refusal()),
    }
}

pub(crate) fn list(arguments: &DevicesArguments) -> anyhow::Result<Exit> {
    let server = &arguments.client.server;
    let token = match &arguments.key {
        Some(path) => Some(server.own_token(&key::read(path)?, "PATRQT", Scope::Sql)?),
        None => None,
    };
    let answer = server.get("/v1/devices", token.as_deref())?;
    if answer.status != 200 {
        return Err(answer.refusal());
    }
    if arguments.client.json {
        say_json(&answer.body);
        return Ok(Exit::Done);
    }
    for device in answer.body["devices"].as_array().into_iter().flatten() {
        say(device_line(device));
    }
    Ok(Exit::Done)
}

/// One device for a human; `--json` has all of it.
fn device_line(device: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let bound = if device["bound_now"] == true { "bound" } else { "not bound" };
    let open = device["gaps"].as_array().into_iter().flatten().filter(|gap| gap["state"] == "open").count();
    let offset = match device["clock"]["offset_us"].as_i64() {
        Some(offset_us) => format!("{:+.1} s", offset_us as f64 / 1e6),
        None => "-".to_owned(),
    };
    let corrected = if device["clock"]["corrected"] == true { " corrected" } else { "" };
    format!(
        "{}  {:12}  {bound}  at {} of {}  gaps {open} open {} filled {} closed  chain broken {}  arrived {}  \
         measured {}  clock {offset}{corrected}",
        text(&device["device"]),
        text(&device["model"]),
        text(&device["position"]["seq"]),
        text(&device["position"]["boot"]),
        text(&device["gaps_filled"]),
        text(&device["gaps_closed"]),
        text(&device["chain_broken"]),
        text(&device["last_arrival"]),
        text(&device["last_measured"]),
    )
}
