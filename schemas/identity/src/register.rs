//! The register: what all statements so far say about makers, roles, studies, devices, keys and who wears what.
//!
//! A pure fold in log order: the same statements give the same register on every machine. Grants are folded elsewhere
//! (`schemas-consent`); freezes, break-glass and erasures are only checked here for the signer's authority.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::statement::{Body, Enrol, RevokeKey, Role, Rotate, Study};
use crate::{DeviceNumber, Did, PublicKey, ShortId, Statement};

mod bindings;

pub use bindings::Binding;

/// Role whose members may countersign bindings and freeze.
pub const ROLE_REGISTRAR: &str = "registrar";
/// Role whose members may break the glass.
pub const ROLE_CLINICIAN: &str = "clinician";
/// Most devices of a deployment: numbers are u32 and the register is in memory.
pub const DEVICES_MAX: usize = 16_000_000;

/// Why the register does not take a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Makers, roles and studies are named by an operator.
    #[error("the signer is not an operator")]
    NotAnOperator,
    /// Devices are enrolled by a registered maker.
    #[error("the signer is not a registered maker")]
    NotAMaker,
    /// The signer may not say this about that key or person.
    #[error("the signer may not say this")]
    NotAllowed,
    /// Each key has one owner.
    #[error("the key is already known")]
    DuplicateKey,
    /// Two keys with one short id.
    #[error("another device has this short id")]
    ShortIdCollision,
    /// No such device.
    #[error("no such device")]
    UnknownDevice,
    /// No such key.
    #[error("no such key")]
    UnknownKey,
    /// A revoked key says nothing any more.
    #[error("the key is revoked")]
    RevokedKey,
    /// Somebody wears the device then.
    #[error("the device is bound to somebody in that interval")]
    BindingOverlap,
    /// There is nothing of the signer's to unbind.
    #[error("the signer has no binding in that interval")]
    NoBinding,
    /// The interval is empty.
    #[error("`to` is not after `from`")]
    EmptyInterval,
    /// The second signature is neither the device's nor a registrar's.
    #[error("`co` is neither the device's nor a registrar's signature")]
    CoSignature,
    /// [`DEVICES_MAX`].
    #[error("the register is full")]
    Full,
}

impl Refusal {
    /// Stable word for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::NotAnOperator => "not-an-operator",
            Refusal::NotAMaker => "not-a-maker",
            Refusal::NotAllowed => "not-allowed",
            Refusal::DuplicateKey => "duplicate-key",
            Refusal::ShortIdCollision => "short-id-collision",
            Refusal::UnknownDevice => "unknown-device",
            Refusal::UnknownKey => "unknown-key",
            Refusal::RevokedKey => "revoked-key",
            Refusal::BindingOverlap => "binding-overlap",
            Refusal::NoBinding => "no-binding",
            Refusal::EmptyInterval => "empty-interval",
            Refusal::CoSignature => "co-signature",
            Refusal::Full => "register-full",
        }
    }

    /// Whether the statement contradicts what is there, instead of lacking authority.
    pub fn is_conflict(&self) -> bool {
        use Refusal::{BindingOverlap, DuplicateKey, NoBinding, ShortIdCollision};
        matches!(self, DuplicateKey | ShortIdCollision | BindingOverlap | NoBinding)
    }
}

/// A revoked key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// Log index of the statement.
    pub at_index: u64,
    /// Since when others may hold the key, microseconds since 1970.
    pub compromised_from_us: Option<i64>,
}

/// One key of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceKey {
    /// The key.
    pub key: PublicKey,
    /// Log index of its enrolment or rotation.
    pub enrolled_at: u64,
    /// Set once it is dead.
    pub revoked: Option<Revocation>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Dense number, order of enrolment.
    pub number: DeviceNumber,
    /// Its name in SQL for life.
    pub first_id: ShortId,
    /// Oldest first; the last one is current.
    pub keys: Vec<DeviceKey>,
    /// Who vouches for it.
    pub maker: Did,
    /// Model name.
    pub model: String,
    /// Signals it was enrolled for; empty = not said.
    pub signals: Vec<String>,
    /// Compact text of its enrolment, then of each rotation, a line each: what an outsider needs to trust its keys.
    pub enrolment: String,
}

impl Device {
    /// The key in use.
    pub fn current(&self) -> Option<&DeviceKey> {
        self.keys.last()
    }
}

/// The fold.
#[derive(Debug, Clone, Default)]
pub struct Register {
    origin: String,
    operators: BTreeSet<Did>,
    makers: BTreeSet<Did>,
    roles: BTreeMap<String, Role>,
    studies: BTreeMap<String, Study>,
    devices: Vec<Device>,
    by_kid: HashMap<ShortId, DeviceNumber>,
    bindings: HashMap<DeviceNumber, Vec<Binding>>,
    /// New key of a person -> the person's first key.
    persons: HashMap<Did, Did>,
    /// Keys of parties that were rotated away or revoked.
    dead_parties: BTreeSet<Did>,
}

