//! `vitalog consent`: the patient's own words, signed here and sent; the key never leaves this machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use schemas_identity::statement::Body;
use schemas_identity::token::Scope;
use schemas_identity::{SecretKey, Statement, StatementId};
use serde_json::{Map, Value, json};

use super::{ClientOptions, key, say, say_json};
use crate::Exit;

/// Times to sign again when another statement of the same person came in between.
const STALE_RETRIES_MAX: u32 = 5;

#[derive(Debug, Subcommand)]
pub(crate) enum ConsentCommand {
    /// Allow somebody to see signals for a purpose.
    #[command(
        after_help = "Example: vitalog consent grant --key p.pem --to did:key:z6Mk... --signals heart_rate,spo2 --purpose HRESCH\n     or: vitalog consent grant --key p.pem --file grant.json"
    )]
    Grant(GrantArguments),
    /// Forbid what another grant would allow; a deny always wins.
    #[command(
        after_help = "Example: vitalog consent deny --key p.pem --to did:key:z6Mk... --signals '*' --purpose HRESCH"
    )]
    Deny(GrantArguments),
    /// Take a grant back; `*` takes all of them back.
    #[command(after_help = "Example: vitalog consent revoke --key p.pem '*'")]
    Revoke {
        /// Id of the grant, or `*`.
        grant: String,
        /// The patient's private key.
        #[arg(long)]
        key: PathBuf,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// What somebody may see of me, by which of my statements, or why not.
    #[command(
        after_help = "Example: vitalog consent why --key p.pem --party did:key:z6Mk... --purpose HRESCH"
    )]
    Why(super::why::WhyArguments),
    /// My statements, newest last.
    #[command(after_help = "Example: vitalog consent list --key p.pem --format fhir > consents.json")]
    List {
        /// The patient's private key.
        #[arg(long)]
        key: PathBuf,
        /// How to print them; `fhir` is a FHIR R4 Bundle of Consent, made here from what was signed.
        #[arg(long, value_enum, default_value_t = ListFormat::Text)]
        format: ListFormat,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// One of my statements, as signed.
    Show {
        /// Its id.
        id: String,
        /// The patient's private key.
        #[arg(long)]
        key: PathBuf,
        #[command(flatten)]
        client: ClientOptions,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// A line for each statement.
    Text,
    /// The server's list, as `--json`.
    Json,
    /// A FHIR R4 Bundle.
    Fhir,
}

#[derive(Debug, Args)]
pub(crate) struct GrantArguments {
    /// The patient's private key.
    #[arg(long)]
    key: PathBuf,
    /// JSON file with the grant's fields; what it leaves out comes from the options or their defaults.
    #[arg(long)]
    file: Option<PathBuf>,
    /// To whom: a did:key, `role:NAME` or `study:ID`.
    #[arg(long)]
    to: Option<String>,
    /// Signal names or classes, or `*`.
    #[arg(long, value_delimiter = ',')]
    signals: Vec<String>,
    /// Device short ids; all if left out.
    #[arg(long, value_delimiter = ',')]
    devices: Vec<String>,
    /// Purposes, HL7 v3 ActReason codes.
    #[arg(long, value_delimiter = ',')]
    purpose: Vec<String>,
    /// Finest resolution: raw, 1m, 1h or aggregate.
    #[arg(long)]
    resolution: Option<String>,
    /// What may leave in SQL: none, aggregate or rows.
    #[arg(long)]
    export: Option<String>,
    /// Data measured from this time on (RFC 3339).
    #[arg(long)]
    data_from: Option<String>,
    /// Data measured before this time.
    #[arg(long)]
    data_to: Option<String>,
    /// In force from this time on.
    #[arg(long)]
    valid_from: Option<String>,
    /// In force until this time.
    #[arg(long)]
    valid_to: Option<String>,
    /// Smallest group in aggregates that may include me.
    #[arg(long)]
    min_cohort: Option<u32>,
    #[command(flatten)]
    client: ClientOptions,
}

fn grantee(text: &str) -> anyhow::Result<Value> {
    if text.starts_with("did:key:") {
        return Ok(json!({"kind": "party", "value": text}));
    }
    match text.split_once(':') {
        Some((kind @ ("role" | "study"), value)) if !value.is_empty() => {
            Ok(json!({"kind": kind, "value": value}))
        }
        _ => bail!("--to takes a did:key, role:NAME or study:ID, not `{text}`"),
    }
}

/// The grant's fields: file first, then options, then the defaults that DESIGN names.
fn fields(arguments: &GrantArguments, subject: &str) -> anyhow::Result<Map<String, Value>> {
    let mut fields = match &arguments.file {
        Some(path) => read_fields(path)?,
        None => Map::new(),
    };
    let mut set = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    if let Some(to) = &arguments.to {
        set("grantee", grantee(to)?);
    }
    let lists =
        [("signals", &arguments.signals), ("devices", &arguments.devices), ("purposes", &arguments.purpose)];
    for (name, list) in lists {
        if !list.is_empty() {
            set(name, if name == "devices" && list == &["*"] { "*".into() } else { json!(list) });
        }
    }
    let texts = [
        ("resolution", &arguments.resolution),
        ("export", &arguments.export),
        ("data_from", &arguments.data_from),
        ("data_to", &arguments.data_to),
        ("valid_from", &arguments.valid_from),
        ("valid_to", &arguments.valid_to),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            set(name, text.clone().into());
        }
    }
    if let Some(least) = arguments.min_cohort {
        set("min_cohort", least.into());
    }
    fill_defaults(&mut fields, subject)?;
    Ok(fields)
}

