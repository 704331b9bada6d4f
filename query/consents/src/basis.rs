//! What a request may see, worked out once and kept: with a hundred thousand people that is too much to do for each query.
//!
//! A [`Basis`] is made of one snapshot of consent. It is used again only while nobody said anything and no instant passed at
//! which the answer changes by time alone; when some people said something new, only their part is worked out anew. So a
//! revocation is in force for the very next warrant, as without it: a property test compares every kept basis with one made
//! from nothing.
//!
//! | limit | value | beyond it |
//! |---|---|---|
//! | kept ([`KEPT_MAX`]) | 64 | the one unused longest goes |
//! | spans of all kept ([`KEPT_SPANS_MAX`]) | 1,000,000 | the same |
//! | people worked out anew in one kept ([`PATCHED_MAX`]) | 1,024 | made from nothing |

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use schemas_consent::state::EMERGENCY_ROLE;
use schemas_consent::{
    Grantee, Request, Span, SubjectConsent, compile, compile_some, horizon, named_among, named_subjects,
    steady_until,
};
use schemas_identity::{Did, StatementId};

use crate::index::{Changes, Snapshot, Touched};

/// Most bases kept.
pub const KEPT_MAX: usize = 64;
/// Most spans in all that are kept (about 100 bytes each).
pub const KEPT_SPANS_MAX: usize = 1_000_000;
/// Most people whose part of a kept basis is replaced.
pub const PATCHED_MAX: usize = 1_024;

/// What one party may see for one purpose, study, use and resolution.
#[derive(Debug)]
pub struct Basis {
    /// Disjoint, sorted by device, then time.
    spans: Vec<Span>,
    /// Whose data that is, ascending.
    subjects: Vec<Did>,
    /// People who said something to the one who asks, but of whom nothing may be seen, ascending.
    withheld: Vec<Did>,
    /// Besides the subjects, what must not change.
    others: Vec<Touched>,
    /// When something of it ends by time.
    until_us: i64,
    /// When the answer may change by time in any way.
    steady_until_us: i64,
}

impl Basis {
    /// From nothing.
    pub(crate) fn new(snapshot: &Snapshot, request: &Request) -> Basis {
        let (consent, register) = (&snapshot.consent, &snapshot.register);
        let spans = compile(consent, register, request);
        let seen: BTreeSet<Did> = spans.iter().map(|span| span.subject).collect();
        let named = named_subjects(consent, register, request);
        let used: HashSet<StatementId> = spans.iter().filter_map(|span| span.grant).collect();
        let mut groups: BTreeSet<Grantee> = request.study.iter().cloned().map(Grantee::Study).collect();
        for subject in seen.iter().filter_map(|subject| consent.subject(subject)) {
            groups.extend(groups_of(subject, &used));
        }
        let principal = register.subject_of(&request.principal);
        let mut others = vec![Touched::Party(request.principal), Touched::Party(principal)];
        others.extend(groups.into_iter().map(Touched::Group));
        let mut concerned = named.clone();
        concerned.insert(principal);
        Basis {
            until_us: horizon(consent, register, request, &seen),
            steady_until_us: steady_until(consent, register, request, &concerned),
            withheld: named.difference(&seen).copied().collect(),
            subjects: seen.into_iter().collect(),
            spans,
            others,
        }
    }

    /// The same after some people said something new.
    fn patched(&self, snapshot: &Snapshot, request: &Request, changed: &BTreeSet<Did>) -> Basis {
        let (consent, register) = (&snapshot.consent, &snapshot.register);
        let fresh = compile_some(consent, register, request, changed);
        let seen: BTreeSet<Did> = fresh.iter().map(|span| span.subject).collect();
        let named = named_among(consent, register, request, changed);
        let used: HashSet<StatementId> = fresh.iter().filter_map(|span| span.grant).collect();
        let mut others = self.others.clone();
        for subject in seen.iter().filter_map(|subject| consent.subject(subject)) {
            others.extend(groups_of(subject, &used).map(Touched::Group));
        }
        others.sort_unstable();
        others.dedup();
        let until_us = horizon(consent, register, request, &seen);
        let steady_until_us = steady_until(consent, register, request, changed);
        Basis {
            spans: merged_spans(&self.spans, fresh, changed),
            subjects: merged(&self.subjects, &seen, changed),
            withheld: merged(&self.withheld, &named.difference(&seen).copied().collect(), changed),
            others,
            until_us: self.until_us.min(until_us),
            steady_until_us: self.steady_until_us.min(steady_until_us),
        }
    }

    /// What may be seen: disjoint, sorted by device, then time.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Whose data that is, ascending.
    pub(crate) fn subjects(&self) -> &[Did] {
        &self.subjects
    }

    /// People who said something to the one who asks, but of whom nothing may be seen, ascending.
    pub(crate) fn withheld(&self) -> &[Did] {
        &self.withheld
    }

    /// The first instant at which something of it ends by time.
    pub(crate) fn until_us(&self) -> i64 {
        self.until_us
    }

    /// Whether a change of this takes from it.
    pub(crate) fn rests_on(&self, touched: &Touched) -> bool {
        let is_subject = match touched {
            Touched::Party(party) => self.subjects.binary_search(party).is_ok(),
            Touched::Group(_) => false,
        };
        is_subject || self.others.contains(touched)
    }

    /// Everything it rests on.
    pub(crate) fn all(&self) -> impl Iterator<Item = Touched> + '_ {
        self.subjects.iter().copied().map(Touched::Party).chain(self.others.iter().cloned())
    }

    /// Whether any of these people has a part in it, or would have one.
    fn concerns(&self, snapshot: &Snapshot, request: &Request, changed: &BTreeSet<Did>) -> bool {
        let principal = snapshot.register.subject_of(&request.principal);
        changed.iter().any(|subject| {
            *subject == principal
                || self.subjects.binary_search(subject).is_ok()
                || self.withheld.binary_search(subject).is_ok()
        }) || !named_among(&snapshot.consent, &snapshot.register, request, changed).is_empty()
    }
}

