//! Who wears a device when: half-open intervals of sample time, disjoint per device.

use super::{ROLE_REGISTRAR, Refusal, Register, ensure};
use crate::statement::Bind;
use crate::{DeviceNumber, Did, Statement, StatementId};

/// One wearer of a device in an interval `[from, to)` of sample time, microseconds since 1970; `None` = open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The device.
    pub device: DeviceNumber,
    /// The wearer: did:key of their first key.
    pub subject: Did,
    /// From this time on.
    pub from_us: Option<i64>,
    /// Before this time.
    pub to_us: Option<i64>,
    /// The statement that says so.
    pub statement: StatementId,
}

impl Binding {
    /// Whether a sample of that time falls into it.
    pub fn covers(&self, ts_us: i64) -> bool {
        start(self.from_us) <= ts_us && (self.to_us.is_none() || ts_us < end(self.to_us))
    }

    fn overlaps(&self, bind: &Bind) -> bool {
        start(self.from_us) < end(bind.to) && start(bind.from) < end(self.to_us)
    }
}

fn start(from_us: Option<i64>) -> i64 {
    from_us.unwrap_or(i64::MIN)
}

fn end(to_us: Option<i64>) -> i64 {
    to_us.unwrap_or(i64::MAX)
}

impl Register {
    fn check_bind_form(&self, statement: &Statement, bind: &Bind) -> Result<DeviceNumber, Refusal> {
        ensure(start(bind.from) < end(bind.to), Refusal::EmptyInterval)?;
        let device = self.device_by_kid(bind.device).ok_or(Refusal::UnknownDevice)?;
        let by_device = device
            .keys
            .iter()
            .filter(|key| key.revoked.is_none())
            .any(|key| statement.co_signed_by(&key.key));
        let registrars = self.role(ROLE_REGISTRAR).map_or(&[][..], |role| &role.members);
        let by_registrar =
            registrars.iter().any(|party| self.is_live(party) && statement.co_signed_by(party.key()));
        ensure(by_device || by_registrar, Refusal::CoSignature)?;
        Ok(device.number)
    }

    pub(super) fn check_bind(&self, statement: &Statement, bind: &Bind) -> Result<(), Refusal> {
        let number = self.check_bind_form(statement, bind)?;
        let overlaps = self.bindings(number).iter().any(|binding| binding.overlaps(bind));
        ensure(!overlaps, Refusal::BindingOverlap)
    }

    pub(super) fn check_unbind(&self, statement: &Statement, bind: &Bind) -> Result<(), Refusal> {
        let number = self.check_bind_form(statement, bind)?;
        let subject = self.subject_of(&statement.signer);
        let mine = |binding: &&Binding| binding.subject == subject && binding.overlaps(bind);
        ensure(self.bindings(number).iter().any(|binding| mine(&binding)), Refusal::NoBinding)
    }

    pub(super) fn bind(&mut self, statement: &Statement, bind: &Bind) {
        let subject = self.subject_of(&statement.signer);
        self.persons.entry(statement.signer).or_insert(subject);
        let Some(number) = self.by_kid.get(&bind.device).copied() else { return };
        let list = self.bindings.entry(number).or_default();
        list.push(Binding {
            device: number,
            subject,
            from_us: bind.from,
            to_us: bind.to,
            statement: statement.id,
        });
        list.sort_by_key(|binding| start(binding.from_us));
    }

    /// Cuts the interval out of the signer's bindings; what lies outside stays theirs.
    pub(super) fn unbind(&mut self, statement: &Statement, bind: &Bind) {
        let subject = self.subject_of(&statement.signer);
        let Some(number) = self.by_kid.get(&bind.device).copied() else { return };
        let list = self.bindings.entry(number).or_default();
        let mut kept = Vec::with_capacity(list.len() + 1);
        for binding in list.drain(..) {
            if binding.subject != subject || !binding.overlaps(bind) {
                kept.push(binding);
                continue;
            }
            if start(binding.from_us) < start(bind.from) {
                kept.push(Binding { to_us: bind.from, ..binding.clone() });
            }
            if end(bind.to) < end(binding.to_us) {
                kept.push(Binding { from_us: bind.to, ..binding });
            }
        }
        *list = kept;
    }
}
