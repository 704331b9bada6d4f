//! The kinds of statement and their fields, as they stand in the payload. Wire types: bounded and well-formed, not yet
//! meaningful. A field that is left out and has a default gets it; an unknown field is refused.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::StatementError;
use crate::{Did, ShortId, StatementId, time};

/// Longest text of a name, id or code.
const NAME_BYTES_MAX: usize = 128;
/// Longest free text (titles, reasons, terms).
const TEXT_BYTES_MAX: usize = 2_000;
/// Most entries of any list.
const LIST_MAX: usize = 256;
const COHORT_DEFAULT: u32 = 11;

/// A company that makes devices and vouches for their keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maker {
    /// The maker's key.
    pub party: Did,
    /// Name for humans.
    #[serde(default)]
    pub title: String,
    /// From when, microseconds since 1970.
    #[serde(default, with = "time::optional")]
    pub from: Option<i64>,
    /// Until when.
    #[serde(default, with = "time::optional")]
    pub to: Option<i64>,
}

/// A role such as `clinician` or `registrar`; a later statement about the same role replaces the earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// Name of the role.
    pub role: String,
    /// Name for humans.
    #[serde(default)]
    pub title: String,
    /// Who holds it.
    pub members: Vec<Did>,
    /// Purposes its members may name; empty = any.
    #[serde(default)]
    pub purposes: Vec<String>,
    /// From when.
    #[serde(default, with = "time::optional")]
    pub from: Option<i64>,
    /// Until when.
    #[serde(default, with = "time::optional")]
    pub to: Option<i64>,
}

/// A study; a later statement about the same study replaces the earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Study {
    /// Id of the study.
    pub study: String,
    /// Name for humans.
    #[serde(default)]
    pub title: String,
    /// Who may ask in its name.
    pub members: Vec<Did>,
    /// Purposes it may name; empty = any.
    #[serde(default)]
    pub purposes: Vec<String>,
    /// GA4GH Data Use Ontology codes it declares.
    #[serde(default)]
    pub duo: Vec<String>,
    /// What participants agree to.
    #[serde(default)]
    pub terms: Vec<Term>,
    /// From when.
    #[serde(default, with = "time::optional")]
    pub from: Option<i64>,
    /// Until when.
    #[serde(default, with = "time::optional")]
    pub to: Option<i64>,
}

/// One term of a study.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// Its id.
    pub id: String,
    /// Whether taking part needs it.
    pub required: bool,
    /// Plain words.
    pub text: String,
}

/// A maker vouches for a device's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrol {
    /// The device's public key.
    pub device_key: Did,
    /// Model name.
    #[serde(default)]
    pub model: String,
    /// Signals it measures; empty = not said.
    #[serde(default)]
    pub signals: Vec<String>,
    /// The device's proof of possession.
    pub pop: String,
}

/// A device or a person moves to a new key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// Key so far.
    pub old: Did,
    /// Key from now on.
    pub new: Did,
    /// The new key's proof of possession.
    pub pop: String,
}

/// A key is dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeKey {
    /// The key.
    pub key: Did,
    /// Since when others may hold it, if known.
    #[serde(default, with = "time::optional")]
    pub compromised_from: Option<i64>,
}

/// Who wears a device in an interval of sample time (bind), or that an interval ends (unbind).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// The device.
    pub device: ShortId,
    /// From this time on; null = open.
    #[serde(default, with = "time::optional")]
    pub from: Option<i64>,
    /// Before this time; null = open.
    #[serde(default, with = "time::optional")]
    pub to: Option<i64>,
    /// The second signature, base64url.
    #[serde(default)]
    pub co: String,
}

/// To whom a grant speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grantee {
    /// What `value` names.
    pub kind: GranteeKind,
    /// did:key, role name or study id.
    pub value: String,
}

/// Kinds of grantee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GranteeKind {
    /// One party by did:key.
    Party,
    /// Members of a role.
    Role,
    /// Members of a study asking in its name.
    Study,
}

/// Devices of a grant: `"*"` or short ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Devices {
    /// All the subject wears.
    #[default]
    All,
    /// These only.
    Only(Vec<ShortId>),
}

impl Serialize for Devices {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Devices::All => serializer.serialize_str("*"),
            Devices::Only(devices) => devices.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Devices, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let star = |value: &Value| value.as_str() == Some("*");
        match &value {
            star_text if star(star_text) => Ok(Devices::All),
            Value::Array(list) if list.len() == 1 && star(&list[0]) => Ok(Devices::All),
            Value::Array(_) => serde_json::from_value(value).map(Devices::Only).map_err(D::Error::custom),
            _ => Err(D::Error::custom("devices: expected `*` or a list of short ids")),
        }
    }
}

/// What the person was shown when agreeing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    /// Digest of the text, as the deployment defines it.
    pub hash: String,
    /// Version of the text.
    pub version: String,
    /// Language tag.
    pub language: String,
}