/// Roles on whose members the answer for a subject rests: of grants used, of any deny, of break-glass.
fn groups_of<'c>(
    consent: &'c SubjectConsent,
    used: &'c HashSet<StatementId>,
) -> impl Iterator<Item = Grantee> + 'c {
    let grants = consent.grants().iter().filter(|grant| used.contains(&grant.id));
    let rules = grants.chain(consent.denies()).map(|rule| &rule.grantee);
    let roles = rules.filter(|grantee| matches!(grantee, Grantee::Role(_))).cloned();
    let is_opened = consent.emergencies().iter().any(|open| used.contains(&open.statement));
    roles.chain(is_opened.then(|| Grantee::Role(EMERGENCY_ROLE.to_owned())))
}

/// The known ones without those who changed, and what is now known of these.
fn merged(known: &[Did], fresh: &BTreeSet<Did>, changed: &BTreeSet<Did>) -> Vec<Did> {
    let mut all: Vec<Did> = known.iter().filter(|did| !changed.contains(did)).copied().collect();
    all.extend(fresh);
    all.sort_unstable();
    all
}

fn merged_spans(known: &[Span], fresh: Vec<Span>, changed: &BTreeSet<Did>) -> Vec<Span> {
    let mut all: Vec<Span> = Vec::with_capacity(known.len() + fresh.len());
    all.extend(known.iter().filter(|span| !changed.contains(&span.subject)));
    if !fresh.is_empty() {
        all.extend(fresh);
        // Stable: spans of one device and instant keep the order in which they were worked out.
        all.sort_by_key(|span| (span.device, span.from_us));
    }
    all
}

/// A basis, and of what it was made.
struct Made {
    basis: Arc<Basis>,
    snapshot: Arc<Snapshot>,
    /// For this moment and every later one before [`Basis::steady_until_us`].
    from_us: i64,
}

impl Made {
    fn new(snapshot: &Arc<Snapshot>, request: &Request) -> Made {
        let basis = Arc::new(Basis::new(snapshot, request));
        Made { basis, snapshot: Arc::clone(snapshot), from_us: request.now_us }
    }

    /// Whether others are ahead of this request: a newer snapshot, a later moment.
    fn is_ahead(&self, snapshot: &Snapshot, request: &Request) -> bool {
        self.snapshot.epoch > snapshot.epoch || self.from_us > request.now_us
    }

    /// The same for a newer snapshot and moment, if little enough has changed.
    fn again(&self, snapshot: &Arc<Snapshot>, changes: &Changes, request: &Request) -> Option<Made> {
        let is_steady = request.now_us < self.basis.steady_until_us;
        if !is_steady || !Arc::ptr_eq(&self.snapshot.register, &snapshot.register) {
            return None;
        }
        let as_is =
            || Made { basis: Arc::clone(&self.basis), snapshot: Arc::clone(snapshot), from_us: self.from_us };
        if self.snapshot.epoch == snapshot.epoch {
            return Some(as_is());
        }
        let changed = changes.people_since(self.snapshot.epoch, PATCHED_MAX)?;
        if !self.basis.concerns(snapshot, request, &changed) {
            return Some(as_is());
        }
        let basis = Arc::new(self.basis.patched(snapshot, request, &changed));
        Some(Made { basis, snapshot: Arc::clone(snapshot), from_us: request.now_us })
    }
}

/// Where the bases of one kind of request are kept.
struct Place {
    /// Its moment says nothing.
    request: Request,
    /// Guards the making, so that many who ask at once wait for one.
    newest: Mutex<Option<Made>>,
}

/// Bases to be used again, the last used first.
#[derive(Default)]
pub(crate) struct Bases {
    places: Mutex<Vec<Arc<Place>>>,
}

impl Bases {
    /// What the request may see as of this snapshot.
    pub(crate) fn of(&self, snapshot: &Arc<Snapshot>, changes: &Changes, request: &Request) -> Arc<Basis> {
        let place = self.place(request);
        let mut newest = place.newest.lock();
        let made = match newest.as_ref() {
            Some(old) if old.is_ahead(snapshot, request) => return Made::new(snapshot, request).basis,
            Some(old) => old.again(snapshot, changes, request),
            None => None,
        };
        let is_new = made.is_none();
        let made = made.unwrap_or_else(|| Made::new(snapshot, request));
        let basis = Arc::clone(&made.basis);
        *newest = Some(made);
        drop(newest);
        if is_new {
            self.tidy();
        }
        basis
    }

    fn place(&self, request: &Request) -> Arc<Place> {
        let mut places = self.places.lock();
        let is_alike =
            |place: &Arc<Place>| Request { now_us: request.now_us, ..place.request.clone() } == *request;
        let place = match places.iter().position(is_alike) {
            Some(index) => places.remove(index),
            None => Arc::new(Place { request: request.clone(), newest: Mutex::default() }),
        };
        places.insert(0, Arc::clone(&place));
        places.truncate(KEPT_MAX);
        place
    }

    /// Lets go what is too much.
    fn tidy(&self) {
        let mut spans = 0;
        self.places.lock().retain(|place| {
            // One that is being made counts when it is done.
            let held = place.newest.try_lock().and_then(|newest| Some(newest.as_ref()?.basis.spans.len()));
            spans += held.unwrap_or(0);
            spans <= KEPT_SPANS_MAX
        });
    }
}