impl Register {
    /// An empty register of a deployment and its operators.
    pub fn new(origin: &str, operators: Vec<Did>) -> Register {
        Register {
            origin: origin.to_owned(),
            operators: operators.into_iter().collect(),
            ..Register::default()
        }
    }

    /// The deployment.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The device with this kid among its keys, old ones included.
    pub fn device_by_kid(&self, kid: ShortId) -> Option<&Device> {
        self.device(*self.by_kid.get(&kid)?)
    }

    /// The device with this number.
    pub fn device(&self, number: DeviceNumber) -> Option<&Device> {
        self.devices.get(number.0 as usize)
    }

    /// All devices, by number.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter()
    }

    /// Who wore a device when: sorted by start, disjoint.
    pub fn bindings(&self, device: DeviceNumber) -> &[Binding] {
        self.bindings.get(&device).map_or(&[], Vec::as_slice)
    }

    /// Who wore a device at a moment.
    pub fn binding_at(&self, device: DeviceNumber, ts_us: i64) -> Option<&Binding> {
        self.bindings(device).iter().find(|binding| binding.covers(ts_us))
    }

    /// A role by name.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name)
    }

    /// All roles.
    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.values()
    }

    /// A study by id.
    pub fn study(&self, id: &str) -> Option<&Study> {
        self.studies.get(id)
    }

    /// All studies.
    pub fn studies(&self) -> impl Iterator<Item = &Study> {
        self.studies.values()
    }

    /// Whether an operator.
    pub fn is_operator(&self, party: &Did) -> bool {
        self.operators.contains(party)
    }

    /// Whether a registered maker.
    pub fn is_maker(&self, party: &Did) -> bool {
        self.makers.contains(party) && self.is_live(party)
    }

    /// All registered makers.
    pub fn makers(&self) -> impl Iterator<Item = &Did> {
        self.makers.iter()
    }

    /// Whether a member of the role (its dates are the caller's to compare with its clock).
    pub fn has_role(&self, party: &Did, role: &str) -> bool {
        self.is_live(party) && self.roles.get(role).is_some_and(|role| role.members.contains(party))
    }

    /// Whether a party's key is neither rotated away nor revoked.
    pub fn is_live(&self, party: &Did) -> bool {
        !self.dead_parties.contains(party)
    }

    /// The person behind a key: the did:key of their first key.
    pub fn subject_of(&self, key: &Did) -> Did {
        self.persons.get(key).copied().unwrap_or(*key)
    }

    /// Whether [`Register::apply`] would take it.
    pub fn check(&self, statement: &Statement) -> Result<(), Refusal> {
        if !self.is_live(&statement.signer) {
            return Err(Refusal::RevokedKey);
        }
        match &statement.body {
            Body::Maker(_) | Body::Role(_) | Body::Study(_) => {
                ensure(self.is_operator(&statement.signer), Refusal::NotAnOperator)
            }
            Body::Enrol(enrol) => self.check_enrol(&statement.signer, enrol),
            Body::Rotate(rotate) => self.check_rotate(&statement.signer, rotate),
            Body::RevokeKey(revoke) => self.check_revoke_key(&statement.signer, revoke),
            Body::Bind(bind) => self.check_bind(statement, bind),
            Body::Unbind(bind) => self.check_unbind(statement, bind),
            Body::Grant(grant) | Body::Deny(grant) => ensure(
                self.subject_of(&statement.signer) == self.subject_of(&grant.subject),
                Refusal::NotAllowed,
            ),
            Body::Revoke(revoke) => {
                let subject = revoke.subject.unwrap_or(statement.signer);
                ensure(self.subject_of(&statement.signer) == self.subject_of(&subject), Refusal::NotAllowed)
            }
            Body::Freeze(_) => {
                let registrar = self.has_role(&statement.signer, ROLE_REGISTRAR);
                ensure(registrar || self.is_operator(&statement.signer), Refusal::NotAllowed)
            }
            Body::BreakGlass(_) => {
                ensure(self.has_role(&statement.signer, ROLE_CLINICIAN), Refusal::NotAllowed)
            }
            Body::Erase(_) => Ok(()),
        }
    }

    /// Folds one statement in; nothing changes when it is refused.
    pub fn apply(&mut self, statement: &Statement, log_index: u64) -> Result<(), Refusal> {
        self.check(statement)?;
        match &statement.body {
            Body::Maker(maker) => drop(self.makers.insert(maker.party)),
            Body::Role(role) => drop(self.roles.insert(role.role.clone(), role.clone())),
            Body::Study(study) => drop(self.studies.insert(study.study.clone(), study.clone())),
            Body::Enrol(enrol) => self.enrol(statement, enrol, log_index),
            Body::Rotate(rotate) => self.rotate(statement, rotate, log_index),
            Body::RevokeKey(revoke) => self.revoke_key(revoke, log_index),
            Body::Bind(bind) => self.bind(statement, bind),
            Body::Unbind(bind) => self.unbind(statement, bind),
            Body::Grant(_) | Body::Deny(_) | Body::Revoke(_) => {}
            Body::Freeze(_) | Body::BreakGlass(_) | Body::Erase(_) => {}
        }
        Ok(())
    }

    fn check_new_device_key(&self, key: &Did) -> Result<(), Refusal> {
        let party =
            self.operators.contains(key) || self.makers.contains(key) || self.persons.contains_key(key);
        if let Some(device) = self.device_by_kid(key.key().short_id()) {
            let same = device.keys.iter().any(|known| known.key == *key.key());
            return Err(if same { Refusal::DuplicateKey } else { Refusal::ShortIdCollision });
        }
        ensure(!party, Refusal::DuplicateKey)
    }

    fn check_enrol(&self, signer: &Did, enrol: &Enrol) -> Result<(), Refusal> {
        ensure(self.is_maker(signer), Refusal::NotAMaker)?;
        ensure(enrol.device_key != *signer, Refusal::DuplicateKey)?;
        ensure(self.devices.len() < DEVICES_MAX, Refusal::Full)?;
        self.check_new_device_key(&enrol.device_key)
    }

    fn enrol(&mut self, statement: &Statement, enrol: &Enrol, log_index: u64) {
        let key = *enrol.device_key.key();
        let number = DeviceNumber(self.devices.len() as u32);
        self.by_kid.insert(key.short_id(), number);
        self.devices.push(Device {
            number,
            first_id: key.short_id(),
            keys: vec![DeviceKey { key, enrolled_at: log_index, revoked: None }],
            maker: statement.signer,
            model: enrol.model.clone(),
            signals: enrol.signals.clone(),
            enrolment: statement.compact.clone(),
        });
    }

    fn check_rotate(&self, signer: &Did, rotate: &Rotate) -> Result<(), Refusal> {
        if let Some(device) = self.device_of_key(&rotate.old) {
            ensure(*signer == device.maker, Refusal::NotAMaker)?;
            ensure(
                device.current().is_some_and(|current| current.key == *rotate.old.key()),
                Refusal::UnknownKey,
            )?;
            return self.check_new_device_key(&rotate.new);
        }
        ensure(*signer == rotate.old, Refusal::NotAllowed)?;
        let taken = self.device_of_key(&rotate.new).is_some() || self.persons.contains_key(&rotate.new);
        ensure(!taken && rotate.new != rotate.old && self.is_live(&rotate.new), Refusal::DuplicateKey)
    }

    fn rotate(&mut self, statement: &Statement, rotate: &Rotate, log_index: u64) {
        let Some(number) = self.device_of_key(&rotate.old).map(|device| device.number) else {
            let person = self.subject_of(&rotate.old);
            self.persons.insert(rotate.new, person);
            self.dead_parties.insert(rotate.old);
            return;
        };
        self.by_kid.insert(rotate.new.key().short_id(), number);
        if let Some(device) = self.devices.get_mut(number.0 as usize) {
            device.keys.push(DeviceKey { key: *rotate.new.key(), enrolled_at: log_index, revoked: None });
            device.enrolment.push('\n');
            device.enrolment.push_str(&statement.compact);
        }
    }

    fn check_revoke_key(&self, signer: &Did, revoke: &RevokeKey) -> Result<(), Refusal> {
        let itself = *signer == revoke.key;
        match self.device_of_key(&revoke.key) {
            Some(device) => {
                ensure(itself || *signer == device.maker || self.is_operator(signer), Refusal::NotAllowed)
            }
            None => ensure(itself || self.is_operator(signer), Refusal::NotAllowed),
        }
    }

    fn revoke_key(&mut self, revoke: &RevokeKey, log_index: u64) {
        let revocation = Revocation { at_index: log_index, compromised_from_us: revoke.compromised_from };
        let Some(number) = self.device_of_key(&revoke.key).map(|device| device.number) else {
            self.dead_parties.insert(revoke.key);
            return;
        };
        let keys = self.devices.get_mut(number.0 as usize).map(|device| &mut device.keys);
        for key in keys.into_iter().flatten().filter(|key| key.key == *revoke.key.key()) {
            key.revoked.get_or_insert(revocation);
        }
    }

    fn device_of_key(&self, key: &Did) -> Option<&Device> {
        let device = self.device_by_kid(key.key().short_id())?;
        device.keys.iter().any(|known| known.key == *key.key()).then_some(device)
    }
}

fn ensure(condition: bool, refusal: Refusal) -> Result<(), Refusal> {
    if condition { Ok(()) } else { Err(refusal) }
}

#[cfg(test)]
mod tests;
