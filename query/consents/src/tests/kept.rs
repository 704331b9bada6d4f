//! What is kept of earlier requests against what is worked out from nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use schemas_consent::{Request, Resolution, Use};
use schemas_identity::statement::{Freeze, GranteeKind, RevokeBody, RevokeTarget};
use schemas_identity::{Body, Did};

use super::{ANNA, BEN, Book, CLEO, NOW_US, OPERATOR, RITA, did};
use crate::basis::Basis;

/// Numbers that look random and come again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one_of<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.below(things.len() as u64) as usize]
    }
}

/// Something that somebody may say at a moment.
fn event(book: &mut Book, dice: &mut Dice, now_us: i64) {
    let subject = dice.one_of(&[ANNA, BEN]);
    let mut edge = || Some(now_us + dice.below(9) as i64 - 4);
    let window = (edge(), edge());
    let grantee = match dice.below(4) {
        0 => (GranteeKind::Role, "clinician".to_owned()),
        1 => (GranteeKind::Study, "heart".to_owned()),
        _ => (GranteeKind::Party, did(RITA).to_string()),
    };
    match dice.below(10) {
        0..=3 => {
            let mut body = book.body(subject, grantee.0, grantee.1);
            body.valid_from = window.0.filter(|_| dice.below(2) == 0);
            body.valid_to =
                window.1.filter(|to| dice.below(2) == 0 && body.valid_from.is_none_or(|from| from < *to));
            body.resolution = dice.one_of(&["raw", "1m"]).to_owned();
            book.say(subject, Body::Grant(body));
        }
        4 => {
            let mut deny = book.body(subject, grantee.0, grantee.1);
            deny.purposes.clear();
            deny.valid_from = window.0;
            book.say(subject, Body::Deny(deny));
        }
        5 | 6 => {
            let prev = book.consents.consent().head(&did(subject));
            book.say(subject, Body::Revoke(RevokeBody { subject: None, grant: RevokeTarget::All, prev }));
        }
        7 => {
            book.say(OPERATOR, Body::Freeze(Freeze { subject: did(subject), reason: "asked".into() }));
        }
        8 => book.role("clinician", if dice.below(2) == 0 { &[CLEO, RITA] } else { &[CLEO] }),
        _ => book.study("heart", if dice.below(2) == 0 { &[RITA] } else { &[CLEO] }, Some(now_us + 5)),
    }
}

fn sorted(basis: &Basis) -> BTreeSet<String> {
    basis.spans().iter().map(|span| format!("{span:?}")).collect()
}

/// Whatever was said since, and however time went on: a basis that was kept says the same as a fresh one, ends no later, and
/// watches at least the same people. Most are really kept, or this test would prove nothing.
#[test]
fn kept_bases_say_what_fresh_ones_say() {
    let mut dice = Dice(7);
    let (mut asked, mut shared) = (0, 0);
    for _ in 0..40 {
        let mut book = Book::new();
        let mut now_us = NOW_US;
        let mut before: Vec<Arc<Basis>> = Vec::new();
        for _ in 0..40 {
            if dice.below(3) > 0 {
                event(&mut book, &mut dice, now_us);
            }
            now_us += dice.below(3) as i64;
            for (principal, study) in [(RITA, None), (RITA, Some("heart")), (CLEO, None), (ANNA, None)] {
                let request = Request {
                    principal: did(principal),
                    vouched: None,
                    purpose: "HRESCH".to_owned(),
                    study: study.map(str::to_owned),
                    resolution: dice.one_of(&[Resolution::Raw, Resolution::Minute]),
                    use_: Use::Rows,
                    now_us,
                };
                let snapshot = book.consents.snapshot();
                let kept = book.consents.kept(&snapshot, &request);
                let fresh = Basis::new(&snapshot, &request);
                assert_eq!(sorted(&kept), sorted(&fresh), "{request:?}");
                assert_eq!((kept.subjects(), kept.withheld()), (fresh.subjects(), fresh.withheld()));
                assert!(kept.until_us() <= fresh.until_us());
                let watched: BTreeSet<_> = kept.all().collect();
                assert!(fresh.all().all(|thing| watched.contains(&thing)), "{request:?}");
                asked += 1;
                shared += usize::from(before.iter().any(|old| Arc::ptr_eq(old, &kept)));
                before.push(kept);
            }
        }
    }
    assert!(shared * 4 > asked, "{shared} of {asked} were kept");
}

/// A person who says something for the first time is in the very next basis, though nothing was known of them.
#[test]
fn newcomers_are_seen_at_once() {
    let mut book = Book::new();
    assert!(book.warrant(RITA, None).subjects().is_empty());
    book.grant(ANNA, RITA);
    assert_eq!(book.warrant(RITA, None).subjects(), [did(ANNA)]);
    book.grant(BEN, RITA);
    let both: BTreeSet<Did> = book.warrant(RITA, None).subjects().iter().copied().collect();
    assert_eq!(both, BTreeSet::from([did(ANNA), did(BEN)]));
}

/// What is forgotten of the order of changes is not forgotten of what they touched.
#[test]
fn a_warrant_that_slept_long_still_ends() {
    let mut book = Book::new();
    book.grant(ANNA, RITA);
    book.grant(BEN, RITA);
    let (anna, ben) = (book.warrant(RITA, None), book.warrant(CLEO, None));
    book.revoke(ANNA);
    book.consents.forget_order();
    assert!(!anna.is_current());
    assert!(ben.is_current());
    assert_eq!(book.warrant(RITA, None).subjects(), [did(BEN)]);
}
