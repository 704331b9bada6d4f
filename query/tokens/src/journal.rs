//! The file of revocations and uses: lines that are appended, each with its own check.
//!
//! ```text
//! DIRECTORY/journal            vitalog-tokens-1 LF, then one line per event:
//!                              16 hex digits of BLAKE3 over the JSON, space, JSON, LF
//! DIRECTORY/journal.tmp        a shorter one on its way, renamed over it when it is on the disk
//! DIRECTORY/journal.damaged-S  one that did not check, put aside at second S
//! ```
//!
//! A line without its end was never answered and is cut. A whole line that does not check is damage. What it is not: a
//! log anybody else reads; it holds ids of tokens and no token.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use query_consents::Ending;
use schemas_identity::Did;
use schemas_identity::token::{Scope, Token, Vouched};
use serde::{Deserialize, Serialize};

use crate::seen::Seen;

const HEAD: &[u8] = b"vitalog-tokens-1\n";
const CHECK_DIGITS: usize = 16;
/// A file longer than this was not written here: about four times all that the limits allow.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Lines beyond twice the live ones after which the file is written anew.
const SPARE_LINES_MAX: usize = 4_096;

/// One event as the file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Line {
    One {
        iss: Did,
        jti: String,
        forget_s: i64,
    },
    Issued {
        iss: Did,
        until_s: i64,
        forget_s: i64,
    },
    Everybody {
        until_s: i64,
        forget_s: i64,
    },
    Seen {
        iss: Did,
        jti: String,
        purpose: String,
        study: Option<String>,
        scope: Used,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vouched: Option<Provided>,
        iat_s: i64,
        exp_s: i64,
        first_s: i64,
        last_s: i64,
    },
}

/// A scope as the file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Used {
    Sql,
    Publish,
    Operate,
}

/// What an identity provider vouched for, as the file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Provided {
    issuer: String,
    roles: BTreeSet<String>,
    studies: BTreeSet<String>,
    purposes: BTreeSet<String>,
}

impl From<&Vouched> for Provided {
    fn from(vouched: &Vouched) -> Provided {
        let Vouched { issuer, roles, studies, purposes } = vouched.clone();
        Provided { issuer, roles, studies, purposes }
    }
}

impl From<Provided> for Vouched {
    fn from(provided: Provided) -> Vouched {
        let Provided { issuer, roles, studies, purposes } = provided;
        Vouched { issuer, roles, studies, purposes }
    }
}

/// What a line means.
pub(crate) enum Kept {
    Ending(Ending),
    Seen(Seen),
}

impl From<&Ending> for Line {
    fn from(ending: &Ending) -> Line {
        match ending.clone() {
            Ending::One { iss, jti, forget_s } => Line::One { iss, jti, forget_s },
            Ending::Issued { iss, until_s, forget_s } => Line::Issued { iss, until_s, forget_s },
            Ending::Everybody { until_s, forget_s } => Line::Everybody { until_s, forget_s },
        }
    }
}

impl From<&Seen> for Line {
    fn from(seen: &Seen) -> Line {
        let token = seen.token.clone();
        let scope = match token.scope {
            Scope::Sql => Used::Sql,
            Scope::Publish => Used::Publish,
            Scope::Operate => Used::Operate,
        };
        let vouched = token.vouched.as_deref().map(Provided::from);
        let Token { iss, jti, purpose, study, iat_s, exp_s, .. } = token;
        let (first_s, last_s) = (seen.first_s, seen.last_s);
        Line::Seen { iss, jti, purpose, study, scope, vouched, iat_s, exp_s, first_s, last_s }
    }
}

impl Line {
    pub(crate) fn into_kept(self) -> Kept {
        match self {
            Line::One { iss, jti, forget_s } => Kept::Ending(Ending::One { iss, jti, forget_s }),
            Line::Issued { iss, until_s, forget_s } => {
                Kept::Ending(Ending::Issued { iss, until_s, forget_s })
            }
            Line::Everybody { until_s, forget_s } => Kept::Ending(Ending::Everybody { until_s, forget_s }),
            Line::Seen { iss, jti, purpose, study, scope, vouched, iat_s, exp_s, first_s, last_s } => {
                let scope = match scope {
                    Used::Sql => Scope::Sql,
                    Used::Publish => Scope::Publish,
                    Used::Operate => Scope::Operate,
                };
                let vouched = vouched.map(|provided| Arc::new(provided.into()));
                let token = Token { iss, jti, purpose, study, vouched, scope, iat_s, exp_s };
                Kept::Seen(Seen { token, first_s, last_s })
            }
        }
    }

