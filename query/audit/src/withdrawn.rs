//! What a subject's statements add to a report: which accesses were released before a grant was taken back. Rows that left
//! under a grant are not called back by its revocation; the subject shall at least see which those are.
//!
//! An access belongs to a revoked grant if the grant could have carried it: logged before the access and revoked after it,
//! for this recipient (by name, role or study), this purpose and some of these signals. Another grant may have carried it
//! too; then it is named all the same, for the subject took back a permission under which this was possible.
//! Not told: a deny that came later, and a grant that ended by its own time.

use schemas_consent::{ConsentState, Ended, Grantee};
use schemas_identity::{Did, Register};
use schemas_signals::{Registry, SignalSet};

use crate::report::{Access, Report, Seen, UNRECOGNISED, Withdrawn};

impl Report {
    /// Marks what was released before a withdrawal, and takes out study names that only the recipient claims.
    pub fn settle(&mut self, subject: &Did, consent: &ConsentState, register: &Register) {
        let ended = consent.subject(subject).map_or(&[][..], |consent| consent.ended());
        for access in &mut self.accesses {
            access.withdrawn = withdrawal(access, ended, register);
            // A refused request may name any study; one that gave rows was in it.
            if let Some(study) = &mut access.study
                && register.study(study).is_none()
            {
                UNRECOGNISED.clone_into(study);
            }
        }
    }
}

/// The first revocation after the access of a grant that could have carried it.
fn withdrawal(access: &Access, ended: &[Ended], register: &Register) -> Option<Withdrawn> {
    let may_have_left = access.outcome != Seen::Refused && access.rows != Some(0);
    let at = access.log_index.filter(|_| may_have_left)?;
    let recipient: Did = access.recipient.parse().ok()?;
    let registry = Registry::builtin();
    let signals = access
        .signals
        .iter()
        .filter_map(|name| registry.by_name(name))
        .fold(SignalSet::EMPTY, |set, signal| set.union(SignalSet::of(signal.id)));
    let revoked = ended.iter().find(|ended| {
        let grant = &ended.grant;
        grant.log_index < at
            && at < ended.log_index
            && grant.purposes.contains(&access.purpose)
            && !grant.signals.intersect(signals).is_empty()
            && speaks_to(&grant.grantee, &recipient, access, register)
    })?;
    Some(Withdrawn { statement: revoked.by.to_string(), log_index: revoked.log_index })
}

fn speaks_to(grantee: &Grantee, recipient: &Did, access: &Access, register: &Register) -> bool {
    let same = |party: &Did| register.subject_of(party) == register.subject_of(recipient);
    match grantee {
        Grantee::Party(party) => same(party),
        Grantee::Study(granted) => access.study.as_ref() == Some(granted),
        Grantee::Role(role) => match &access.vouched {
            // As their token said then.
            Some(vouched) => vouched.roles.iter().any(|known| known.role == *role),
            // Membership as of now: whoever left the role since is not found by it.
            None => register.has_role(recipient, role),
        },
    }
}
