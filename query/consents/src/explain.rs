//! Why rows are missing: to the one who asks in counts of people, to the person in full. The one who asks is never told of
//! whom, and not what a person did against it: a deny, a revocation, a freeze and an erasure read alike.

use std::collections::{BTreeMap, BTreeSet};

use schemas_consent::{Reason, Request, Span, compile_some, explain};
use schemas_identity::Did;

use crate::catalog::rounded;
use crate::index::Consents;
use crate::warrant::Warrant;

/// People alike in what stands between them and the one who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonCount {
    /// `permitted`, or why nothing of them may be seen.
    pub reason: String,
    /// How many: exactly if permitted, else rounded to [`crate::catalog::PEOPLE_ROUNDED_TO`]; nothing below
    /// [`crate::catalog::PEOPLE_SHOWN_MIN`].
    pub people: Option<u64>,
}

/// What a party may see of one person, and why not more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// What it may see, with the grant that says so.
    pub spans: Vec<Span>,
    /// Why it may see nothing, if that is so.
    pub reason: Option<Reason>,
    /// The consent epoch of this answer.
    pub epoch: u64,
}

impl Warrant {
    /// People who ever spoke to the one who asks, by what came of it for this very request. Sorted by reason, `permitted`
    /// first; it is there even if nobody is.
    pub fn explain(&self) -> Vec<ReasonCount> {
        let withheld: BTreeSet<Did> = self.withheld().iter().copied().collect();
        let reasons = explain(&self.snapshot().consent, &self.snapshot().register, self.request(), &withheld);
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for reason in reasons.values() {
            *counts.entry(told(reason)).or_default() += 1;
        }
        let permitted = self.subjects().iter().filter(|subject| !self.is_own(subject)).count();
        let permitted = ReasonCount { reason: "permitted".to_owned(), people: u64::try_from(permitted).ok() };
        let closed =
            counts.into_iter().map(|(reason, people)| ReasonCount { reason, people: rounded(people) });
        std::iter::once(permitted).chain(closed).collect()
    }
}

/// A reason as the one who asks may read it.
fn told(reason: &Reason) -> String {
    match reason {
        Reason::Denied { .. } | Reason::Revoked { .. } | Reason::Frozen { .. } | Reason::Erased { .. } => {
            "closed by the person".to_owned()
        }
        other => other.to_string(),
    }
}

impl Consents {
    /// What a request would be given of one person, for that person. The caller makes sure that it is the person who asks.
    pub fn why(&self, subject: &Did, request: &Request) -> Why {
        let snapshot = self.snapshot();
        let subject = snapshot.register.subject_of(subject);
        let only = BTreeSet::from([subject]);
        let spans = compile_some(&snapshot.consent, &snapshot.register, request, &only);
        let reasons = explain(&snapshot.consent, &snapshot.register, request, &only);
        Why { spans, reason: reasons.get(&subject).copied(), epoch: snapshot.epoch }
    }
}
