//! The live index against revocations in flight, tokens that want more, and readers who compare names.

mod kept;

use std::sync::Arc;

use schemas_consent::{Export, Resolution, Use};
use schemas_identity::statement::{
    Bind, BreakGlass, Devices, Enrol, Grantee, GranteeKind, Maker, RevokeBody, RevokeKey, RevokeTarget, Role,
    Study, proof_of_possession, sign, sign_with_co,
};
use schemas_identity::token::{Scope, Token};
use schemas_identity::{Body, Did, GrantBody, SecretKey, Statement};
use schemas_signals::Registry;

use crate::{Ask, Consents, FoldError, Refusal, Warrant};

const ORIGIN: &str = "example.org/log";
const OPERATOR: u8 = 1;
const MAKER: u8 = 2;
const ANNA: u8 = 3;
const BEN: u8 = 4;
const RITA: u8 = 5;
const CLEO: u8 = 6;
/// Devices have the seeds 100 and on; the first of them is Anna's, the second Ben's.
const WATCH: u8 = 100;
const NOW_US: i64 = 1_000_000_000;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn did(seed: u8) -> Did {
    key(seed).public().did()
}

/// The index with its book: statements get indices and epochs in order.
struct Book {
    consents: Consents,
    epoch: u64,
}

impl Book {
    /// Anna and Ben wear a watch each; Cleo is a clinician; Rita is in two studies.
    fn new() -> Book {
        let consents = Consents::new(ORIGIN, vec![did(OPERATOR)], &[7; 32]);
        let mut book = Book { consents, epoch: 0 };
        let maker = Maker { party: did(MAKER), title: String::new(), from: None, to: None };
        book.say(OPERATOR, Body::Maker(maker));
        for (subject, device) in [(ANNA, WATCH), (BEN, WATCH + 1)] {
            let pop = proof_of_possession(ORIGIN, &did(MAKER), &key(device));
            let enrol = Enrol { device_key: did(device), model: String::new(), signals: vec![], pop };
            book.say(MAKER, Body::Enrol(enrol));
            book.bind(subject, device, None, None, false);
        }
        book.role("clinician", &[CLEO]);
        book.study("sleep", &[RITA], None);
        book.study("heart", &[RITA], Some(2 * NOW_US));
        book
    }

    fn fold(&mut self, compact: &str) {
        let statement = Statement::parse(compact, ORIGIN).unwrap();
        self.consents.apply(&statement, self.epoch + 10, self.epoch + 1).unwrap();
        self.epoch += 1;
    }

    fn say(&mut self, signer: u8, body: Body) -> Statement {
        let nonce = u128::from(self.epoch).to_le_bytes();
        let compact = sign(&body, ORIGIN, NOW_US / 1_000_000, nonce, &key(signer));
        self.fold(&compact);
        Statement::parse(&compact, ORIGIN).unwrap()
    }

    fn bind(&mut self, subject: u8, device: u8, from: Option<i64>, to: Option<i64>, is_end: bool) {
        let bind = Bind { device: key(device).public().short_id(), from, to, co: String::new() };
        let body = if is_end { Body::Unbind(bind) } else { Body::Bind(bind) };
        let nonce = u128::from(self.epoch).to_le_bytes();
        self.fold(&sign_with_co(&body, ORIGIN, 0, nonce, &key(subject), &key(device)));
    }

    /// A new device on a body.
    fn bind_new(&mut self, subject: u8, device: u8) {
        let pop = proof_of_possession(ORIGIN, &did(MAKER), &key(device));
        let enrol = Enrol { device_key: did(device), model: String::new(), signals: vec![], pop };
        self.say(MAKER, Body::Enrol(enrol));
        self.bind(subject, device, None, None, false);
    }

    fn role(&mut self, role: &str, members: &[u8]) {
        let members = members.iter().map(|seed| did(*seed)).collect();
        let (role, title) = (role.to_owned(), String::new());
        self.say(OPERATOR, Body::Role(Role { role, title, members, purposes: vec![], from: None, to: None }));
    }

