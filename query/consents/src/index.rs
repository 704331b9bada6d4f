//! The fold: statements in log order become an immutable snapshot with an epoch.
//!
//! Writers fold into a working copy under a lock and bump the epoch before they return. Readers take the newest snapshot;
//! it is cut from the working copy when somebody asks and the epoch has moved, so that a start with a million statements
//! copies nothing. A revocation is therefore in force for the very next warrant, and `Changes` tells running ones.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use schemas_consent::{Asker, ConsentState, Grantee, Request, named_subjects, terms};
use schemas_identity::{Body, Did, Register, Statement};
use thiserror::Error;

use crate::ask::{Ask, Refusal};
use crate::basis::Basis;
use crate::ended::Ended;
use crate::pseudonym::DeploymentSecret;
use crate::warrant::{Source, Warrant};

/// Consent as of one epoch.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) register: Arc<Register>,
    pub(crate) consent: Arc<ConsentState>,
    pub(crate) epoch: u64,
}

/// The live index. Share it in an `Arc`.
pub struct Consents {
    working: Mutex<Working>,
    current: ArcSwap<Snapshot>,
    changes: Arc<Changes>,
    source: Source,
}

struct Working {
    register: Arc<Register>,
    consent: Arc<ConsentState>,
}

/// What a change may touch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Touched {
    /// A subject, or a party by its first key.
    Party(Did),
    /// A role's or study's members or terms.
    Group(Grantee),
}

/// Changes kept in order; about 100 bytes each.
const RECENT_MAX: usize = 65_536;

/// What changed when, for running queries and for what is kept of earlier ones.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    epoch: AtomicU64,
    noted: RwLock<Noted>,
    /// Tokens end apart from epochs: an epoch is a statement's.
    pub(crate) ended: Ended,
}

#[derive(Debug, Default)]
struct Noted {
    /// When each thing last changed. Entries are never removed: one per subject, role and study.
    last: HashMap<Touched, u64>,
    /// The newest changes in order, oldest first.
    recent: VecDeque<(u64, Touched)>,
    /// The newest epoch that `recent` has lost a change of.
    forgotten: u64,
}

impl Noted {
    /// Changes after an epoch, the newest first; nothing if some of them are forgotten.
    fn since(&self, epoch: u64) -> Option<impl Iterator<Item = &Touched>> {
        let newer = self.recent.iter().rev().take_while(move |(changed, _)| *changed > epoch);
        (epoch >= self.forgotten).then(|| newer.map(|(_, touched)| touched))
    }
}

impl Changes {
    /// The newest epoch: one atomic load.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Whether anything a basis rests on changed after `epoch`.
    pub(crate) fn touched_since(&self, epoch: u64, basis: &Basis) -> bool {
        let noted = self.noted.read();
        match noted.since(epoch) {
            Some(mut changes) => changes.any(|touched| basis.rests_on(touched)),
            None => basis.all().any(|thing| noted.last.get(&thing).is_some_and(|changed| *changed > epoch)),
        }
    }

    /// People who said something after `epoch`; nothing if that is not known, or they are more than `most`.
    pub(crate) fn people_since(&self, epoch: u64, most: usize) -> Option<BTreeSet<Did>> {
        let noted = self.noted.read();
        let mut people = BTreeSet::new();
        for touched in noted.since(epoch)? {
            match touched {
                Touched::Party(party) => people.insert(*party),
                Touched::Group(_) => return None,
            };
            if people.len() > most {
                return None;
            }
        }
        Some(people)
    }

    fn note(&self, things: Vec<Touched>, epoch: u64) {
        let mut noted = self.noted.write();
        for thing in things {
            noted.last.insert(thing.clone(), epoch);
            noted.recent.push_back((epoch, thing));
        }
        while noted.recent.len() > RECENT_MAX {
            noted.forgotten = noted.recent.pop_front().map_or(epoch, |(lost, _)| lost);
        }
        drop(noted);
        // After the notes: whoever sees the new epoch finds the change that made it.
        self.epoch.store(epoch, Ordering::Release);
    }
}

