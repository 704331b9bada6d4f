//! `vitalog check-config` and `vitalog policy`: nothing is sent, nothing is locked.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use schemas_evidence::note::NoteKey;
use schemas_evidence::policy::Policy;
use schemas_identity::{Did, SecretKey};

use super::say;
use crate::Exit;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Print the policy: the log's key and the makers to trust.
    Show {
        /// Data directory.
        #[arg(long)]
        data: Option<PathBuf>,
        /// Configuration file.
        #[arg(long)]
        config: Option<PathBuf>,
        /// A maker to trust; may be given several times. The development maker if none is given.
        #[arg(long)]
        maker: Vec<Did>,
    },
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub(crate) fn check_config(file: &Path) -> anyhow::Result<Exit> {
    let config = Config::load(Some(file), &environment)?;
    if config.check(false).is_err() && config.check(true).is_ok() {
        eprintln!("usable with --dev only: no operator is named");
    } else {
        config.check(false)?;
    }
    say(toml::to_string(&config)?.trim_end());
    Ok(Exit::Done)
}

pub(crate) fn policy(command: &PolicyCommand) -> anyhow::Result<Exit> {
    let PolicyCommand::Show { data, config, maker } = command;
    let config = Config::load(config.as_deref(), &environment)?;
    let path = data.as_ref().unwrap_or(&config.data).join("keys").join("log.pem");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let key = SecretKey::from_pem(&text).with_context(|| format!("{} holds no key", path.display()))?;
    let log = NoteKey::log(&config.origin, key.public())?;
    let makers =
        if maker.is_empty() { vec![crate::serve::dev_maker().public().did()] } else { maker.clone() };
    say(Policy::of_log(log, &makers).to_text().trim_end());
    Ok(Exit::Done)
}
