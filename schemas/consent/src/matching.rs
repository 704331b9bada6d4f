//! Whether one grant or deny speaks to one request: the part of a decision that no sample can change.
//!
//! `decide` and `compile` share it. The other part, whether it covers a sample, they work out separately (pointwise
//! and as intervals) and a property test compares them.

use schemas_identity::register::Device;
use schemas_identity::statement::Study;
use schemas_identity::{Did, Register, ShortId};

use crate::asker::Asker;
use crate::decide::{Reason, Request};
use crate::duo;
use crate::grant::{Devices, Grant, Grantee};
use crate::state::{EMERGENCY_ROLE, Emergency, SubjectConsent};
use crate::terms::{EMERGENCY_PURPOSES, Period, Resolution, Use};

/// A request with its names looked up once.
pub(crate) struct Context<'a> {
    pub(crate) register: &'a Register,
    pub(crate) request: &'a Request,
    pub(crate) asker: Asker<'a>,
    study: Option<&'a Study>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(register: &'a Register, request: &'a Request) -> Context<'a> {
        let study = match &request.study {
            Some(name) => register.study(name),
            None => None,
        };
        let asker = Asker::new(register, &request.principal, request.vouched.as_deref());
        Context { register, request, asker, study }
    }

    /// Whether the asking key was neither revoked nor replaced. A dead key sees nothing, not even its own.
    pub(crate) fn is_live(&self) -> bool {
        self.register.is_live(&self.request.principal)
    }

    /// What stops everything about a subject, whoever asks.
    pub(crate) fn blocked(&self, consent: &SubjectConsent) -> Option<Reason> {
        if let Some(statement) = consent.erased() {
            return Some(Reason::Erased { statement });
        }
        consent.frozen().map(|freeze| Reason::Frozen { statement: freeze.statement })
    }

    /// Whether the subject looks at itself. A group statistic is no such look: it needs a grant like any other.
    pub(crate) fn is_own(&self, subject: &Did) -> bool {
        self.asker.party() == subject && self.request.use_ != Use::Aggregate
    }

    /// Whether a grant speaks to this request at all, samples aside.
    pub(crate) fn permits(&self, grant: &Grant) -> Result<(), Reason> {
        self.admits(&grant.grantee)?;
        let request = self.request;
        if !names(&grant.purposes, &request.purpose) {
            return Err(Reason::Purpose);
        }
        if request.now_us < grant.valid.from_us {
            return Err(Reason::NotYetValid);
        }
        if !grant.valid.contains(request.now_us) {
            return Err(Reason::Expired);
        }
        if let Some(study) = self.study
            && !duo::is_met(&grant.duo, &study.duo)
        {
            return Err(Reason::DataUse);
        }
        if !shows(grant.resolution, request) {
            return Err(Reason::Resolution);
        }
        if !request.use_.is_allowed_by(grant.export) {
            return Err(Reason::Export);
        }
        Ok(())
    }

    /// Whether a deny speaks to this request: wider than a grant would, for doubt closes.
    pub(crate) fn denies(&self, deny: &Grant) -> bool {
        deny.valid.contains(self.request.now_us) && self.may_deny(deny)
    }

    /// The same at some other time.
    pub(crate) fn may_deny(&self, deny: &Grant) -> bool {
        let spoken_to = match &deny.grantee {
            Grantee::Party(party) => self.asker.is(party),
            Grantee::Role(role) => self.asker.may_have_role(role),
            Grantee::Study(study) => self.request.study.as_deref() == Some(study),
        };
        spoken_to && (deny.purposes.is_empty() || names(&deny.purposes, &self.request.purpose))
    }

    /// Whether a break-glass opening speaks to this request.
    pub(crate) fn opens(&self, emergency: &Emergency) -> bool {
        self.asker.is(&emergency.clinician)
            && emergency.window.contains(self.request.now_us)
            && EMERGENCY_PURPOSES.contains(&self.request.purpose.as_str())
            && self.request.study.is_none()
            && self.request.use_ != Use::Aggregate
            && self.admits(&Grantee::Role(EMERGENCY_ROLE.to_owned())).is_ok()
    }

    /// Whether the asking party is, at this moment and for this purpose, the one the grantee names.
    pub(crate) fn admits(&self, grantee: &Grantee) -> Result<(), Reason> {
        match grantee {
            Grantee::Party(party) => {
                if self.asker.is(party) {
                    Ok(())
                } else {
                    Err(Reason::NoGrant)
                }
            }
            Grantee::Role(name) => {
                let Some(role) = self.register.role(name) else { return Err(Reason::NoGrant) };
                if !self.asker.has_role(role) {
                    return Err(Reason::NoGrant);
                }
                self.in_force(&role.purposes, Period::new(role.from, role.to))
            }
            Grantee::Study(name) => {
                if self.request.study.as_deref() != Some(name) {
                    return Err(Reason::NoGrant);
                }
                let Some(study) = self.study else { return Err(Reason::NoGrant) };
                if !self.asker.is_in_study(study) {
                    return Err(Reason::NotAMember);
                }
                self.in_force(&study.purposes, Period::new(study.from, study.to))
            }
        }
    }

    fn in_force(&self, purposes: &[String], period: Period) -> Result<(), Reason> {
        if !period.contains(self.request.now_us) {
            return Err(Reason::NotInForce);
        }
        if !purposes.is_empty() && !names(purposes, &self.request.purpose) {
            return Err(Reason::PurposeNotOfGroup);
        }
        Ok(())
    }
}

/// Whether a grant's resolution lets the request's rows through. A grant for groups never shows rows.
fn shows(granted: Resolution, request: &Request) -> bool {
    match request.use_ {
        Use::Aggregate => true,
        Use::Rows | Use::Page => granted != Resolution::Aggregate && granted <= request.resolution,
    }
}

fn names(list: &[String], name: &str) -> bool {
    list.iter().any(|known| known == name)
}

/// Whether a list of devices covers a device, by any short id it ever had.
pub(crate) fn covers_device(devices: &Devices, device: &Device) -> bool {
    match devices {
        Devices::All => true,
        Devices::Only(listed) => {
            let has = |id: &ShortId| listed.binary_search(id).is_ok();
            has(&device.first_id) || device.keys.iter().any(|known| has(&known.key.short_id()))
        }
    }
}
