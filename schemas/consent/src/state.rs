//! The consent of all subjects as a pure fold over their statements in log order.
//!
//! What it keeps per subject: the head of the chain, grants and denies in force, those that ended, a freeze, break-glass
//! openings, an erasure. What it is not: a store (statements live in the book) or a clock (time only enters a decision).
//! Cloning is cheap: subjects are shared and copied only when changed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use schemas_identity::register::{ROLE_CLINICIAN, ROLE_REGISTRAR};
use schemas_identity::statement::RevokeTarget;
use schemas_identity::{Body, Did, Register, Statement, StatementId};
use schemas_signals::{Registry, SignalSet};

use crate::grant::{Grant, Grantee};
use crate::refusal::Refusal;
use crate::terms::Period;

/// Most grants, and most denies, of one subject in force at the same time. Revoking makes room.
pub const IN_FORCE_MAX: usize = 256;
/// Most break-glass openings kept per subject; the oldest closes when one more comes.
pub const EMERGENCIES_MAX: usize = 64;
/// How long a break-glass opening lasts, in microseconds: 4 hours from the statement's own time.
pub const EMERGENCY_US: i64 = 4 * 3_600 * 1_000_000;
/// The class of signals that break-glass opens.
pub const EMERGENCY_CLASS: &str = "vitals";
/// The role whose members may break the glass.
pub const EMERGENCY_ROLE: &str = ROLE_CLINICIAN;

/// What everybody's statements add up to.
#[derive(Debug, Clone, Default)]
pub struct ConsentState {
    subjects: HashMap<Did, Arc<SubjectConsent>>,
    /// Who was ever named by whom, so that a request looks only at subjects that concern it. Never shrinks.
    named: HashMap<Grantee, Arc<BTreeSet<Did>>>,
    /// The same for clinicians who broke the glass.
    opened: HashMap<Did, Arc<BTreeSet<Did>>>,
}

/// What one subject's statements add up to.
#[derive(Debug, Clone, Default)]
pub struct SubjectConsent {
    head: Option<StatementId>,
    taken: HashSet<StatementId>,
    grants: Vec<Grant>,
    denies: Vec<Grant>,
    ended: Vec<Ended>,
    frozen: Option<Freeze>,
    emergencies: Vec<Emergency>,
    erased: Option<StatementId>,
}

/// A grant that was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What it allowed.
    pub grant: Grant,
    /// The revocation.
    pub by: StatementId,
    /// The revocation's place in the log.
    pub log_index: u64,
}

/// A stop of all access to a subject, until the subject signs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freeze {
    /// The statement.
    pub statement: StatementId,
    /// Its place in the log.
    pub log_index: u64,
}

/// A break-glass opening: one clinician, one subject, the vitals, four hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emergency {
    /// The statement.
    pub statement: StatementId,
    /// Its place in the log.
    pub log_index: u64,
    /// Who broke the glass.
    pub clinician: Did,
    /// While open.
    pub window: Period,
    /// Why, in the clinician's words.
    pub reason: String,
}

/// The signals that break-glass opens.
pub(crate) fn emergency_signals() -> SignalSet {
    static SIGNALS: LazyLock<SignalSet> = LazyLock::new(|| Registry::builtin().resolve(EMERGENCY_CLASS));
    *SIGNALS
}

impl SubjectConsent {
    /// The newest grant, deny or revoke: what the next one's `prev` must be.
    pub fn head(&self) -> Option<StatementId> {
        self.head
    }

    /// Grants not revoked, in log order. They may still be out of their validity.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// Denies not withdrawn, in log order.
    pub fn denies(&self) -> &[Grant] {
        &self.denies
    }

    /// Grants that were revoked, in the order of revocation.
    pub fn ended(&self) -> &[Ended] {
        &self.ended
    }

    /// The freeze in force, if any.
    pub fn frozen(&self) -> Option<Freeze> {
        self.frozen
    }

    /// Break-glass openings, newest last. They may be over.
    pub fn emergencies(&self) -> &[Emergency] {
        &self.emergencies
    }

    /// The erasure, if any. Whatever its scope says, nobody sees an erased subject any more.
    pub fn erased(&self) -> Option<StatementId> {
        self.erased
    }

    fn owns(&self, id: &StatementId) -> bool {
        let is_ended = self.ended.iter().any(|ended| ended.grant.id == *id);
        is_ended || self.grants.iter().any(|grant| grant.id == *id) || self.denies_id(id)
    }

    fn denies_id(&self, id: &StatementId) -> bool {
        self.denies.iter().any(|deny| deny.id == *id)
    }
}

/// A statement that passed every check, in the shape the fold applies.
enum Change {
    Grant(Grant),
    Deny(Grant),
    Revoke(RevokeTarget),
    Freeze,
    Emergency { clinician: Did, reason: String },
    Erase,
}

