//! Whom to trust: C2SP tlog-policy text, plus `maker did:key...` lines of this project.
//!
//! ```text
//! log <vkey> [<url>]
//! witness <name> <vkey> [<url>]
//! group <name> all|any|<k> <name>...
//! quorum <name>|none
//! maker <did:key> [<name>]
//! ```
//!
//! It is always given by whoever verifies and never read from what is verified. Limit of this implementation: the file is
//! UTF-8 (the specification recommends it and allows any octets). What it is not: a list of who may sign statements in
//! a deployment; makers here are those whose devices the *verifier* believes.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use schemas_identity::{Did, PublicKey};
use thiserror::Error;

use crate::checkpoint::{self, Checkpoint, CheckpointError};
use crate::note::{self, KeyKind, Note, NoteError, NoteKey};
use crate::text::Field;

/// Longest policy in bytes.
pub const POLICY_BYTES_MAX: usize = 256 * 1024;

/// Most logs, witnesses, groups and makers, each; the specification asks for at least 32.
pub const POLICY_ITEMS_MAX: usize = 256;

/// A trust policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    logs: Vec<LogLine>,
    witnesses: Vec<WitnessLine>,
    groups: Vec<Group>,
    quorum: Option<Member>,
    makers: Vec<MakerLine>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct LogLine {
    key: NoteKey,
    url: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct WitnessLine {
    name: String,
    key: NoteKey,
    url: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct MakerLine {
    did: Did,
    name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    threshold: usize,
    members: Vec<Member>,
}

/// Index into the witnesses or the groups. A group only names what stands above it, so there are no circles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Member {
    Witness(usize),
    Group(usize),
}

/// What is wrong with a policy, and on which line (counted from 1; 0 = the file as a whole).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("policy line {line}: {problem}")]
pub struct PolicyParseError {
    /// Line number.
    pub line: usize,
    /// What is wrong there.
    pub problem: PolicyProblem,
}

/// The ways in which a line of a policy can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyProblem {
    /// Longer than [`POLICY_BYTES_MAX`].
    #[error("the file has {bytes} bytes, more than {POLICY_BYTES_MAX}")]
    TooLong {
        /// Length found.
        bytes: usize,
    },
    /// A control character other than tab and newline.
    #[error("control character {code:#04x}")]
    Control {
        /// The character.
        code: u32,
    },
    /// Not UTF-8.
    #[error("not utf-8")]
    NotUtf8,
    /// The first word is none of log, witness, group, quorum, maker.
    #[error("unknown keyword {word:?}")]
    Keyword {
        /// The word.
        word: String,
    },
    /// Too few or too many words.
    #[error("expected: {form}")]
    Form {
        /// The form of such a line.
        form: &'static str,
    },
    /// Not a usable verifier key.
    #[error(transparent)]
    Key(#[from] NoteError),
    /// A log needs a key of type 0x01, a witness one of type 0x04.
    #[error("a key of this signature type cannot stand here")]
    KeyKind,
    /// Not a did:key by the key rule.
    #[error("{did:?} is not a did:key")]
    Maker {
        /// The text found.
        did: String,
    },
    /// The same key or name a second time.
    #[error("{what} stands twice")]
    Duplicate {
        /// The name or key.
        what: String,
    },
    /// A name that no line above defines, or `none` as a member.
    #[error("{name:?} is not defined above")]
    Undefined {
        /// The name.
        name: String,
    },
    /// Not `all`, `any` or a number from 1 to the number of members.
    #[error("threshold {threshold:?} is not all, any or a number from 1 to {members}")]
    Threshold {
        /// The word found.
        threshold: String,
        /// Number of members.
        members: usize,
    },
    /// No quorum line, or a second one.
    #[error("exactly one quorum line is needed")]
    Quorum,
    /// More than [`POLICY_ITEMS_MAX`] of a kind.
    #[error("more than {POLICY_ITEMS_MAX} lines of one kind")]
    TooMany,
}

/// Why a checkpoint is not accepted under a policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// Not a checkpoint, or a known signer's signature is wrong.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// No log of the policy signed it.
    #[error("no log of the policy has signed the checkpoint of {origin:?}")]
    UnknownLog {
        /// Its origin.
        origin: String,
    },
    /// Not enough witnesses.
    #[error("the quorum is not met; cosigned by: {}", if cosigned.is_empty() { "nobody".to_owned() } else { cosigned.join(", ") })]
    Quorum {
        /// Names of witnesses whose cosignatures verified.
        cosigned: Vec<String>,
    },
}