fn read_fields(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not a JSON object of grant fields", path.display()))
}

fn fill_defaults(fields: &mut Map<String, Value>, subject: &str) -> anyhow::Result<()> {
    for (name, option) in [("grantee", "--to"), ("signals", "--signals"), ("purposes", "--purpose")] {
        if !fields.contains_key(name) {
            bail!("a grant needs `{name}`: give {option}, or --file with that field");
        }
    }
    let defaults = [
        ("subject", json!(subject)),
        ("devices", json!("*")),
        ("resolution", json!("raw")),
        ("data_from", Value::Null),
        ("data_to", Value::Null),
        ("valid_from", Value::Null),
        ("valid_to", Value::Null),
        ("export", json!("rows")),
        ("min_cohort", json!(11)),
    ];
    for (name, value) in defaults {
        fields.entry(name).or_insert(value);
    }
    Ok(())
}

/// The id of my newest grant, deny or revoke, as the server knows it.
fn head(client: &ClientOptions, key: &SecretKey) -> anyhow::Result<Option<StatementId>> {
    let token = client.server.own_token(key, "PATRQT", Scope::Sql)?;
    let answer = client.server.get("/v1/statements?head", Some(&token))?;
    if answer.status != 200 {
        return Err(answer.refusal());
    }
    match answer.body["head"].as_str() {
        Some(text) => {
            Ok(Some(text.parse().map_err(|_| anyhow::anyhow!("the server named a head that is no id"))?))
        }
        None => Ok(None),
    }
}

/// Signs on top of the newest statement; again if another one came in between.
fn sign_on_top(
    client: &ClientOptions,
    key: &SecretKey,
    make: &dyn Fn(Option<StatementId>) -> anyhow::Result<Body>,
) -> anyhow::Result<Value> {
    for _ in 0..STALE_RETRIES_MAX {
        let answer = client.server.state_answer(&make(head(client, key)?)?, key)?;
        match answer.status {
            200 | 201 => return Ok(answer.body),
            409 => {}
            _ => return Err(answer.refusal()),
        }
    }
    bail!("other statements of this person keep coming in between: try again")
}

fn receipt(client: &ClientOptions, receipt: &Value) -> anyhow::Result<Exit> {
    if client.json {
        say_json(receipt);
    } else {
        say(receipt["id"].as_str().context("the server's receipt has no id")?);
        eprintln!("in force: log index {}, consent epoch {}", receipt["log_index"], receipt["epoch"]);
    }
    Ok(Exit::Done)
}

/// Grants without the command line; the demo uses it too.
pub(crate) fn grant_fields(
    client: &ClientOptions,
    key: &SecretKey,
    kind: &str,
    fields: &Map<String, Value>,
) -> anyhow::Result<Value> {
    sign_on_top(client, key, &|previous| {
        let mut fields = fields.clone();
        fields.insert("prev".into(), previous.map_or(Value::Null, |id| id.to_string().into()));
        Body::from_fields(kind, fields).map_err(|error| anyhow::anyhow!("not a valid {kind}: {error}"))
    })
}

/// Revokes one grant, or all of them with `*`.
pub(crate) fn revoke(client: &ClientOptions, key: &SecretKey, grant: &str) -> anyhow::Result<Value> {
    sign_on_top(client, key, &|previous| {
        let mut fields = Map::new();
        fields.insert("subject".into(), key.public().did().to_string().into());
        fields.insert("grant".into(), grant.into());
        fields.insert("prev".into(), previous.map_or(Value::Null, |id| id.to_string().into()));
        Body::from_fields("revoke", fields).map_err(|error| anyhow::anyhow!("not a valid revoke: {error}"))
    })
}