impl ConsentState {
    /// Nobody has said anything yet.
    pub fn new() -> ConsentState {
        ConsentState::default()
    }

    /// One subject's consent, by its id (the did:key of its first key).
    pub fn subject(&self, subject: &Did) -> Option<&SubjectConsent> {
        self.subjects.get(subject).map(Arc::as_ref)
    }

    /// The subject's newest grant, deny or revoke.
    pub fn head(&self, subject: &Did) -> Option<StatementId> {
        self.subject(subject)?.head
    }

    /// Subjects that ever said something to a grantee, in force or not.
    pub fn naming(&self, grantee: &Grantee) -> impl Iterator<Item = &Did> {
        self.named.get(grantee).into_iter().flat_map(|subjects| subjects.iter())
    }

    /// Whether a subject ever said something to a grantee.
    pub fn names(&self, grantee: &Grantee, subject: &Did) -> bool {
        self.named.get(grantee).is_some_and(|subjects| subjects.contains(subject))
    }

    /// Whether a clinician ever broke the glass for a subject.
    pub fn is_opened_by(&self, clinician: &Did, subject: &Did) -> bool {
        self.opened.get(clinician).is_some_and(|subjects| subjects.contains(subject))
    }

    /// Every grantee that was ever named.
    pub fn grantees(&self) -> impl Iterator<Item = &Grantee> {
        self.named.keys()
    }

    /// Subjects for whom a clinician ever broke the glass.
    pub fn opened_by(&self, clinician: &Did) -> impl Iterator<Item = &Did> {
        self.opened.get(clinician).into_iter().flat_map(|subjects| subjects.iter())
    }

    /// Whether the statement would be taken now. Kinds that are not consent are none of this fold's business: fine.
    /// `register` is the register as it stands before the statement.
    pub fn check(&self, register: &Register, statement: &Statement) -> Result<(), Refusal> {
        self.plan(register, statement, 0).map(|_| ())
    }

    /// Takes the statement, or refuses it and stays as it was.
    pub fn apply(
        &mut self,
        register: &Register,
        statement: &Statement,
        log_index: u64,
    ) -> Result<(), Refusal> {
        let Some((subject, change)) = self.plan(register, statement, log_index)? else { return Ok(()) };
        self.index(subject, &change);
        let consent = Arc::make_mut(self.subjects.entry(subject).or_default());
        consent.take(statement, change, log_index);
        Ok(())
    }

    /// Whom a statement is about and what it would change; nothing if it is not about consent.
    fn plan(
        &self,
        register: &Register,
        statement: &Statement,
        log_index: u64,
    ) -> Result<Option<(Did, Change)>, Refusal> {
        let signer = register.subject_of(&statement.signer);
        let id = statement.id;
        let (subject, change) = match &statement.body {
            Body::Grant(body) => {
                self.own_chain(signer, register.subject_of(&body.subject), body.prev)?;
                (
                    signer,
                    Change::Grant(self.room_for_grant(Grant::from_grant(body, id, log_index)?.of(signer))?),
                )
            }
            Body::Deny(body) => {
                own(signer, register.subject_of(&body.subject))?;
                (signer, Change::Deny(self.room_for_deny(Grant::from_deny(body, id, log_index)?.of(signer))?))
            }
            Body::Revoke(body) => {
                own(signer, register.subject_of(&body.subject.unwrap_or(signer)))?;
                self.may_revoke(&signer, body.grant, body.prev)?;
                (signer, Change::Revoke(body.grant))
            }
            Body::Freeze(body) => {
                if !register.is_operator(&statement.signer)
                    && !register.has_role(&statement.signer, ROLE_REGISTRAR)
                {
                    return Err(Refusal::NotAuthorised { needed: "an operator or registrar" });
                }
                (register.subject_of(&body.subject), Change::Freeze)
            }
            Body::BreakGlass(body) => {
                if !register.has_role(&statement.signer, EMERGENCY_ROLE) {
                    return Err(Refusal::NotAuthorised { needed: "a clinician" });
                }
                let subject = register.subject_of(&body.subject);
                self.not_stopped(&subject)?;
                (subject, Change::Emergency { clinician: signer, reason: body.reason.clone() })
            }
            Body::Erase(_) => (signer, Change::Erase),
            _ => return Ok(None),
        };
        match self.subject(&subject) {
            Some(consent) if consent.taken.contains(&id) => Err(Refusal::Replayed { id }),
            _ => Ok(Some((subject, change))),
        }
    }

