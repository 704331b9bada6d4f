//! What a caller may know about its own access: counts of grants and the studies that run. No subject is ever named.

use std::collections::BTreeMap;

use schemas_consent::{Asker, Export, Grantee, Period, Resolution};
use schemas_identity::Did;
use schemas_identity::token::Vouched;

use crate::index::Consents;

/// Counts of people below this, in grants that let no rows leave, are not shown: `people` is then nothing.
pub const PEOPLE_SHOWN_MIN: u64 = 11;
/// Counts of people in grants that let no rows leave are rounded to a multiple of this.
pub const PEOPLE_ROUNDED_TO: u64 = 5;

/// Grants alike in everything a caller may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantCount {
    /// `party`, `role` or `study`.
    pub kind: &'static str,
    /// The role's or study's name; empty for a party.
    pub name: String,
    /// One of the grants' purposes.
    pub purpose: String,
    /// How fine.
    pub resolution: Resolution,
    /// What may leave.
    pub export: Export,
    /// How many people, exactly where rows may leave, else rounded; nothing if fewer than [`PEOPLE_SHOWN_MIN`].
    pub people: Option<u64>,
}

/// A study as the catalogue shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StudyCard {
    /// Its id.
    pub study: String,
    /// Its title.
    pub title: String,
    /// Purposes it may be used for; empty means any.
    pub purposes: Vec<String>,
    /// Data use terms it declares.
    pub duo: Vec<String>,
    /// While it runs, microseconds since 1970 UTC.
    pub period: Period,
    /// Whether the caller is a member.
    pub is_member: bool,
    /// Whether it runs now.
    pub is_open: bool,
}

type Key = (Grantee, String, Resolution, Export);

impl Consents {
    /// Grants in force that speak to a party by name, role or study membership: counts only. `vouched` is what its token's
    /// provider says of it.
    pub fn catalog_grants(&self, principal: &Did, vouched: Option<&Vouched>, now_us: i64) -> Vec<GrantCount> {
        let snapshot = self.snapshot();
        let (register, consent) = (&snapshot.register, &snapshot.consent);
        let asker = Asker::new(register, principal, vouched);
        let mut people: BTreeMap<Key, u64> = BTreeMap::new();
        for grantee in consent.grantees() {
            let speaks = match grantee {
                Grantee::Party(party) => asker.is(party),
                Grantee::Role(name) => register.role(name).is_some_and(|role| asker.has_role(role)),
                Grantee::Study(name) => register.study(name).is_some_and(|study| asker.is_in_study(study)),
            };
            if speaks {
                for subject in consent.naming(grantee).filter_map(|subject| consent.subject(subject)) {
                    for key in keys(subject, grantee, now_us) {
                        *people.entry(key).or_default() += 1;
                    }
                }
            }
        }
        people.into_iter().map(|(key, people)| count(key, people)).collect()
    }

    /// All studies, those that are over too.
    pub fn catalog_studies(&self, principal: &Did, vouched: Option<&Vouched>, now_us: i64) -> Vec<StudyCard> {
        let snapshot = self.snapshot();
        let register = &snapshot.register;
        let asker = Asker::new(register, principal, vouched);
        let cards = register.studies().map(|study| {
            let period = Period::new(study.from, study.to);
            StudyCard {
                study: study.study.clone(),
                title: study.title.clone(),
                purposes: study.purposes.clone(),
                duo: study.duo.clone(),
                period,
                is_member: asker.is_in_study(study),
                is_open: period.contains(now_us),
            }
        });
        cards.collect()
    }
}

/// What one subject allows a grantee, each combination once however many grants say it.
fn keys(
    subject: &schemas_consent::SubjectConsent,
    grantee: &Grantee,
    now_us: i64,
) -> std::collections::BTreeSet<Key> {
    let mut keys = std::collections::BTreeSet::new();
    if subject.erased().is_some() || subject.frozen().is_some() {
        return keys;
    }
    for grant in subject.grants() {
        if grant.grantee == *grantee && grant.valid.contains(now_us) {
            for purpose in &grant.purposes {
                keys.insert((grantee.clone(), purpose.clone(), grant.resolution, grant.export));
            }
        }
    }
    keys
}

fn count((grantee, purpose, resolution, export): Key, people: u64) -> GrantCount {
    let (kind, name) = match grantee {
        Grantee::Party(_) => ("party", String::new()),
        Grantee::Role(name) => ("role", name),
        Grantee::Study(name) => ("study", name),
    };
    let is_row_level = export == Export::Rows && resolution != Resolution::Aggregate;
    let people = if is_row_level { Some(people) } else { rounded(people) };
    GrantCount { kind, name, purpose, resolution, export, people }
}

/// Nothing for a small group, else the nearest multiple.
pub(crate) fn rounded(people: u64) -> Option<u64> {
    if people < PEOPLE_SHOWN_MIN {
        return None;
    }
    Some((people + PEOPLE_ROUNDED_TO / 2) / PEOPLE_ROUNDED_TO * PEOPLE_ROUNDED_TO)
}