fn list(key: &Path, format: ListFormat, client: &ClientOptions) -> anyhow::Result<Exit> {
    let key = key::read(key)?;
    let token = client.server.own_token(&key, "PATRQT", Scope::Sql)?;
    let answer = client.server.get("/v1/statements", Some(&token))?;
    if answer.status != 200 {
        return Err(answer.refusal());
    }
    if format == ListFormat::Fhir {
        say_json(&bundle(&answer.body, &client.server.aud)?);
        return Ok(Exit::Done);
    }
    if client.json || format == ListFormat::Json {
        say_json(&answer.body);
        return Ok(Exit::Done);
    }
    for statement in answer.body["statements"].as_array().into_iter().flatten() {
        let text = |name: &str| statement[name].as_str().unwrap_or("").to_owned();
        say(format!("{}  {:8}  {}", text("id"), text("kind"), text("summary")));
    }
    Ok(Exit::Done)
}

/// Grants and denies as FHIR. Made here and not by the server: each statement is verified and mapped as it was signed, so
/// the server's own reading of it has no say.
fn bundle(list: &Value, aud: &str) -> anyhow::Result<Value> {
    if list["skipped"].as_u64().unwrap_or(0) > 0 {
        bail!("the server left {} statements out of its list", list["skipped"]);
    }
    let mut statements = Vec::new();
    for listed in list["statements"].as_array().context("the server's list has no statements")? {
        let jws = listed["jws"].as_str().context("a statement of the list is not as signed")?;
        statements.push(Statement::parse(jws, aud).with_context(|| format!("statement {}", listed["id"]))?);
    }
    Ok(schemas_fhir::collection(schemas_fhir::consents(&statements)?))
}

fn show(id: &str, key: &Path, client: &ClientOptions) -> anyhow::Result<Exit> {
    let key = key::read(key)?;
    let token = client.server.own_token(&key, "PATRQT", Scope::Sql)?;
    let answer = client.server.get(&format!("/v1/statements/{id}"), Some(&token))?;
    if answer.status != 200 {
        return Err(answer.refusal());
    }
    say(serde_json::to_string_pretty(&answer.body)?);
    Ok(Exit::Done)
}

pub(crate) fn run(command: &ConsentCommand) -> anyhow::Result<Exit> {
    match command {
        ConsentCommand::Grant(arguments) => state(arguments, "grant"),
        ConsentCommand::Deny(arguments) => state(arguments, "deny"),
        ConsentCommand::Revoke { grant, key, client } => {
            receipt(client, &revoke(client, &key::read(key)?, grant)?)
        }
        ConsentCommand::Why(arguments) => super::why::run(arguments),
        ConsentCommand::List { key, format, client } => list(key, *format, client),
        ConsentCommand::Show { id, key, client } => show(id, key, client),
    }
}

fn state(arguments: &GrantArguments, kind: &str) -> anyhow::Result<Exit> {
    let key = key::read(&arguments.key)?;
    let fields = fields(arguments, &key.public().did().to_string())?;
    receipt(&arguments.client, &grant_fields(&arguments.client, &key, kind, &fields)?)
}

#[cfg(test)]
mod tests {
    use schemas_identity::statement::sign;

    use super::*;

    /// Guarantee: the bundle says what was signed, whatever the server says of it beside; a forged signature ends it, and
    /// so does a list that is not whole.
    #[test]
    fn bundles_come_from_signatures() {
        let (key, aud) = (SecretKey::from_seed(&[1; 32]), "example.org/log");
        let did = key.public().did();
        let fields = json!({"subject": did, "grantee": {"kind": "role", "value": "clinician"}, "signals": ["eda"],
                            "purposes": ["TREAT"]});
        let body = Body::from_fields("grant", fields.as_object().unwrap().clone()).unwrap();
        let jws = sign(&body, aud, 0, [0; 16], &key);
        let list = |jws: &str, skipped: u64| json!({"statements": [{"id": "x", "kind": "deny", "fields": {}, "jws": jws}], "skipped": skipped});
        let made = bundle(&list(&jws, 0), aud).unwrap();
        assert_eq!(made["entry"][0]["resource"]["provision"]["type"], "permit");
        assert_eq!(made["entry"][0]["resource"]["provision"]["code"][0]["coding"][0]["code"], "eda");
        let forged = sign(&body, aud, 0, [0; 16], &SecretKey::from_seed(&[2; 32]));
        let cut = jws.rfind('.').unwrap();
        let forged = format!("{}{}", &jws[..cut], &forged[forged.rfind('.').unwrap()..]);
        assert!(bundle(&list(&forged, 0), aud).is_err());
        assert!(bundle(&list(&jws, 0), "other.example/log").is_err());
        assert!(bundle(&list(&jws, 1), aud).is_err());
    }
}