    fn own_chain(&self, signer: Did, subject: Did, prev: Option<StatementId>) -> Result<(), Refusal> {
        own(signer, subject)?;
        let Some(consent) = self.subject(&subject) else {
            return if prev.is_none() { Ok(()) } else { Err(Refusal::StalePrev { head: None }) };
        };
        if consent.erased.is_some() {
            return Err(Refusal::Erased);
        }
        if consent.head != prev {
            return Err(Refusal::StalePrev { head: consent.head });
        }
        Ok(())
    }

    fn not_stopped(&self, subject: &Did) -> Result<(), Refusal> {
        match self.subject(subject) {
            Some(consent) if consent.erased.is_some() => Err(Refusal::Erased),
            Some(consent) if consent.frozen.is_some() => Err(Refusal::Frozen),
            _ => Ok(()),
        }
    }

    fn room_for_grant(&self, grant: Grant) -> Result<Grant, Refusal> {
        match self.subject(&grant.subject) {
            Some(consent) if consent.grants.len() >= IN_FORCE_MAX => {
                Err(Refusal::TooMany { what: "grants in force", max: IN_FORCE_MAX })
            }
            _ => Ok(grant),
        }
    }

    fn room_for_deny(&self, deny: Grant) -> Result<Grant, Refusal> {
        match self.subject(&deny.subject) {
            Some(consent) if consent.denies.len() >= IN_FORCE_MAX => {
                Err(Refusal::TooMany { what: "denies in force", max: IN_FORCE_MAX })
            }
            _ => Ok(deny),
        }
    }

    /// Whether a revocation may be taken. One of a grant always is; withdrawing a deny opens something, so it needs a
    /// current `prev`.
    fn may_revoke(
        &self,
        subject: &Did,
        target: RevokeTarget,
        prev: Option<StatementId>,
    ) -> Result<(), Refusal> {
        let RevokeTarget::One(id) = target else { return Ok(()) };
        let Some(consent) = self.subject(subject) else { return Err(Refusal::UnknownGrant { id }) };
        if !consent.owns(&id) {
            return Err(Refusal::UnknownGrant { id });
        }
        if consent.denies_id(&id) && consent.head != prev {
            return Err(Refusal::StalePrev { head: consent.head });
        }
        Ok(())
    }

    fn index(&mut self, subject: Did, change: &Change) {
        match change {
            Change::Grant(rule) | Change::Deny(rule) => {
                Arc::make_mut(self.named.entry(rule.grantee.clone()).or_default()).insert(subject);
            }
            Change::Emergency { clinician, .. } => {
                Arc::make_mut(self.opened.entry(*clinician).or_default()).insert(subject);
            }
            Change::Revoke(_) | Change::Freeze | Change::Erase => {}
        }
    }
}

fn own(signer: Did, subject: Did) -> Result<(), Refusal> {
    if signer == subject { Ok(()) } else { Err(Refusal::NotTheSubject { subject }) }
}

impl SubjectConsent {
    fn take(&mut self, statement: &Statement, change: Change, log_index: u64) {
        let id = statement.id;
        self.taken.insert(id);
        match change {
            Change::Grant(grant) => self.grants.push(grant),
            Change::Deny(deny) => self.denies.push(deny),
            Change::Revoke(RevokeTarget::All) => self.end(|_| true, id, log_index),
            Change::Revoke(RevokeTarget::One(target)) => {
                self.end(|grant| grant.id == target, id, log_index);
                self.denies.retain(|deny| deny.id != target);
            }
            Change::Freeze => {
                self.frozen = Some(Freeze { statement: id, log_index });
                return;
            }
            Change::Emergency { clinician, reason } => {
                self.open(Emergency {
                    statement: id,
                    log_index,
                    clinician,
                    window: window(statement),
                    reason,
                });
                return;
            }
            Change::Erase => {
                self.erased = Some(id);
                return;
            }
        }
        // Only the subject's own grants, denies and revocations come this far: they form the chain and end a freeze.
        self.head = Some(id);
        self.frozen = None;
    }

    fn end(&mut self, is_ended: impl Fn(&Grant) -> bool, by: StatementId, log_index: u64) {
        let (ended, kept) =
            std::mem::take(&mut self.grants).into_iter().partition::<Vec<_>, _>(|g| is_ended(g));
        self.grants = kept;
        self.ended.extend(ended.into_iter().map(|grant| Ended { grant, by, log_index }));
    }

    fn open(&mut self, emergency: Emergency) {
        if self.emergencies.len() >= EMERGENCIES_MAX {
            self.emergencies.remove(0);
        }
        self.emergencies.push(emergency);
    }
}

fn window(statement: &Statement) -> Period {
    let from_us = statement.iat_s.saturating_mul(1_000_000);
    Period { from_us, to_us: from_us.saturating_add(EMERGENCY_US) }
}