    fn study(&mut self, study: &str, members: &[u8], to: Option<i64>) {
        let body = Study {
            study: study.to_owned(),
            title: "T".to_owned(),
            members: members.iter().map(|seed| did(*seed)).collect(),
            purposes: vec![],
            duo: vec![],
            terms: vec![],
            from: None,
            to,
        };
        self.say(OPERATOR, Body::Study(body));
    }

    fn body(&self, subject: u8, kind: GranteeKind, value: String) -> GrantBody {
        GrantBody {
            subject: did(subject),
            grantee: Grantee { kind, value },
            signals: vec!["heart_rate".into()],
            devices: Devices::All,
            resolution: "raw".into(),
            purposes: vec!["HRESCH".into()],
            duo: vec![],
            data_from: None,
            data_to: None,
            valid_from: None,
            valid_to: None,
            export: "rows".into(),
            min_cohort: 11,
            notice: None,
            prev: self.consents.consent().head(&did(subject)),
        }
    }

    fn grant(&mut self, subject: u8, to: u8) -> Statement {
        let body = self.body(subject, GranteeKind::Party, did(to).to_string());
        self.say(subject, Body::Grant(body))
    }

    fn grant_study(&mut self, subject: u8, study: &str) {
        let body = self.body(subject, GranteeKind::Study, study.to_owned());
        self.say(subject, Body::Grant(body));
    }

    fn revoke(&mut self, subject: u8) {
        let body = RevokeBody { subject: None, grant: RevokeTarget::All, prev: None };
        self.say(subject, Body::Revoke(body));
    }

    fn warrant(&self, who: u8, study: Option<&str>) -> Warrant {
        self.consents.warrant(Ask::rows(&token(who, "HRESCH", study), NOW_US)).unwrap()
    }
}

fn token(who: u8, purpose: &str, study: Option<&str>) -> Token {
    Token {
        iss: did(who),
        jti: "t1".into(),
        purpose: purpose.into(),
        study: study.map(str::to_owned),
        vouched: None,
        scope: Scope::Sql,
        iat_s: 0,
        exp_s: 3_600,
    }
}

fn seen(warrant: &Warrant) -> Vec<Did> {
    warrant.subjects().to_vec()
}

/// No grant is an empty warrant; a grant shows in the next warrant, a revocation too, and the running warrant it touches
/// is no longer current, for good. Others' statements leave it current.
#[test]
fn revocation_reaches_running_warrants() {
    let mut book = Book::new();
    assert!(book.warrant(RITA, None).spans().is_empty());
    book.grant(ANNA, RITA);
    let running = book.warrant(RITA, None);
    assert_eq!((seen(&running), running.epoch()), (vec![did(ANNA)], book.epoch));
    assert!(running.is_current());
    book.grant(BEN, RITA);
    book.grant(BEN, CLEO);
    assert!(running.is_current() && running.is_current());
    let both = book.warrant(RITA, None);
    assert_eq!(both.subjects().len(), 2);
    book.revoke(ANNA);
    assert!(!running.is_current() && !both.is_current());
    assert_eq!(seen(&book.warrant(RITA, None)), [did(BEN)]);
    book.grant(ANNA, RITA);
    assert!(!running.is_current());
    assert!(book.warrant(RITA, None).is_current());
}

/// Subjects who spoke to the party but show nothing are withheld: for the audit. Strangers are not.
#[test]
fn withheld_subjects() {
    let mut book = Book::new();
    book.grant(ANNA, RITA);
    book.grant(BEN, CLEO);
    book.revoke(ANNA);
    assert_eq!(book.warrant(RITA, None).withheld(), [did(ANNA)]);
    book.grant(ANNA, RITA);
    assert!(book.warrant(RITA, None).withheld().is_empty());
}

