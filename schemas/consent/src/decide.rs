//! The decision: may this principal see this one sample, for this purpose, now?
//!
//! One pure, total function: every input has an answer and the answer has a reason. Reasons are for the subject, the
//! auditor and the tests; a recipient is never told why a row is missing.

use std::fmt;
use std::sync::Arc;

use schemas_identity::register::Device;
use schemas_identity::token::Vouched;
use schemas_identity::{DeviceNumber, Did, Register, StatementId};
use schemas_signals::Registry;

use crate::grant::Grant;
use crate::matching::{Context, covers_device};
use crate::state::{ConsentState, SubjectConsent, emergency_signals};
use crate::terms::{Resolution, Use};

/// Who asks, for what, and how it will be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The asking party.
    pub principal: Did,
    /// Its groups, if an identity provider vouches for it; otherwise the register says which they are.
    pub vouched: Option<Arc<Vouched>>,
    /// The stated purpose; matched exactly.
    pub purpose: String,
    /// The study in whose name, if any.
    pub study: Option<String>,
    /// How fine the rows asked for are. Of no matter for [`Use::Aggregate`].
    pub resolution: Resolution,
    /// What happens to the data.
    pub use_: Use,
    /// The present, microseconds since 1970 UTC.
    pub now_us: i64,
}

/// One sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Whose it is said to be; checked against the bindings.
    pub subject: Did,
    /// The device that measured it.
    pub device: DeviceNumber,
    /// The signal's id in the registry.
    pub signal: u32,
    /// The sample's own time, microseconds since 1970 UTC.
    pub ts_us: i64,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Permit {
        /// The grant or break-glass statement that allows it; nothing if it is the subject's own look.
        grant: Option<StatementId>,
    },
    /// No.
    Deny {
        /// Why.
        reason: Reason,
    },
}

impl Decision {
    /// Whether the answer is yes.
    pub fn is_permit(&self) -> bool {
        matches!(self, Decision::Permit { .. })
    }
}

/// Why not. Ordered: of several grants that fail, the one that came furthest down this list gives the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// No grant speaks to this party.
    NoGrant,
    /// The study is granted but the party is not a member of it.
    NotAMember,
    /// The role or study has not begun or is over.
    NotInForce,
    /// The role or study may not be used for this purpose.
    PurposeNotOfGroup,
    /// Granted for other purposes.
    Purpose,
    /// The grant's validity begins later.
    NotYetValid,
    /// The grant's validity is over.
    Expired,
    /// The study does not meet the grant's data use terms.
    DataUse,
    /// Granted at a coarser resolution only.
    Resolution,
    /// Granted, but not for rows (or groups) to leave.
    Export,
    /// Granted for other devices.
    Device,
    /// Granted for other signals.
    Signal,
    /// Granted for other days of data.
    DataPeriod,
    /// A grant would have allowed it but was revoked.
    Revoked {
        /// The revocation.
        by: StatementId,
    },
    /// The asking key was revoked or replaced.
    DeadKey,
    /// No such signal.
    UnknownSignal,
    /// The device was not bound to this subject at that time.
    NotBound,
    /// The subject closed it.
    Denied {
        /// The deny.
        by: StatementId,
    },
    /// Access to the subject is frozen.
    Frozen {
        /// The freeze.
        statement: StatementId,
    },
    /// The subject was erased.
    Erased {
        /// The erasure.
        statement: StatementId,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NoGrant => "no grant",
            Reason::NotAMember => "not a member",
            Reason::NotInForce => "role or study not in force",
            Reason::PurposeNotOfGroup => "purpose not of the role or study",
            Reason::Purpose => "other purpose",
            Reason::NotYetValid => "not yet valid",
            Reason::Expired => "expired",
            Reason::DataUse => "data use terms not met",
            Reason::Resolution => "coarser only",
            Reason::Export => "may not leave",
            Reason::Device => "other device",
            Reason::Signal => "other signal",
            Reason::DataPeriod => "other time of data",
            Reason::Revoked { .. } => "revoked",
            Reason::DeadKey => "dead key",
            Reason::UnknownSignal => "unknown signal",
            Reason::NotBound => "device not worn",
            Reason::Denied { .. } => "denied",
            Reason::Frozen { .. } => "frozen",
            Reason::Erased { .. } => "erased",
        })
    }
}

/// Decides about one sample. See the crate's head for the order of authority.
pub fn decide(state: &ConsentState, register: &Register, request: &Request, at: &Point) -> Decision {
    match judge(state, register, request, at) {
        Ok(grant) => Decision::Permit { grant },
        Err(reason) => Decision::Deny { reason },
    }
}

fn judge(
    state: &ConsentState,
    register: &Register,
    request: &Request,
    at: &Point,
) -> Result<Option<StatementId>, Reason> {
    let context = Context::new(register, request);
    if !context.is_live() {
        return Err(Reason::DeadKey);
    }
    let subject = register.subject_of(&at.subject);
    let device = worn_by(register, &subject, at).ok_or(Reason::NotBound)?;
    if Registry::builtin().by_id(at.signal).is_none() {
        return Err(Reason::UnknownSignal);
    }
    let Some(consent) = state.subject(&subject) else {
        return if context.is_own(&subject) { Ok(None) } else { Err(Reason::NoGrant) };
    };
    if let Some(reason) = context.blocked(consent) {
        return Err(reason);
    }
    if context.is_own(&subject) {
        return Ok(None);
    }
    if let Some(deny) =
        consent.denies().iter().find(|deny| context.denies(deny) && covers(deny, device, at).is_ok())
    {
        return Err(Reason::Denied { by: deny.id });
    }
    granted(&context, consent, device, at).map(Some)
}

/// The device, if it was on this subject's body at that time.
fn worn_by<'a>(register: &'a Register, subject: &Did, at: &Point) -> Option<&'a Device> {
    let binding = register.binding_at(at.device, at.ts_us)?;
    if register.subject_of(&binding.subject) != *subject {
        return None;
    }
    register.device(at.device)
}

/// The first grant in log order that allows the sample, else a break-glass opening, else the reason that came closest.
fn granted(
    context: &Context<'_>,
    consent: &SubjectConsent,
    device: &Device,
    at: &Point,
) -> Result<StatementId, Reason> {
    let mut closest = Reason::NoGrant;
    for grant in consent.grants() {
        match context.permits(grant).and_then(|()| covers(grant, device, at)) {
            Ok(()) => return Ok(grant.id),
            Err(reason) => closest = closest.max(reason),
        }
    }
    for emergency in consent.emergencies() {
        if context.opens(emergency) && emergency_signals().contains(at.signal) {
            return Ok(emergency.statement);
        }
    }
    // The newest revocation that took away what would have allowed it says more than any near miss.
    let allowed = |grant| context.permits(grant).and_then(|()| covers(grant, device, at)).is_ok();
    match consent.ended().iter().rev().find(|ended| allowed(&ended.grant)) {
        Some(ended) => Err(Reason::Revoked { by: ended.by }),
        None => Err(closest),
    }
}

/// Whether a grant or deny covers the sample itself.
fn covers(grant: &Grant, device: &Device, at: &Point) -> Result<(), Reason> {
    if !covers_device(&grant.devices, device) {
        return Err(Reason::Device);
    }
    if !grant.signals.contains(at.signal) {
        return Err(Reason::Signal);
    }
    if !grant.data.contains(at.ts_us) {
        return Err(Reason::DataPeriod);
    }
    Ok(())
}