impl From<NoteError> for PolicyError {
    fn from(error: NoteError) -> PolicyError {
        PolicyError::Checkpoint(CheckpointError::Note(error))
    }
}

/// A checkpoint a policy has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The tree head.
    pub checkpoint: Checkpoint,
    /// Witnesses that cosigned: policy name and time in seconds since 1970.
    pub witnesses: Vec<(String, u64)>,
    /// Names in signature lines that the policy does not know; nothing in those lines is checked.
    pub unknown_signers: Vec<String>,
}

impl Policy {
    /// The policy that trusts one log by its key and these makers, without witnesses.
    pub fn of_log(log: NoteKey, makers: &[Did]) -> Policy {
        let makers = makers.iter().map(|did| MakerLine { did: *did, name: None }).collect();
        Policy { logs: vec![LogLine { key: log, url: None }], makers, ..Policy::default() }
    }

    /// Reads a policy file.
    pub fn parse(policy: &[u8]) -> Result<Policy, PolicyParseError> {
        let whole = |problem| PolicyParseError { line: 0, problem };
        if policy.len() > POLICY_BYTES_MAX {
            return Err(whole(PolicyProblem::TooLong { bytes: policy.len() }));
        }
        let policy = std::str::from_utf8(policy).map_err(|_| whole(PolicyProblem::NotUtf8))?;
        let mut reader = Reader::default();
        for (before, line) in policy.split('\n').enumerate() {
            reader.line(line).map_err(|problem| PolicyParseError { line: before + 1, problem })?;
        }
        if !reader.quorum_seen {
            return Err(whole(PolicyProblem::Quorum));
        }
        Ok(reader.policy)
    }

    /// The policy as a file that reads back as the same policy.
    pub fn to_text(&self) -> String {
        let mut file = String::new();
        // Writing to a String cannot fail.
        for LogLine { key, url } in &self.logs {
            let _ = writeln!(file, "log {key}{}", optional(url));
        }
        for WitnessLine { name, key, url } in &self.witnesses {
            let _ = writeln!(file, "witness {name} {key}{}", optional(url));
        }
        for Group { name, threshold, members } in &self.groups {
            let names: Vec<&str> = members.iter().map(|member| self.name_of(*member)).collect();
            let _ = writeln!(file, "group {name} {threshold} {}", names.join(" "));
        }
        let _ = writeln!(file, "quorum {}", self.quorum.map_or("none", |member| self.name_of(member)));
        for MakerLine { did, name } in &self.makers {
            let _ = writeln!(file, "maker {did}{}", optional(name));
        }
        file
    }

    /// True if the policy believes devices of this maker.
    pub fn trusts_maker(&self, maker: &Did) -> bool {
        self.makers.iter().any(|line| line.did == *maker)
    }

    /// The keys of the logs.
    pub fn logs(&self) -> impl Iterator<Item = &NoteKey> {
        self.logs.iter().map(|line| &line.key)
    }

    /// The makers.
    pub fn makers(&self) -> impl Iterator<Item = &Did> {
        self.makers.iter().map(|line| &line.did)
    }

    /// True if no cosignature is asked for: the log is then only as good as its operator.
    pub fn is_unwitnessed(&self) -> bool {
        self.quorum.is_none()
    }