/// Everything an answer rests on besides grants ends it too: membership, the asking key, who wore the device.
#[test]
fn other_changes_end_warrants() {
    let mut book = Book::new();
    book.grant_study(ANNA, "sleep");
    let running = book.warrant(RITA, Some("sleep"));
    book.role("clinician", &[CLEO, BEN]);
    book.study("heart", &[], None);
    assert!(running.is_current());
    book.study("sleep", &[], None);
    assert!(!running.is_current());
    let ask = token(RITA, "HRESCH", Some("sleep"));
    assert_eq!(book.consents.warrant(Ask::rows(&ask, NOW_US)).unwrap_err(), Refusal::StudyClosed);

    let body = book.body(ANNA, GranteeKind::Role, "clinician".into());
    book.say(ANNA, Body::Grant(body));
    let running = book.warrant(CLEO, None);
    assert_eq!(seen(&running), [did(ANNA)]);
    book.role("clinician", &[]);
    assert!(!running.is_current());

    book.grant(BEN, RITA);
    let running = book.warrant(RITA, None);
    book.bind(BEN, WATCH + 1, Some(500), None, true);
    assert!(!running.is_current());
    let running = book.warrant(RITA, None);
    assert_eq!(running.spans()[0].to_us, 500);
    book.say(RITA, Body::RevokeKey(RevokeKey { key: did(RITA), compromised_from: None }));
    assert!(!running.is_current());
    let ask = token(RITA, "HRESCH", None);
    assert_eq!(book.consents.warrant(Ask::rows(&ask, NOW_US)).unwrap_err(), Refusal::KeyRevoked);
}

/// Names on a connection narrow a token and never widen it.
#[test]
fn names_narrow() {
    let mut book = Book::new();
    book.grant_study(ANNA, "sleep");
    let check =
        |token: &Token, purpose: Option<&str>, study: Option<&str>, expected: Result<usize, Refusal>| {
            let got = book.consents.warrant(Ask::rows(token, NOW_US).named(purpose, study));
            assert_eq!(got.map(|warrant| warrant.spans().len()), expected, "{purpose:?} {study:?}");
        };
    let studied = token(RITA, "HRESCH", Some("sleep"));
    check(&studied, None, None, Ok(1));
    check(&studied, Some("HRESCH"), Some("sleep"), Ok(1));
    check(&studied, Some("TREAT"), None, Err(Refusal::OtherPurpose));
    check(&studied, None, Some("heart"), Err(Refusal::OtherStudy));
    check(&token(RITA, "HRESCH", None), None, Some("sleep"), Err(Refusal::OtherStudy));
    check(&token(RITA, "HRESCH", None), None, None, Ok(0));
    check(&token(RITA, "", None), Some("HRESCH"), None, Err(Refusal::NoPurpose));
    check(&token(RITA, "CURIOSITY", None), None, None, Err(Refusal::UnknownPurpose));
    check(&token(RITA, "HRESCH", Some("nosuch")), None, None, Err(Refusal::StudyClosed));
    check(&token(CLEO, "HRESCH", Some("sleep")), None, None, Err(Refusal::StudyClosed));
    check(&Token { scope: Scope::Publish, ..studied.clone() }, None, None, Err(Refusal::Scope));
    check(&Token { exp_s: NOW_US / 1_000_000, ..studied }, None, None, Err(Refusal::Expired));
}

/// One study's names say nothing in another; without a study, or with another secret, they differ too.
#[test]
fn pseudonyms_do_not_join() {
    let book = Book::new();
    let [sleep, heart, named] = [Some("sleep"), Some("heart"), None].map(|study| book.warrant(RITA, study));
    let name = sleep.pseudonym(&did(ANNA));
    assert!(name.starts_with("p-") && name.len() == 34 && name == sleep.pseudonym(&did(ANNA)));
    assert_ne!(name, sleep.pseudonym(&did(BEN)));
    assert_ne!(name, heart.pseudonym(&did(ANNA)));
    assert_eq!(named.pseudonym(&did(ANNA)), did(ANNA).to_string());
    let other = crate::DeploymentSecret::new(&[8; 32]);
    assert_ne!(name, other.pseudonym("sleep", &did(ANNA)));
    assert!(!format!("{sleep:?}").contains("07, 07"));
}

