//! One grant or deny in the language of the domain, made from a signed statement's body by validating it.
//!
//! What it is not: the wire format (`schemas-identity` has that) and not a verdict (`decide` gives that). A deny has the
//! same shape: its grantee, signals, devices, purposes and periods say what is closed; its resolution, export and cohort
//! size say nothing, for a deny closes every resolution and every use.

use schemas_identity::statement::{self, GranteeKind};
use schemas_identity::{Did, GrantBody, ShortId, StatementId};
use schemas_signals::{Registry, SignalSet};

use crate::refusal::Refusal;
use crate::terms::{self, Export, Period, Resolution};

/// Fewest people a group statistic may be over, whatever a grant says.
pub const COHORT_FLOOR: u32 = 5;
/// Most signals or classes one grant may list.
pub const SIGNALS_LISTED_MAX: usize = 256;
/// Most devices one grant may list; for more, `*`.
pub const DEVICES_LISTED_MAX: usize = 64;
/// Most purposes one grant may list.
pub const PURPOSES_LISTED_MAX: usize = 64;
/// Most data use terms one grant may list.
pub const DUO_LISTED_MAX: usize = 32;
/// Longest role, study or data use term in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// To whom a grant speaks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Grantee {
    /// One party by name.
    Party(Did),
    /// Whoever is a member of the role when asking.
    Role(String),
    /// Members of the study, when they ask in the study's name.
    Study(String),
}

/// Which devices a grant covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// Each device while it is bound to the subject.
    All,
    /// These only, by any short id they ever had; sorted.
    Only(Vec<ShortId>),
}

/// A validated grant or deny.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The statement.
    pub id: StatementId,
    /// Its place in the log.
    pub log_index: u64,
    /// Whose data.
    pub subject: Did,
    /// For whom.
    pub grantee: Grantee,
    /// Which signals, with classes resolved.
    pub signals: SignalSet,
    /// Which devices.
    pub devices: Devices,
    /// How fine at most.
    pub resolution: Resolution,
    /// For which purposes, sorted. Empty only in a deny, where it means all.
    pub purposes: Vec<String>,
    /// Data use terms a study must meet.
    pub duo: Vec<String>,
    /// Which samples, by their own time.
    pub data: Period,
    /// When the statement itself is in force.
    pub valid: Period,
    /// What may leave.
    pub export: Export,
    /// Smallest group the person wants to be counted in.
    pub cohort_min: u32,
}

impl Grant {
    /// Validates the body of a grant.
    pub fn from_grant(body: &GrantBody, id: StatementId, log_index: u64) -> Result<Grant, Refusal> {
        if body.purposes.is_empty() {
            return Err(Refusal::Invalid { field: "purposes", problem: "is empty" });
        }
        Grant::from_body(body, id, log_index)
    }

    /// Validates the body of a deny. It may leave purposes empty: then it closes all of them.
    pub fn from_deny(body: &GrantBody, id: StatementId, log_index: u64) -> Result<Grant, Refusal> {
        Grant::from_body(body, id, log_index)
    }

    fn from_body(body: &GrantBody, id: StatementId, log_index: u64) -> Result<Grant, Refusal> {
        let data = period(body.data_from, body.data_to, "data_to")?;
        let valid = period(body.valid_from, body.valid_to, "valid_to")?;
        Ok(Grant {
            id,
            log_index,
            subject: body.subject,
            grantee: grantee(body)?,
            signals: signals(&body.signals)?,
            devices: devices(body)?,
            resolution: resolution(body)?,
            purposes: purposes(&body.purposes)?,
            duo: duo(&body.duo)?,
            data,
            valid,
            export: export(body)?,
            cohort_min: cohort_min(body)?,
        })
    }
}

impl Grant {
    /// The same rule under the subject's first key, whichever key the body names.
    pub(crate) fn of(self, subject: Did) -> Grant {
        Grant { subject, ..self }
    }
}

fn period(from_us: Option<i64>, to_us: Option<i64>, field: &'static str) -> Result<Period, Refusal> {
    let period = Period::new(from_us, to_us);
    if period.is_empty() {
        return Err(Refusal::Invalid { field, problem: "is not after its beginning" });
    }
    Ok(period)
}

fn signals(names: &[String]) -> Result<SignalSet, Refusal> {
    bounded("signals", names.len(), SIGNALS_LISTED_MAX)?;
    let mut set = SignalSet::EMPTY;
    for name in names {
        let named = Registry::builtin().resolve(name);
        if named.is_empty() {
            return Err(Refusal::UnknownSignal { name: clip(name) });
        }
        set = set.union(named);
    }
    if set.is_empty() {
        return Err(Refusal::Invalid { field: "signals", problem: "is empty" });
    }
    Ok(set)
}

fn purposes(names: &[String]) -> Result<Vec<String>, Refusal> {
    bounded("purposes", names.len(), PURPOSES_LISTED_MAX)?;
    for name in names {
        if !terms::is_purpose(name) {
            return Err(Refusal::UnknownPurpose { name: clip(name) });
        }
    }
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    Ok(sorted)
}

fn duo(listed: &[String]) -> Result<Vec<String>, Refusal> {
    bounded("duo", listed.len(), DUO_LISTED_MAX)?;
    if listed.iter().any(|term| !is_name(term)) {
        return Err(Refusal::Invalid { field: "duo", problem: "has an empty or too long term" });
    }
    Ok(listed.to_vec())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX
}

fn grantee(body: &GrantBody) -> Result<Grantee, Refusal> {
    let value = &body.grantee.value;
    if !is_name(value) {
        return Err(Refusal::Invalid { field: "grantee", problem: "is empty or too long" });
    }
    match body.grantee.kind {
        GranteeKind::Role => Ok(Grantee::Role(value.clone())),
        GranteeKind::Study => Ok(Grantee::Study(value.clone())),
        GranteeKind::Party => match value.parse() {
            Ok(party) => Ok(Grantee::Party(party)),
            Err(_) => Err(Refusal::Invalid { field: "grantee", problem: "is not a did:key" }),
        },
    }
}

fn devices(body: &GrantBody) -> Result<Devices, Refusal> {
    let listed = match &body.devices {
        statement::Devices::All => return Ok(Devices::All),
        statement::Devices::Only(listed) => listed,
    };
    bounded("devices", listed.len(), DEVICES_LISTED_MAX)?;
    if listed.is_empty() {
        return Err(Refusal::Invalid { field: "devices", problem: "is empty" });
    }
    let mut sorted = listed.clone();
    sorted.sort_unstable();
    sorted.dedup();
    Ok(Devices::Only(sorted))
}

fn resolution(body: &GrantBody) -> Result<Resolution, Refusal> {
    let problem = "is none of raw, 1m, 1h, aggregate";
    Resolution::parse(&body.resolution).ok_or(Refusal::Invalid { field: "resolution", problem })
}

fn export(body: &GrantBody) -> Result<Export, Refusal> {
    let problem = "is none of none, aggregate, rows";
    Export::parse(&body.export).ok_or(Refusal::Invalid { field: "export", problem })
}

fn cohort_min(body: &GrantBody) -> Result<u32, Refusal> {
    if body.min_cohort < COHORT_FLOOR {
        return Err(Refusal::Invalid { field: "min_cohort", problem: "is below 5" });
    }
    Ok(body.min_cohort)
}

fn bounded(field: &'static str, listed: usize, listed_max: usize) -> Result<(), Refusal> {
    if listed > listed_max { Err(Refusal::TooMany { what: field, max: listed_max }) } else { Ok(()) }
}

/// A stranger's text, cut to a length that fits an answer.
fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}