    fn write_to(&self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let json = serde_json::to_string(self)?;
        writeln!(bytes, "{} {json}", check(json.as_bytes()))
    }

    fn read(line: &[u8]) -> Option<Line> {
        let (sum, rest) = line.split_at_checked(CHECK_DIGITS)?;
        let json = rest.strip_prefix(b" ")?;
        if check(json).as_bytes() != sum {
            return None;
        }
        serde_json::from_slice(json).ok()
    }
}

fn check(json: &[u8]) -> String {
    blake3::hash(json).to_hex().chars().take(CHECK_DIGITS).collect()
}

/// What the file held.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(crate) lines: Vec<Line>,
    /// Why a revocation may be missing, if one may.
    pub(crate) damage: Option<&'static str>,
}

/// The file, for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    /// None before the first and after a failed write: what the disk has is then not known, so it is written anew.
    file: Option<File>,
    lines: usize,
}

impl Journal {
    /// Reads the file, puts it aside if it is damaged. The caller writes it anew before anything else.
    pub(crate) fn open(directory: &Path, now_s: i64) -> io::Result<(Journal, Opened)> {
        fs::create_dir_all(directory)?;
        let path = directory.join("journal");
        let opened = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Opened::default(),
            Err(error) => return Err(error),
            Ok(found) if found.len() > FILE_BYTES_MAX => {
                Opened { lines: Vec::new(), damage: Some("longer than it can be") }
            }
            Ok(_) => parse(&fs::read(&path)?),
        };
        if opened.damage.is_some() {
            fs::copy(&path, directory.join(format!("journal.damaged-{now_s}")))?;
        }
        Ok((Journal { path, file: None, lines: 0 }, opened))
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.file.is_none()
    }

    /// Whether most of the file speaks of what is over.
    pub(crate) fn is_long(&self, live: usize) -> bool {
        self.lines > live.saturating_mul(2).saturating_add(SPARE_LINES_MAX)
    }

    /// Appends; the system has it when this returns, the disk later.
    pub(crate) fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        self.write(lines, false)
    }

    /// Appends; the disk has it when this returns.
    pub(crate) fn append_synced(&mut self, lines: &[Line]) -> io::Result<()> {
        self.write(lines, true)
    }

    fn write(&mut self, lines: &[Line], is_synced: bool) -> io::Result<()> {
        let mut bytes = Vec::new();
        for line in lines {
            line.write_to(&mut bytes)?;
        }
        let mut file = self.file.take().ok_or_else(|| io::Error::other("must be written anew first"))?;
        file.write_all(&bytes)?;
        if is_synced {
            file.sync_data()?;
        }
        // Kept only now: after a failure nobody knows what the disk has.
        self.file = Some(file);
        self.lines += lines.len();
        Ok(())
    }

    /// Replaces the file; the disk has the new one when this returns.
    pub(crate) fn rewrite(&mut self, lines: &[Line]) -> io::Result<()> {
        self.file = None;
        let mut bytes = HEAD.to_vec();
        for line in lines {
            line.write_to(&mut bytes)?;
        }
        let temporary = self.path.with_extension("tmp");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        if let Some(parent) = self.path.parent() {
            File::open(parent)?.sync_all()?;
        }
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        self.lines = lines.len();
        Ok(())
    }
}

/// All whole lines; the first one that does not check is damage, and what comes after it is still read.
fn parse(bytes: &[u8]) -> Opened {
    let mut opened = Opened::default();
    let Some(rest) = bytes.strip_prefix(HEAD) else {
        opened.damage = Some("it does not begin as it should");
        return opened;
    };
    let mut rest = rest;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = rest.split_at(end);
        match Line::read(line) {
            Some(line) => opened.lines.push(line),
            None => opened.damage = Some("a line does not check"),
        }
        rest = after.get(1..).unwrap_or_default();
    }
    opened
}
