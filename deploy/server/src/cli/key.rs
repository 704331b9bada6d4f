//! `vitalog key`: Ed25519 keys as PKCS#8 PEM files, and the names that follow from them.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use schemas_identity::SecretKey;
use serde_json::json;

use super::{say, say_json};
use crate::Exit;

/// A key file is far smaller.
const KEY_FILE_BYTES_MAX: u64 = 16 << 10;

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a new key; an existing file is never overwritten.
    New {
        /// Where to write the private key (readable by you alone).
        #[arg(long)]
        out: PathBuf,
        /// Machine-readable output.
        #[arg(long)]
        json: bool,
    },
    /// Print the did:key and the short id (the device's name, if it is one).
    Show {
        /// Private key file.
        file: PathBuf,
        /// Machine-readable output.
        #[arg(long)]
        json: bool,
    },
}

/// Reads a private key file.
pub(crate) fn read(path: &Path) -> anyhow::Result<SecretKey> {
    let length = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    if length > KEY_FILE_BYTES_MAX {
        bail!("{} is too large to be a key", path.display());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    match SecretKey::from_pem(&text) {
        Ok(key) => Ok(key),
        Err(error) => bail!("{} holds no Ed25519 private key in PKCS#8 PEM: {error}", path.display()),
    }
}

fn write(path: &Path, key: &SecretKey) -> anyhow::Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(key.to_pem().as_bytes())?;
    file.sync_all()?;
    Ok(())
}

fn show(key: &SecretKey, json: bool) {
    let public = key.public();
    if json {
        say_json(&json!({"did": public.did().to_string(), "short_id": public.short_id().to_string()}));
    } else {
        say(public.did().to_string());
        say(public.short_id().to_string());
    }
}

pub(crate) fn run(command: &KeyCommand) -> anyhow::Result<Exit> {
    match command {
        KeyCommand::New { out, json } => {
            let key = SecretKey::generate().map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
            write(out, &key)?;
            show(&key, *json);
        }
        KeyCommand::Show { file, json } => show(&read(file)?, *json),
    }
    Ok(Exit::Done)
}
