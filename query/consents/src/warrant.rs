//! A warrant: what one request may see, made once and asked again and again whether it still holds.
//!
//! Its fields are private and only the index makes it, so code that reads data takes a warrant and cannot forget the
//! check. What it is not: a session. It speaks of one party, purpose, study, use and resolution at one epoch.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use schemas_consent::state::EMERGENCY_ROLE;
use schemas_consent::{
    Grantee, Request, Resolution, Span, SubjectConsent, Use, compile, horizon, named_subjects,
};
use schemas_identity::token::Token;
use schemas_identity::{Did, StatementId};

use crate::index::{Changes, Snapshot, Touched};
use crate::pseudonym::DeploymentSecret;

/// Permission to read, as narrow as consent makes it.
#[derive(Debug)]
pub struct Warrant {
    snapshot: Arc<Snapshot>,
    changes: Arc<Changes>,
    secret: DeploymentSecret,
    request: Request,
    token: Token,
    spans: Vec<Span>,
    subjects: BTreeSet<Did>,
    withheld: Vec<Did>,
    watched: Vec<Touched>,
    until_us: i64,
    /// The newest epoch at which nothing watched had changed.
    checked_epoch: AtomicU64,
    /// The newest count of revoked tokens at which its own was not among them.
    checked_ended: AtomicU64,
    /// Once stale, always stale.
    stale: AtomicBool,
}

impl Warrant {
    pub(crate) fn make(
        snapshot: Arc<Snapshot>,
        changes: Arc<Changes>,
        secret: DeploymentSecret,
        request: Request,
        token: &Token,
    ) -> Warrant {
        Warrant::compiled(snapshot, changes, secret, request, token.clone())
    }

    fn compiled(
        snapshot: Arc<Snapshot>,
        changes: Arc<Changes>,
        secret: DeploymentSecret,
        request: Request,
        token: Token,
    ) -> Warrant {
        let spans = compile(&snapshot.consent, &snapshot.register, &request);
        let subjects: BTreeSet<Did> = spans.iter().map(|span| span.subject).collect();
        let mut withheld = named_subjects(&snapshot.consent, &snapshot.register, &request);
        withheld.retain(|subject| !subjects.contains(subject));
        let token_end_us = token.exp_s.saturating_mul(1_000_000);
        let until_us = horizon(&snapshot.consent, &snapshot.register, &request, &subjects).min(token_end_us);
        Warrant {
            watched: watched(&snapshot, &request, &spans),
            checked_epoch: AtomicU64::new(snapshot.epoch),
            checked_ended: AtomicU64::new(0),
            stale: AtomicBool::new(false),
            withheld: withheld.into_iter().collect(),
            snapshot,
            changes,
            secret,
            request,
            token,
            spans,
            subjects,
            until_us,
        }
    }

    /// The same party, purpose, study and moment for another use and resolution: for a query over several tables.
    #[must_use]
    pub fn for_use(&self, use_: Use, resolution: Resolution) -> Warrant {
        let request = Request { use_, resolution, ..self.request.clone() };
        Warrant::compiled(
            Arc::clone(&self.snapshot),
            Arc::clone(&self.changes),
            self.secret.clone(),
            request,
            self.token.clone(),
        )
    }

    /// Who asks.
    pub fn principal(&self) -> &Did {
        &self.request.principal
    }

    /// For which purpose.
    pub fn purpose(&self) -> &str {
        &self.request.purpose
    }

    /// In which study's name, if any.
    pub fn study(&self) -> Option<&str> {
        self.request.study.as_deref()
    }

    /// The token's id, for the audit record.
    pub fn token_id(&self) -> &str {
        &self.token.jti
    }

    /// The request it answers.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The consent epoch it rests on.
    pub fn epoch(&self) -> u64 {
        self.snapshot.epoch
    }

    /// What may be seen: disjoint, sorted by device, then time.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Whose data that is.
    pub fn subjects(&self) -> &BTreeSet<Did> {
        &self.subjects
    }

    /// Subjects who have or had a statement that names the asking party, but of whom nothing may be seen.
    /// For the audit record; never for the one who asks.
    pub fn withheld(&self) -> &[Did] {
        &self.withheld
    }

    /// The state it rests on.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Whether a subject is the one who asks.
    pub(crate) fn is_own(&self, subject: &Did) -> bool {
        self.snapshot.register.subject_of(&self.request.principal) == *subject
    }

    /// How results name a subject: a pseudonym inside a study, the did:key otherwise.
    pub fn pseudonym(&self, subject: &Did) -> String {
        match &self.request.study {
            Some(study) => self.secret.pseudonym(study, subject),
            None => subject.to_string(),
        }
    }

    /// Whether nothing it rests on has changed, its token included. Two atomic loads as long as nobody anywhere said
    /// anything new or revoked a token.
    ///
    /// It knows statements, not time: see [`Warrant::until_us`].
    pub fn is_current(&self) -> bool {
        let (epoch, ended) = (self.changes.epoch(), self.changes.ended.count());
        if epoch == self.checked_epoch.load(Ordering::Relaxed)
            && ended == self.checked_ended.load(Ordering::Relaxed)
        {
            return true;
        }
        if self.stale.load(Ordering::Relaxed) {
            return false;
        }
        let is_touched = self.changes.since(self.snapshot.epoch, self.watched.iter());
        if is_touched || self.changes.ended.is_ended(&self.token) {
            self.stale.store(true, Ordering::Relaxed);
            return false;
        }
        self.checked_epoch.fetch_max(epoch, Ordering::Relaxed);
        self.checked_ended.fetch_max(ended, Ordering::Relaxed);
        true
    }

    /// The first instant (microseconds since 1970 UTC) at which a grant, role, study, break-glass opening or the token
    /// it rests on ends by time; `i64::MAX` if none does.
    pub fn until_us(&self) -> i64 {
        self.until_us
    }

    /// [`Warrant::is_current`], and the present is before [`Warrant::until_us`].
    pub fn is_current_at(&self, now_us: i64) -> bool {
        now_us < self.until_us && self.is_current()
    }
}

/// What must not change while the warrant is used: its subjects, the asking party, the groups its grants speak to.
fn watched(snapshot: &Snapshot, request: &Request, spans: &[Span]) -> Vec<Touched> {
    let subjects: BTreeSet<Did> = spans.iter().map(|span| span.subject).collect();
    let used: HashSet<StatementId> = spans.iter().filter_map(|span| span.grant).collect();
    let mut watched = vec![
        Touched::Party(request.principal),
        Touched::Party(snapshot.register.subject_of(&request.principal)),
    ];
    let mut groups: BTreeSet<Grantee> = request.study.iter().cloned().map(Grantee::Study).collect();
    for consent in subjects.iter().filter_map(|subject| snapshot.consent.subject(subject)) {
        groups.extend(groups_of(consent, &used));
    }
    watched.extend(subjects.into_iter().map(Touched::Party));
    watched.extend(groups.into_iter().map(Touched::Group));
    watched
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