/// A warrant says when time alone ends it: the grant, the study, the token, break-glass, or a deny that begins.
#[test]
fn time_ends_warrants() {
    let mut book = Book::new();
    let token_end_us = 3_600 * 1_000_000;
    assert_eq!(book.warrant(RITA, None).until_us(), token_end_us);
    book.grant_study(ANNA, "heart");
    assert_eq!(book.warrant(RITA, Some("heart")).until_us(), 2 * NOW_US);
    let mut body = book.body(ANNA, GranteeKind::Party, did(RITA).to_string());
    body.valid_to = Some(NOW_US + 9);
    book.say(ANNA, Body::Grant(body));
    let warrant = book.warrant(RITA, None);
    assert_eq!(warrant.until_us(), NOW_US + 9);
    assert!(warrant.is_current_at(NOW_US + 8) && !warrant.is_current_at(NOW_US + 9));
    let mut body = book.body(ANNA, GranteeKind::Party, did(RITA).to_string());
    body.valid_from = Some(NOW_US + 5);
    book.say(ANNA, Body::Deny(body));
    assert_eq!(book.warrant(RITA, None).until_us(), NOW_US + 5);
    book.say(CLEO, Body::BreakGlass(BreakGlass { subject: did(BEN), reason: "r".into() }));
    let emergency = Token { exp_s: 86_400, ..token(CLEO, "ETREAT", None) };
    let warrant = book.consents.warrant(Ask::rows(&emergency, NOW_US)).unwrap();
    assert_eq!(seen(&warrant), [did(BEN)]);
    assert_eq!(warrant.until_us(), NOW_US + 4 * 3_600 * 1_000_000);
    book.role("clinician", &[]);
    assert!(!warrant.is_current());
}

/// One warrant's other uses rest on the same snapshot and the same limits.
#[test]
fn other_uses() {
    let mut book = Book::new();
    let mut body = book.body(ANNA, GranteeKind::Party, did(RITA).to_string());
    (body.resolution, body.export) = ("1m".into(), "none".into());
    book.say(ANNA, Body::Grant(body));
    let rows = book.warrant(RITA, None);
    assert!(rows.spans().is_empty());
    assert!(rows.for_use(Use::Rows, Resolution::Minute).spans().is_empty());
    assert!(rows.for_use(Use::Aggregate, Resolution::Aggregate).spans().is_empty());
    let page = rows.for_use(Use::Page, Resolution::Minute);
    assert_eq!(page.spans()[0].signals, Registry::builtin().resolve("heart_rate"));
    book.revoke(ANNA);
    assert!(!page.is_current() && rows.is_current());
}

/// The catalogue counts; it rounds and hides small groups unless rows may leave, and names nobody.
#[test]
fn catalogue() {
    let mut book = Book::new();
    book.grant(ANNA, RITA);
    book.grant(ANNA, RITA);
    book.grant_study(BEN, "sleep");
    for subject in 10..23 {
        let mut body = book.body(subject, GranteeKind::Study, "sleep".into());
        (body.resolution, body.export) = ("aggregate".into(), "aggregate".into());
        book.say(subject, Body::Grant(body));
        let mut body = book.body(subject, GranteeKind::Role, "clinician".into());
        body.export = "none".into();
        if subject < 14 {
            book.say(subject, Body::Grant(body));
        }
    }
    let shown = |who: u8| -> Vec<(&'static str, Export, Option<u64>)> {
        let counts = book.consents.catalog_grants(&did(who), None, NOW_US);
        counts.iter().map(|count| (count.kind, count.export, count.people)).collect()
    };
    let of_rita = [
        ("party", Export::Rows, Some(1)),
        ("study", Export::Rows, Some(1)),
        ("study", Export::Aggregate, Some(15)),
    ];
    assert_eq!(shown(RITA), of_rita);
    assert_eq!(shown(CLEO), [("role", Export::None, None)]);
    assert!(shown(BEN).is_empty());
    let studies = book.consents.catalog_studies(&did(RITA), None, 3 * NOW_US);
    let open: Vec<_> =
        studies.iter().map(|card| (card.study.as_str(), card.is_member, card.is_open)).collect();
    assert_eq!(open, [("heart", true, false), ("sleep", true, true)]);
}