/// A statement did not fit the state folded so far.
///
/// Statements come here only after the book took them, so this means that book and index disagree: stop serving.
#[derive(Debug, Error)]
pub enum FoldError {
    /// The register refused it.
    #[error("the register refuses the statement at log index {log_index}")]
    Register {
        /// Its place in the log.
        log_index: u64,
        /// Why.
        #[source]
        source: schemas_identity::register::Refusal,
    },
    /// The consent state refused it.
    #[error("the consent state refuses the statement at log index {log_index}")]
    Consent {
        /// Its place in the log.
        log_index: u64,
        /// Why.
        #[source]
        source: schemas_consent::Refusal,
    },
    /// Epochs must rise.
    #[error("epoch {epoch} does not follow {current}")]
    Epoch {
        /// The statement's.
        epoch: u64,
        /// The newest so far.
        current: u64,
    },
}

impl Consents {
    /// An empty index for a deployment.
    pub fn new(origin: &str, operators: Vec<Did>, secret: &[u8; 32]) -> Consents {
        let register = Arc::new(Register::new(origin, operators));
        let consent = Arc::new(ConsentState::new());
        let snapshot = Snapshot { register: Arc::clone(&register), consent: Arc::clone(&consent), epoch: 0 };
        let changes = Arc::new(Changes::default());
        let secret = DeploymentSecret::new(secret);
        Consents {
            working: Mutex::new(Working { register, consent }),
            current: ArcSwap::from_pointee(snapshot),
            source: Source { changes: Arc::clone(&changes), bases: Arc::default(), secret },
            changes,
        }
    }

    /// Folds one statement in. When it returns, the next warrant rests on it and running ones it touches are not current.
    ///
    /// `epoch` rises with every statement. A refusal leaves the index as it was.
    pub fn apply(&self, statement: &Statement, log_index: u64, epoch: u64) -> Result<(), FoldError> {
        let mut working = self.working.lock();
        let current = self.changes.epoch();
        if epoch <= current {
            return Err(FoldError::Epoch { epoch, current });
        }
        working.register.check(statement).map_err(|source| FoldError::Register { log_index, source })?;
        working
            .consent
            .check(&working.register, statement)
            .map_err(|source| FoldError::Consent { log_index, source })?;
        let touched = touched(&working.register, statement);
        let before = Arc::clone(&working.register);
        Arc::make_mut(&mut working.consent)
            .apply(&before, statement, log_index)
            .map_err(|source| FoldError::Consent { log_index, source })?;
        drop(before);
        if concerns_register(&statement.body) {
            Arc::make_mut(&mut working.register)
                .apply(statement, log_index)
                .map_err(|source| FoldError::Register { log_index, source })?;
        }
        self.changes.note(touched, epoch);
        Ok(())
    }

    /// The newest epoch.
    pub fn epoch(&self) -> u64 {
        self.changes.epoch()
    }

    /// The register as of now.
    pub fn register(&self) -> Arc<Register> {
        Arc::clone(&self.snapshot().register)
    }

    /// The consent state as of now.
    pub fn consent(&self) -> Arc<ConsentState> {
        Arc::clone(&self.snapshot().consent)
    }

    /// Tokens that ended before their time.
    pub fn ended(&self) -> &Ended {
        &self.changes.ended
    }

    /// Whether a party's key is neither rotated away nor revoked, as of now; cuts no snapshot for it.
    pub fn is_live(&self, party: &Did) -> bool {
        self.working.lock().register.is_live(party)
    }

    /// Makes the warrant for a request: what it may see as of now. Without any grant it is empty, which is no error.
    pub fn warrant(&self, ask: Ask<'_>) -> Result<Warrant, Refusal> {
        let (principal, purpose, study) = ask.narrowed()?;
        if !terms::is_purpose(purpose) {
            return Err(Refusal::UnknownPurpose);
        }
        let snapshot = self.snapshot();
        if !snapshot.register.is_live(&principal) {
            return Err(Refusal::KeyRevoked);
        }
        // Asked again here: since the door looked at the token, its body took its time to arrive.
        if self.changes.ended.is_ended(ask.token) {
            return Err(Refusal::TokenRevoked);
        }
        if let Some(study) = study {
            let asker = Asker::new(&snapshot.register, &principal, ask.token.vouched.as_deref());
            study_open(&snapshot.register, study, &asker, ask.now_us)?;
        }
        let request = Request {
            principal,
            vouched: ask.token.vouched.clone(),
            purpose: purpose.to_owned(),
            study: study.map(str::to_owned),
            resolution: ask.resolution,
            use_: ask.use_,
            now_us: ask.now_us,
        };
        Ok(Warrant::make(snapshot, self.source.clone(), request, ask.token.clone()))
    }