    /// Accepts a checkpoint: signed by a log of the policy whose name is its origin, cosigned by the quorum.
    ///
    /// A signature line by a known key that does not verify refuses the whole note; unknown ones are only listed.
    pub fn open(&self, checkpoint: &str) -> Result<Accepted, PolicyError> {
        let note = Note::parse(checkpoint)?;
        let head = Checkpoint::from_text(note.text)?;
        let mut by_log = false;
        for LogLine { key, .. } in self.logs.iter().filter(|line| line.key.name() == head.origin) {
            if let Some(signature) = note.signature_by(key)? {
                note::verify_plain(key, note.text, signature)?;
                by_log = true;
            }
        }
        if !by_log {
            return Err(PolicyError::UnknownLog { origin: head.origin });
        }
        let mut cosigned = HashSet::new();
        let mut witnesses = Vec::new();
        for (index, WitnessLine { name, key, .. }) in self.witnesses.iter().enumerate() {
            if let Some(signature) = note.signature_by(key)? {
                let time_s = checkpoint::verify_cosignature(key, note.text, signature)?;
                cosigned.insert(index);
                witnesses.push((name.clone(), time_s));
            }
        }
        if !self.quorum_met(&cosigned) {
            return Err(PolicyError::Quorum {
                cosigned: witnesses.into_iter().map(|(name, _)| name).collect(),
            });
        }
        let unknown_signers = self.unknown_signers(&note, &head.origin);
        Ok(Accepted { checkpoint: head, witnesses, unknown_signers })
    }

    fn unknown_signers(&self, note: &Note<'_>, origin: &str) -> Vec<String> {
        let logs = self.logs.iter().map(|line| &line.key).filter(|key| key.name() == origin);
        let known: Vec<&NoteKey> = logs.chain(self.witnesses.iter().map(|line| &line.key)).collect();
        let unknown = note.signatures.iter().filter(|signature| !known.iter().any(|key| key.made(signature)));
        unknown.map(|signature| signature.name.to_owned()).collect()
    }

    fn quorum_met(&self, cosigned: &HashSet<usize>) -> bool {
        // Groups stand in order of definition, so each only looks back.
        let mut groups = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let has = |member: &&Member| witnessed(**member, cosigned, &groups);
            let met = group.members.iter().filter(has).count() >= group.threshold;
            groups.push(met);
        }
        match self.quorum {
            None => true,
            Some(member) => witnessed(member, cosigned, &groups),
        }
    }

    fn name_of(&self, member: Member) -> &str {
        match member {
            Member::Witness(at) => self.witnesses.get(at).map_or("", |line| &line.name),
            Member::Group(at) => self.groups.get(at).map_or("", |group| &group.name),
        }
    }
}

fn witnessed(member: Member, cosigned: &HashSet<usize>, groups: &[bool]) -> bool {
    match member {
        Member::Witness(at) => cosigned.contains(&at),
        Member::Group(at) => groups.get(at).copied().unwrap_or(false),
    }
}

fn optional(word: &Option<String>) -> String {
    word.as_ref().map(|word| format!(" {word}")).unwrap_or_default()
}

