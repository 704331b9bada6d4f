//! The command line: what can be said, and which file answers it.
//! Not the answers themselves: each command is a file of its own.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::Exit;
use crate::client::Server;

mod accesses;
mod audit;
mod consent;
mod decode;
mod demo;
mod devices;
mod key;
mod offline;
mod output;
mod prove;
mod quarantine;
mod replay;
mod serve;
mod sql;
mod token;
mod why;

pub(crate) use output::{say, say_json};

/// Signed sensor readings in, consented SQL rows with a proof out.
#[derive(Debug, Parser)]
#[command(name = "vitalog", version, arg_required_else_help = true, after_help = "Start with: vitalog demo")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play the whole story on loopback in under a minute, nothing else installed.
    #[command(after_help = "Example: vitalog demo --keep /tmp/story")]
    Demo(demo::DemoArguments),
    /// Serve every door in one process until SIGTERM or Ctrl-C.
    #[command(
        after_help = "Examples:\n  vitalog serve --dev --data ./data\n  vitalog serve --config /etc/vitalog.toml --ready-file /run/vitalog/ready"
    )]
    Serve(serve::ServeArguments),
    /// Check a configuration file and print what it means; a bad key is named with its line.
    #[command(after_help = "Example: vitalog check-config vitalog.toml")]
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
    /// This deployment's verification policy, for handing to auditors out of band.
    #[command(subcommand, after_help = "Example: vitalog policy show --data ./data > policy.txt")]
    Policy(offline::PolicyCommand),
    /// Make and show keys.
    #[command(subcommand, after_help = "Example: vitalog key new --out patient.pem")]
    Key(key::KeyCommand),
    /// Enrol a device: its maker vouches for its key.
    #[command(after_help = "Example: vitalog enrol --device-key d.pem --maker-key maker.pem --model E4")]
    Enrol(devices::EnrolArguments),
    /// Move a device or a person to a new key.
    #[command(after_help = "Example: vitalog rotate --old d.pem --new d2.pem --maker-key maker.pem")]
    Rotate(devices::RotateArguments),
    /// Declare a key dead, from a moment on if it is known.
    #[command(
        after_help = "Example: vitalog revoke-key did:key:z6Mk... --key maker.pem --compromised-from 2026-01-01T00:00:00Z"
    )]
    RevokeKey(devices::RevokeKeyArguments),
    /// Devices: keys, bindings, last durable frame, gaps, clocks.
    #[command(after_help = "Example: vitalog devices --json")]
    Devices(devices::DevicesArguments),
    /// Refused frames that are kept; offer them again after a mend.
    #[command(subcommand, after_help = "Example: vitalog quarantine list --key operator.pem")]
    Quarantine(quarantine::QuarantineCommand),
    /// Say who wears a device, signed by the wearer and by the device (or a registrar).
    #[command(
        after_help = "Example: vitalog bind --device 0123456789abcdef --subject-key p.pem --device-key d.pem"
    )]
    Bind(devices::BindArguments),
    /// Grant, deny, revoke, list and show consent.
    #[command(
        subcommand,
        after_help = "Example: vitalog consent grant --key p.pem --to did:key:z6Mk... --signals vitals --purpose HRESCH"
    )]
    Consent(consent::ConsentCommand),
    /// Sign a token to ask with and print it; list and revoke those that were used.
    #[command(
        after_help = "Examples:\n  T=$(vitalog token --key researcher.pem --purpose HRESCH)\n  vitalog token list --key researcher.pem\n  vitalog token revoke '*' --key researcher.pem"
    )]
    Token(token::TokenArguments),
    /// Ask in SQL.
    #[command(
        after_help = "Examples:\n  vitalog sql \"SELECT signal, count(*) FROM readings GROUP BY signal\" --token $T\n  vitalog sql \"SELECT count(*) FROM readings\" --token $PROVIDERS_TOKEN --purpose TREAT"
    )]
    Sql(sql::SqlArguments),
    /// Send real recordings as signed frames.
    #[command(subcommand, after_help = "Example: vitalog replay e4 ./S01 --keys ./keys")]
    Replay(replay::ReplayCommand),
    /// Send a seeded fleet's frames, with faults if asked.
    Simulate(replay::SimulateArguments),
    /// Show a frame field by field, with the verdict it would get.
    #[command(after_help = "Example: vitalog decode frame.bin")]
    Decode(decode::DecodeArguments),
    /// Fetch the proof of one stored frame; check it with vitalog-verify.
    #[command(
        after_help = "Example: vitalog prove --device 0123456789abcdef --boot 00..00 --seq 17 --key p.pem --out f.evidence"
    )]
    Prove(prove::ProveArguments),
    /// Who read my data, why, when, which signals, how many rows; and who was refused.
    #[command(
        after_help = "Examples:\n  vitalog access-report --key p.pem\n  vitalog access-report --key p.pem --format fhir > bundle.json\nExit code 3 means that records are missing."
    )]
    AccessReport(accesses::AccessReportArguments),
    /// Re-read every file, recompute every root, check the log; name what is wrong.
    #[command(after_help = "Example: vitalog audit --data ./data")]
    Audit(audit::AuditArguments),
}

/// Options of commands that speak to a server.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientOptions {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Machine-readable output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs one command.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    match arguments.command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::CheckConfig { file } => offline::check_config(&file),
        Command::Policy(command) => offline::policy(&command),
        Command::Key(command) => key::run(&command),
        Command::Enrol(arguments) => devices::enrol(&arguments),
        Command::Rotate(arguments) => devices::rotate(&arguments),
        Command::RevokeKey(arguments) => devices::revoke_key(&arguments),
        Command::Devices(arguments) => devices::list(&arguments),
        Command::Quarantine(command) => quarantine::run(&command),
        Command::Bind(arguments) => devices::bind(&arguments),
        Command::Consent(command) => consent::run(&command),
        Command::Token(arguments) => token::run(&arguments),
        Command::Sql(arguments) => sql::run(&arguments),
        Command::Replay(command) => replay::run(&command),
        Command::Simulate(arguments) => replay::simulate(&arguments),
        Command::Decode(arguments) => decode::run(&arguments),
        Command::Prove(arguments) => prove::run(&arguments),
        Command::AccessReport(arguments) => accesses::run(&arguments),
        Command::Audit(arguments) => audit::run(&arguments),
    }
}