    /// Subjects who ever said something to the one who asks. For audit, never for the one who asks.
    pub fn named(&self, request: &Request) -> Vec<Did> {
        let snapshot = self.snapshot();
        named_subjects(&snapshot.consent, &snapshot.register, request).into_iter().collect()
    }

    /// What a request may see, out of what is kept where that is still true.
    #[cfg(test)]
    pub(crate) fn kept(&self, snapshot: &Arc<Snapshot>, request: &Request) -> Arc<Basis> {
        self.source.bases.of(snapshot, &self.changes, request)
    }

    /// As if more changes had come than are kept in order.
    #[cfg(test)]
    pub(crate) fn forget_order(&self) {
        let mut noted = self.changes.noted.write();
        noted.forgotten = noted.recent.drain(..).map(|(epoch, _)| epoch).max().unwrap_or(0);
    }

    /// The newest snapshot, cut now if statements came since the last one.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        let known = self.current.load_full();
        if known.epoch == self.changes.epoch() {
            return known;
        }
        let working = self.working.lock();
        let cut = Arc::new(Snapshot {
            register: Arc::clone(&working.register),
            consent: Arc::clone(&working.consent),
            epoch: self.changes.epoch(),
        });
        // Stored under the lock, so that an older cut can never replace a newer one.
        self.current.store(Arc::clone(&cut));
        cut
    }
}

/// Whether the study exists, is running and has this member.
fn study_open(register: &Register, study: &str, asker: &Asker<'_>, now_us: i64) -> Result<(), Refusal> {
    let study = register.study(study).ok_or(Refusal::StudyClosed)?;
    let running = schemas_consent::Period::new(study.from, study.to);
    if asker.is_in_study(study) && running.contains(now_us) { Ok(()) } else { Err(Refusal::StudyClosed) }
}

/// Whether the register keeps anything of this kind; the consent kinds leave it as it is and need no copy of it.
fn concerns_register(body: &Body) -> bool {
    !matches!(
        body,
        Body::Grant(_)
            | Body::Deny(_)
            | Body::Revoke(_)
            | Body::Freeze(_)
            | Body::BreakGlass(_)
            | Body::Erase(_)
    )
}

/// Everything a statement may change for a running query. `register` is the one before it, which knows who loses by it.
fn touched(register: &Register, statement: &Statement) -> Vec<Touched> {
    let party = |did: &Did| Touched::Party(register.subject_of(did));
    let signer = party(&statement.signer);
    match &statement.body {
        Body::Role(body) => vec![Touched::Group(Grantee::Role(body.role.clone()))],
        Body::Study(body) => vec![Touched::Group(Grantee::Study(body.study.clone()))],
        Body::Freeze(body) => vec![party(&body.subject)],
        Body::BreakGlass(body) => vec![party(&body.subject)],
        Body::RevokeKey(body) => vec![Touched::Party(body.key), party(&body.key)],
        Body::Rotate(body) => vec![Touched::Party(body.old), party(&body.old), party(&body.new)],
        Body::Bind(body) => with_wearers(register, &body.device, signer),
        Body::Unbind(body) => with_wearers(register, &body.device, signer),
        Body::Grant(_) | Body::Deny(_) | Body::Revoke(_) | Body::Erase(_) => vec![signer],
        Body::Maker(_) | Body::Enrol(_) => Vec::new(),
    }
}

/// The signer and all who wear or wore the device: a change of who wore it when may take from any of them.
fn with_wearers(register: &Register, device: &schemas_identity::ShortId, signer: Touched) -> Vec<Touched> {
    let mut touched = vec![signer];
    if let Some(device) = register.device_by_kid(*device) {
        let bindings = register.bindings(device.number).iter();
        touched.extend(bindings.map(|binding| Touched::Party(register.subject_of(&binding.subject))));
    }
    touched
}
