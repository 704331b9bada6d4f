//! Data Use Ontology terms (GA4GH DUO) of a grant against those a study declares.
//!
//! A permission of the grant is met by the same or a narrower permission of the study (no restriction > general
//! research > health research > disease specific); a modifier of the grant must be declared by the study as it is.
//! What this is not: an ontology reasoner. A term we do not know is met only by the very same term.

/// Permissions from widest to narrowest: short name and DUO number.
const PERMISSIONS: [(&str, &str); 4] =
    [("NRES", "0000004"), ("GRU", "0000042"), ("HMB", "0000006"), ("DS", "0000007")];

/// Whether every term of the grant is met by what the study declares. A grant without terms is always met.
pub fn is_met(grant_terms: &[String], study_terms: &[String]) -> bool {
    grant_terms.iter().all(|wanted| study_terms.iter().any(|declared| meets(declared, wanted)))
}

fn meets(declared: &str, wanted: &str) -> bool {
    match (rank(declared), rank(wanted)) {
        (Some(declared_rank), Some(wanted_rank)) => declared_rank >= wanted_rank,
        (None, None) => declared == wanted,
        _ => false,
    }
}

/// Position among the permissions; `GRU`, `DUO:0000042` and `DUO_0000042` are the same term.
fn rank(term: &str) -> Option<usize> {
    let number = term.strip_prefix("DUO:").or_else(|| term.strip_prefix("DUO_"));
    PERMISSIONS.iter().position(|(name, code)| *name == term || Some(*code) == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(grant: &[&str], study: &[&str], expected: bool) {
        let own = |terms: &[&str]| terms.iter().map(|term| (*term).to_owned()).collect::<Vec<_>>();
        assert_eq!(is_met(&own(grant), &own(study)), expected, "{grant:?} by {study:?}");
    }

    /// A study may declare the same or less than the grant allows, never more, and must declare each modifier.
    #[test]
    fn narrower_is_met_wider_is_not() {
        check(&[], &[], true);
        check(&["GRU"], &["HMB"], true);
        check(&["DUO:0000042"], &["GRU"], true);
        check(&["HMB"], &["GRU"], false);
        check(&["HMB"], &[], false);
        check(&["HMB", "NCU"], &["DS"], false);
        check(&["HMB", "NCU"], &["NCU", "DS"], true);
        check(&["XYZ"], &["xyz"], false);
    }
}