/// The one who asks learns counts: exact of those who may be seen, none of small groups, and never what a person did.
/// The person learns the statement.
#[test]
fn reasons_are_told_to_each_as_much_as_they_may_know() {
    let mut book = Book::new();
    for subject in 10..36_u8 {
        book.bind_new(subject, 150 + subject);
        let mut body = book.body(subject, GranteeKind::Party, did(RITA).to_string());
        if subject < 23 {
            body.purposes = vec!["TREAT".into()];
        }
        book.say(subject, Body::Grant(body));
        if subject >= 24 {
            book.revoke(subject);
        }
    }
    let counts: Vec<(String, Option<u64>)> =
        book.warrant(RITA, None).explain().into_iter().map(|count| (count.reason, count.people)).collect();
    let told = |reason: &str, people| (reason.to_owned(), people);
    let expected =
        [told("permitted", Some(1)), told("closed by the person", Some(10)), told("other purpose", Some(15))];
    assert_eq!(counts, expected);
    let request = book.warrant(RITA, None).request().clone();
    let why = book.consents.why(&did(24), &request);
    assert!(why.spans.is_empty() && matches!(why.reason, Some(schemas_consent::Reason::Revoked { .. })));
    assert_eq!(book.consents.why(&did(23), &request).reason, None);
}

/// A statement the fold refuses, and an epoch that does not rise, change nothing.
#[test]
fn refused_statements_change_nothing() {
    let mut book = Book::new();
    let granted = book.grant(ANNA, RITA);
    let running = book.warrant(RITA, None);
    let epoch = book.epoch;
    let again = book.consents.apply(&granted, 99, epoch + 1);
    assert!(matches!(again, Err(FoldError::Consent { log_index: 99, .. })));
    let body = Body::Maker(Maker { party: did(BEN), title: String::new(), from: None, to: None });
    let forged = Statement::parse(&sign(&body, ORIGIN, 0, [0; 16], &key(BEN)), ORIGIN).unwrap();
    assert!(matches!(book.consents.apply(&forged, 99, epoch + 1), Err(FoldError::Register { .. })));
    let late = book.consents.apply(&forged, 99, epoch);
    assert!(matches!(late, Err(FoldError::Epoch { .. })));
    assert_eq!(book.consents.epoch(), epoch);
    assert!(running.is_current());
}

/// While one thread grants and revokes without a pause, each warrant another thread makes is either before or after:
/// once a revocation has returned, no warrant made later shows the subject.
#[test]
fn warrants_are_never_older_than_the_last_apply() {
    let mut book = Book::new();
    book.grant(ANNA, RITA);
    let consents = Arc::new(std::mem::replace(&mut book.consents, Consents::new(ORIGIN, vec![], &[0; 32])));
    let reader = Arc::clone(&consents);
    let is_done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = Arc::clone(&is_done);
    let busy = std::thread::spawn(move || {
        let token = token(RITA, "HRESCH", None);
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            reader.warrant(Ask::rows(&token, NOW_US)).unwrap();
        }
    });
    let ask = token(RITA, "HRESCH", None);
    let shows = || !consents.warrant(Ask::rows(&ask, NOW_US)).unwrap().spans().is_empty();
    let mut epoch = book.epoch;
    let mut say = |body: &Body| {
        epoch += 1;
        let compact = sign(body, ORIGIN, 0, u128::from(epoch).to_le_bytes(), &key(ANNA));
        consents.apply(&Statement::parse(&compact, ORIGIN).unwrap(), epoch, epoch).unwrap();
    };
    let mut body = book.body(ANNA, GranteeKind::Party, did(RITA).to_string());
    for _ in 0..50 {
        say(&Body::Revoke(RevokeBody { subject: None, grant: RevokeTarget::All, prev: None }));
        assert!(!shows());
        body.prev = consents.consent().head(&did(ANNA));
        say(&Body::Grant(body.clone()));
        assert!(shows());
    }
    is_done.store(true, std::sync::atomic::Ordering::Relaxed);
    busy.join().unwrap();
}