#[derive(Default)]
struct Reader {
    policy: Policy,
    names: HashMap<String, Member>,
    members: HashSet<Member>,
    keys: HashSet<(bool, PublicKey)>,
    quorum_seen: bool,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), PolicyProblem> {
        if let Some(control) = line.chars().find(|c| c.is_ascii_control() && *c != '\t') {
            return Err(PolicyProblem::Control { code: control.into() });
        }
        let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        let Some((keyword, rest)) = words.split_first() else { return Ok(()) };
        match *keyword {
            comment if comment.starts_with('#') => Ok(()),
            "log" => self.log(rest),
            "witness" => self.witness(rest),
            "group" => self.group(rest),
            "quorum" => self.quorum(rest),
            "maker" => self.maker(rest),
            other => Err(PolicyProblem::Keyword { word: other.chars().take(64).collect() }),
        }
    }

    fn log(&mut self, words: &[&str]) -> Result<(), PolicyProblem> {
        let (vkey, url) = match words {
            [vkey] => (vkey, None),
            [vkey, url] => (vkey, Some((*url).to_owned())),
            _ => return Err(PolicyProblem::Form { form: "log <vkey> [<url>]" }),
        };
        let key = self.key(vkey, KeyKind::Log)?;
        room(self.policy.logs.len())?;
        self.policy.logs.push(LogLine { key, url });
        Ok(())
    }

    fn witness(&mut self, words: &[&str]) -> Result<(), PolicyProblem> {
        let (name, vkey, url) = match words {
            [name, vkey] => (*name, vkey, None),
            [name, vkey, url] => (*name, vkey, Some((*url).to_owned())),
            _ => return Err(PolicyProblem::Form { form: "witness <name> <vkey> [<url>]" }),
        };
        let key = self.key(vkey, KeyKind::Witness)?;
        room(self.policy.witnesses.len())?;
        self.define(name, Member::Witness(self.policy.witnesses.len()))?;
        self.policy.witnesses.push(WitnessLine { name: name.to_owned(), key, url });
        Ok(())
    }

    fn group(&mut self, words: &[&str]) -> Result<(), PolicyProblem> {
        let [name, threshold, names @ ..] = words else {
            return Err(PolicyProblem::Form { form: "group <name> all|any|<k> <name>..." });
        };
        let bad = || PolicyProblem::Threshold { threshold: (*threshold).to_owned(), members: names.len() };
        let needed = match *threshold {
            "all" => names.len(),
            "any" => 1,
            number => u64::strict(number).and_then(|number| usize::try_from(number).ok()).ok_or_else(bad)?,
        };
        if needed == 0 || needed > names.len() {
            return Err(bad());
        }
        let mut members = Vec::with_capacity(names.len());
        for member in names {
            let found = self.find(member)?;
            if !self.members.insert(found) {
                return Err(PolicyProblem::Duplicate { what: (*member).to_owned() });
            }
            members.push(found);
        }
        room(self.policy.groups.len())?;
        self.define(name, Member::Group(self.policy.groups.len()))?;
        self.policy.groups.push(Group { name: (*name).to_owned(), threshold: needed, members });
        Ok(())
    }

    fn quorum(&mut self, words: &[&str]) -> Result<(), PolicyProblem> {
        let [name] = words else { return Err(PolicyProblem::Form { form: "quorum <name>|none" }) };
        if self.quorum_seen {
            return Err(PolicyProblem::Quorum);
        }
        self.policy.quorum = if *name == "none" { None } else { Some(self.find(name)?) };
        self.quorum_seen = true;
        Ok(())
    }

    fn maker(&mut self, words: &[&str]) -> Result<(), PolicyProblem> {
        let (did, name) = match words {
            [did] => (*did, None),
            [did, name] => (*did, Some((*name).to_owned())),
            _ => return Err(PolicyProblem::Form { form: "maker <did:key> [<name>]" }),
        };
        let bad = |_| PolicyProblem::Maker { did: did.chars().take(80).collect() };
        let did: Did = did.parse().map_err(bad)?;
        if self.policy.trusts_maker(&did) {
            return Err(PolicyProblem::Duplicate { what: did.to_string() });
        }
        room(self.policy.makers.len())?;
        self.policy.makers.push(MakerLine { did, name });
        Ok(())
    }

    /// A key of the right kind that does not stand in another line of that kind.
    fn key(&mut self, vkey: &str, kind: KeyKind) -> Result<NoteKey, PolicyProblem> {
        let key: NoteKey = vkey.parse()?;
        if key.kind() != kind {
            return Err(PolicyProblem::KeyKind);
        }
        if !self.keys.insert((kind == KeyKind::Log, *key.public())) {
            return Err(PolicyProblem::Duplicate { what: vkey.to_owned() });
        }
        Ok(key)
    }

    fn define(&mut self, name: &str, member: Member) -> Result<(), PolicyProblem> {
        if name == "none" || self.names.insert(name.to_owned(), member).is_some() {
            return Err(PolicyProblem::Duplicate { what: name.to_owned() });
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Member, PolicyProblem> {
        self.names.get(name).copied().ok_or_else(|| PolicyProblem::Undefined { name: name.to_owned() })
    }
}

fn room(lines: usize) -> Result<(), PolicyProblem> {
    if lines < POLICY_ITEMS_MAX { Ok(()) } else { Err(PolicyProblem::TooMany) }
}

#[cfg(test)]
mod tests;