/// Fields of a grant and of a deny.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantBody {
    /// Whose data: the signer.
    pub subject: Did,
    /// To whom.
    pub grantee: Grantee,
    /// Signal names or classes, or `*`.
    pub signals: Vec<String>,
    /// Which devices.
    #[serde(default)]
    pub devices: Devices,
    /// `raw`, `1m`, `1h` or `aggregate`.
    #[serde(default = "default_resolution")]
    pub resolution: String,
    /// HL7 v3 ActReason codes.
    #[serde(default)]
    pub purposes: Vec<String>,
    /// DUO codes that a study must meet.
    #[serde(default)]
    pub duo: Vec<String>,
    /// Samples from this time on.
    #[serde(default, with = "time::optional")]
    pub data_from: Option<i64>,
    /// Samples before this time.
    #[serde(default, with = "time::optional")]
    pub data_to: Option<i64>,
    /// In force from.
    #[serde(default, with = "time::optional")]
    pub valid_from: Option<i64>,
    /// In force until.
    #[serde(default, with = "time::optional")]
    pub valid_to: Option<i64>,
    /// `none`, `aggregate` or `rows`.
    #[serde(default = "default_export")]
    pub export: String,
    /// Smallest group the person wants to be counted in.
    #[serde(default = "default_cohort")]
    pub min_cohort: u32,
    /// What was shown.
    #[serde(default)]
    pub notice: Option<Notice>,
    /// The subject's previous grant, deny or revoke.
    #[serde(default)]
    pub prev: Option<StatementId>,
}

fn default_resolution() -> String {
    "raw".into()
}

fn default_export() -> String {
    "none".into()
}

fn default_cohort() -> u32 {
    COHORT_DEFAULT
}

/// What a revoke takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokeTarget {
    /// Every grant of the subject.
    All,
    /// One grant.
    One(StatementId),
}

impl Serialize for RevokeTarget {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            RevokeTarget::All => serializer.serialize_str("*"),
            RevokeTarget::One(id) => serializer.collect_str(id),
        }
    }
}

impl<'de> Deserialize<'de> for RevokeTarget {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<RevokeTarget, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "*" {
            return Ok(RevokeTarget::All);
        }
        text.parse().map(RevokeTarget::One).map_err(serde::de::Error::custom)
    }
}

/// A grant is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeBody {
    /// Whose grant; the signer if left out.
    #[serde(default)]
    pub subject: Option<Did>,
    /// Which one, or all.
    pub grant: RevokeTarget,
    /// The subject's previous grant, deny or revoke.
    #[serde(default)]
    pub prev: Option<StatementId>,
}

/// All access to a subject stops until the subject signs again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// Whose data.
    pub subject: Did,
    /// Why.
    pub reason: String,
}

/// A clinician looks at one person in an emergency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlass {
    /// Whose data.
    pub subject: Did,
    /// Why.
    pub reason: String,
}

/// The subject wants to be erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erase {
    /// What: `all`.
    pub scope: String,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident($body:ty) = $kind:literal),+ $(,)?) => {
        /// What a statement says.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Body {
            $($(#[$doc])* $variant($body),)+
        }

        impl Body {
            /// The kind's name on the wire.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Body::$variant(_) => $kind,)+
                }
            }

            /// The kind's own fields, in their order on the wire.
            pub fn fields(&self) -> Map<String, Value> {
                match self {
                    $(Body::$variant(body) => to_map(body),)+
                }
            }

            /// Reads the fields of a kind; unknown, missing, malformed or oversized ones are refused.
            pub fn from_fields(kind: &str, fields: Map<String, Value>) -> Result<Body, StatementError> {
                match kind {
                    $($kind => from_map::<$body>(kind, fields).map(Body::$variant),)+
                    _ => Err(StatementError::Kind(kind.chars().take(64).collect())),
                }
            }
        }
    };
}

kinds! {
    /// Operator names a maker.
    Maker(Maker) = "maker",
    /// Operator names the members of a role.
    Role(Role) = "role",
    /// Operator names a study.
    Study(Study) = "study",
    /// Maker vouches for a device.
    Enrol(Enrol) = "enrol",
    /// Device or person changes key.
    Rotate(Rotate) = "rotate",
    /// A key is dead.
    RevokeKey(RevokeKey) = "revoke-key",
    /// Who wears a device.
    Bind(Bind) = "bind",
    /// Nobody wears the device in the interval.
    Unbind(Bind) = "unbind",
    /// Permit.
    Grant(GrantBody) = "grant",
    /// Forbid.
    Deny(GrantBody) = "deny",
    /// Take a grant back.
    Revoke(RevokeBody) = "revoke",
    /// Stop all access.
    Freeze(Freeze) = "freeze",
    /// Emergency access.
    BreakGlass(BreakGlass) = "break-glass",
    /// Erase.
    Erase(Erase) = "erase",
}

fn to_map(body: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(body) {
        Ok(Value::Object(map)) => map,
        // Structs of text and numbers always become an object.
        _ => Map::new(),
    }
}

fn from_map<T: DeserializeOwned>(kind: &str, fields: Map<String, Value>) -> Result<T, StatementError> {
    let refused = |problem: String| StatementError::Body { kind: kind.to_owned(), problem };
    for (name, value) in &fields {
        check_size(name, value).map_err(refused)?;
    }
    serde_json::from_value(Value::Object(fields)).map_err(|error| refused(error.to_string()))
}

fn check_size(name: &str, value: &Value) -> Result<(), String> {
    let free = ["title", "reason", "text"].contains(&name);
    let longest = if free { TEXT_BYTES_MAX } else { NAME_BYTES_MAX };
    match value {
        Value::String(text) if text.len() > longest => {
            Err(format!("`{name}` is longer than {longest} bytes"))
        }
        Value::Array(list) if list.len() > LIST_MAX => {
            Err(format!("`{name}` has more than {LIST_MAX} entries"))
        }
        Value::Array(list) => list.iter().try_for_each(|entry| check_size(name, entry)),
        Value::Object(map) => map.iter().try_for_each(|(name, entry)| check_size(name, entry)),
        _ => Ok(()),
    }
}
