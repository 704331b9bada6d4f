//! A warrant: what one request may see, made once and asked again and again whether it still holds.
//!
//! Its fields are private and only the index makes it, so code that reads data takes a warrant and cannot forget the
//! check. What it is not: a session. It speaks of one party, purpose, study, use and resolution at one epoch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use schemas_consent::{Request, Resolution, Span, Use};
use schemas_identity::token::{Token, Vouched};
use schemas_identity::{BootId, Did, Register, ShortId};

use crate::basis::{Bases, Basis};
use crate::index::{Changes, Snapshot};
use crate::pseudonym::DeploymentSecret;

/// What warrants of one index share.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) changes: Arc<Changes>,
    pub(crate) bases: Arc<Bases>,
    pub(crate) secret: DeploymentSecret,
}

/// Permission to read, as narrow as consent makes it.
pub struct Warrant {
    snapshot: Arc<Snapshot>,
    source: Source,
    request: Request,
    token: Token,
    basis: Arc<Basis>,
    until_us: i64,
    /// The newest epoch at which nothing it rests on had changed.
    checked_epoch: AtomicU64,
    /// The newest count of revoked tokens at which its own was not among them.
    checked_ended: AtomicU64,
    /// Once stale, always stale.
    stale: AtomicBool,
}

impl std::fmt::Debug for Warrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warrant")
            .field("request", &self.request)
            .field("epoch", &self.snapshot.epoch)
            .finish_non_exhaustive()
    }
}

impl Warrant {
    pub(crate) fn make(snapshot: Arc<Snapshot>, source: Source, request: Request, token: Token) -> Warrant {
        let basis = source.bases.of(&snapshot, &source.changes, &request);
        let token_end_us = token.exp_s.saturating_mul(1_000_000);
        Warrant {
            checked_epoch: AtomicU64::new(snapshot.epoch),
            checked_ended: AtomicU64::new(0),
            stale: AtomicBool::new(false),
            until_us: basis.until_us().min(token_end_us),
            basis,
            snapshot,
            source,
            request,
            token,
        }
    }

    /// The same party, purpose, study and moment for another use and resolution: for a query over several tables.
    #[must_use]
    pub fn for_use(&self, use_: Use, resolution: Resolution) -> Warrant {
        let request = Request { use_, resolution, ..self.request.clone() };
        Warrant::make(Arc::clone(&self.snapshot), self.source.clone(), request, self.token.clone())
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

    /// What an identity provider vouches for, if the asking party has no key of its own.
    pub fn vouched(&self) -> Option<&Vouched> {
        self.request.vouched.as_deref()
    }

    /// The register it rests on.
    pub fn register(&self) -> &Register {
        &self.snapshot.register
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
        self.basis.spans()
    }

    /// What it may see, shared by all warrants of which the same is true: for those who keep something made of it.
    pub fn basis(&self) -> &Arc<Basis> {
        &self.basis
    }

    /// Whose data that is, ascending.
    pub fn subjects(&self) -> &[Did] {
        self.basis.subjects()
    }

    /// Subjects who have or had a statement that names the asking party, but of whom nothing may be seen.
    /// For the audit record; never for the one who asks.
    pub fn withheld(&self) -> &[Did] {
        self.basis.withheld()
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
            Some(study) => self.source.secret.pseudonym(study, subject),
            None => subject.to_string(),
        }
    }

    /// How results name a device: in a study by a name of that study alone.
    pub fn device(&self, device: ShortId) -> ShortId {
        match &self.request.study {
            Some(study) => self.source.secret.device(study, device),
            None => device,
        }
    }

    /// How results name a boot, likewise.
    pub fn boot(&self, boot: BootId) -> BootId {
        match &self.request.study {
            Some(study) => self.source.secret.boot(study, boot),
            None => boot,
        }
    }

    /// Whether nothing it rests on has changed, its token included. Two atomic loads as long as nobody anywhere said
    /// anything new or revoked a token.
    ///
    /// It knows statements, not time: see [`Warrant::until_us`].
    pub fn is_current(&self) -> bool {
        let changes = &self.source.changes;
        let (epoch, ended) = (changes.epoch(), changes.ended.count());
        let checked_epoch = self.checked_epoch.load(Ordering::Relaxed);
        if epoch == checked_epoch && ended == self.checked_ended.load(Ordering::Relaxed) {
            return true;
        }
        if self.stale.load(Ordering::Relaxed) {
            return false;
        }
        if changes.touched_since(checked_epoch, &self.basis) || changes.ended.is_ended(&self.token) {
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
