//! Property: compiled spans say the same as `decide`, at every point where the answer can change, over random states.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use schemas_identity::statement::{Devices, GranteeKind, RevokeTarget};
use schemas_identity::token::Vouched;
use schemas_identity::{Body, Did};
use schemas_signals::{Registry, SignalSet};

use super::world::{World, owned};
use crate::{
    Decision, Point, Reason, Request, Resolution, Span, Use, compile, decide, explain, horizon,
    named_subjects,
};

const PEOPLE: [&str; 2] = ["anna", "ben"];
const ASKERS: [&str; 3] = ["rita", "cleo", "anna"];
const DEVICES: [&str; 2] = ["watch1", "watch2"];
const SIGNALS: [&str; 5] = ["heart_rate", "vitals", "steps", "*", "waveform"];
const PURPOSES: [&str; 3] = ["HRESCH", "TREAT", "ETREAT"];
const RESOLUTIONS: [&str; 4] = ["raw", "1m", "1h", "aggregate"];
const EXPORTS: [&str; 3] = ["none", "aggregate", "rows"];
/// Instants are small, so that edges meet.
const INSTANTS: i64 = 8;

/// Which random states.
const SEED: u8 = 7;
/// Random states per run.
const CASES: u32 = 128;

type Ends = (Option<i64>, Option<i64>);

#[derive(Debug, Clone)]
enum Move {
    Rule {
        is_deny: bool,
        who: usize,
        to: usize,
        signal: usize,
        device: usize,
        terms: (usize, usize, usize),
        data: Ends,
        valid: Ends,
    },
    Revoke {
        who: usize,
        all: bool,
    },
    Freeze {
        who: usize,
    },
    Glass {
        who: usize,
        at_s: i64,
    },
    Erase {
        who: usize,
    },
}

fn ends() -> impl Strategy<Value = Ends> {
    (0..INSTANTS, 1..INSTANTS, any::<(bool, bool)>()).prop_map(|(from, length, (has_from, has_to))| {
        (has_from.then_some(from), has_to.then_some(from + length))
    })
}

/// Mostly terms that match the questions, so that grants and denies really meet; the rest probes each term.
fn rule() -> impl Strategy<Value = Move> {
    let device = prop_oneof![3 => Just(2_usize), 2 => 0..2_usize];
    let who = (prop::bool::weighted(0.35), 0..2_usize, 0..4_usize, 0..SIGNALS.len(), device);
    let resolution = prop_oneof![3 => Just(0_usize), 1 => 1..4_usize];
    let purpose = prop_oneof![4 => Just(PURPOSES.len()), 1 => 0..PURPOSES.len()];
    let export = prop_oneof![3 => Just(2_usize), 1 => 0..2_usize];
    let valid = prop_oneof![3 => Just((None, None)), 1 => ends()];
    (who, (resolution, purpose, export), ends(), valid).prop_map(
        |((is_deny, who, to, signal, device), terms, data, valid)| Move::Rule {
            is_deny,
            who,
            to,
            signal,
            device,
            terms,
            data,
            valid,
        },
    )
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        60 => rule(),
        1 => (0..2_usize, any::<bool>()).prop_map(|(who, all)| Move::Revoke { who, all }),
        1 => (0..2_usize).prop_map(|who| Move::Freeze { who }),
        3 => (0..2_usize, -20_000..10_i64).prop_map(|(who, at_s)| Move::Glass { who, at_s }),
        1 => (0..2_usize).prop_map(|who| Move::Erase { who }),
    ];
    proptest::collection::vec(one, 0..24)
}

fn world(bindings: &[(usize, i64, i64)]) -> World {
    let mut world = World::new();
    for device in DEVICES {
        world.enrol(device);
    }
    let mut at = [None, None];
    for (number, (who, gap, length)) in bindings.iter().enumerate() {
        // Devices in turn, each binding after the last of that device, the first and the last open.
        let device = number % 2;
        let from = at[device].map(|end: i64| end + gap);
        let to = from.unwrap_or(0) + length;
        let is_last = number + 2 >= bindings.len();
        world.bind(PEOPLE[*who], DEVICES[device], from, (!is_last).then_some(to));
        at[device] = Some(to);
    }
    world.role("clinician", &["cleo"], &[], Some(6));
    world.study("sleep", &["rita"], (&["HRESCH"], &["HMB"]), Some(7));
    world
}

fn play(world: &mut World, step: &Move) {
    match step {
        Move::Rule { is_deny, who, to, signal, device, terms, data, valid } => {
            let (kind, value) = [
                (GranteeKind::Party, "rita"),
                (GranteeKind::Role, "clinician"),
                (GranteeKind::Study, "sleep"),
                (GranteeKind::Party, "cleo"),
            ][*to];
            let mut body = world.body(PEOPLE[*who], kind, value);
            body.signals = owned(&[SIGNALS[*signal]]);
            if *device < 2 {
                body.devices = Devices::Only(vec![world.short(DEVICES[*device])]);
            }
            body.resolution = RESOLUTIONS[terms.0].into();
            body.purposes = match PURPOSES.get(terms.1) {
                Some(purpose) => owned(&[purpose]),
                None => owned(&PURPOSES),
            };
            body.export = EXPORTS[terms.2].into();
            (body.data_from, body.data_to) = *data;
            (body.valid_from, body.valid_to) = *valid;
            let _ = world.say(PEOPLE[*who], if *is_deny { Body::Deny(body) } else { Body::Grant(body) });
        }
        Move::Revoke { who, all } => {
            let did = world.did(PEOPLE[*who]);
            let first =
                world.state.subject(&did).and_then(|consent| consent.grants().first().map(|grant| grant.id));
            let target = if *all { Some(RevokeTarget::All) } else { first.map(RevokeTarget::One) };
            let _ = target.map(|target| world.revoke(PEOPLE[*who], target));
        }
        Move::Freeze { who } => drop(world.freeze("operator", PEOPLE[*who])),
        Move::Glass { who, at_s } => drop(world.break_glass("cleo", PEOPLE[*who], *at_s)),
        Move::Erase { who } => drop(world.erase(PEOPLE[*who])),
    }
}

/// What the spans say of one point; more than one span is an overlap.
fn by_spans(spans: &[Span], subject: &Did, at: &Point) -> Vec<Span> {
    let holds = |span: &&Span| span.device == at.device && span.contains(at.signal, at.ts_us);
    let found: Vec<Span> = spans.iter().filter(holds).copied().collect();
    assert!(found.iter().all(|span| span.subject == *subject), "a span of somebody else");
    found
}

fn compare(world: &mut World, request: &Request) -> Result<(), TestCaseError> {
    let spans = compile(&world.state, &world.register, request);
    prop_assert!(spans.iter().all(|span| !span.signals.is_empty() && !span.period().is_empty()));
    prop_assert!(spans.is_sorted_by_key(|span| span.device));
    let named = named_subjects(&world.state, &world.register, request);
    let principal = request.principal;
    prop_assert!(spans.iter().all(|span| named.contains(&span.subject) || span.subject == principal));
    let (mut permits, mut denied) = (0_u32, 0_u32);
    let mut closest: BTreeMap<Did, Option<Reason>> = BTreeMap::new();
    for device in DEVICES.map(|device| world.device(device)) {
        for ts_us in (-1..=2 * INSTANTS + 30).chain([i64::MIN, i64::MAX]) {
            let wearer = world.register.binding_at(device, ts_us).map(|binding| binding.subject);
            for signal in Registry::builtin().all().iter().map(|signal| signal.id).chain([200, 256]) {
                let Some(subject) = wearer else {
                    prop_assert!(
                        !spans.iter().any(|span| span.device == device && span.contains(signal, ts_us))
                    );
                    continue;
                };
                let at = Point { subject, device, signal, ts_us };
                let found = by_spans(&spans, &subject, &at);
                let decision = decide(&world.state, &world.register, request, &at);
                note(&mut closest, subject, decision, signal);
                match decision {
                    Decision::Permit { grant } => {
                        permits += 1;
                        prop_assert_eq!(found.len(), 1, "{:?}", at);
                        prop_assert_eq!(found[0].grant, grant);
                    }
                    Decision::Deny { reason } => {
                        prop_assert!(found.is_empty(), "{:?} {}", at, reason);
                        denied += u32::from(matches!(reason, crate::Reason::Denied { .. }));
                    }
                }
            }
        }
    }
    prop_assert_eq!(permits > 0, !spans.is_empty());
    compare_reasons(world, request, &closest)?;
    SEEN.with_borrow_mut(|seen| {
        seen.permitting += u32::from(permits > 0);
        seen.mixed += u32::from(permits > 0 && denied > 0);
        seen.overlapping += u32::from(spans.iter().any(|one| spans.iter().any(|other| crosses(one, other))));
    });
    Ok(())
}

/// Remembers the reason that came closest for a subject; nothing once a sample may be seen. Ids that no signal has do not
/// count: there is no such sample.
fn note(closest: &mut BTreeMap<Did, Option<Reason>>, subject: Did, decision: Decision, signal: u32) {
    let found = match decision {
        Decision::Permit { .. } => None,
        Decision::Deny { reason: Reason::UnknownSignal } => return,
        Decision::Deny { reason } => Some(reason),
    };
    assert!(Registry::builtin().by_id(signal).is_some());
    let known = closest.entry(subject).or_insert(found);
    *known = known.zip(found).map(|(known, found)| known.max(found));
}

/// `explain` says of each person the reason that came closest at any point, and nothing of those who may be seen.
fn compare_reasons(
    world: &mut World,
    request: &Request,
    closest: &BTreeMap<Did, Option<Reason>>,
) -> Result<(), TestCaseError> {
    let subjects: BTreeSet<Did> = PEOPLE.map(|name| world.did(name)).into();
    let reasons = explain(&world.state, &world.register, request, &subjects);
    for subject in &subjects {
        let expected = closest.get(subject).copied().unwrap_or(Some(Reason::NotBound));
        prop_assert_eq!(reasons.get(subject).copied(), expected);
    }
    Ok(())
}

/// Whether two spans share a device's time: several grants at work at once.
fn crosses(one: &Span, other: &Span) -> bool {
    one != other && one.device == other.device && one.from_us < other.to_us && other.from_us < one.to_us
}

/// Until the horizon nothing that was visible disappears by time alone.
fn compare_horizon(world: &World, request: &Request) -> Result<(), TestCaseError> {
    let spans = compile(&world.state, &world.register, request);
    let subjects: BTreeSet<Did> = spans.iter().map(|span| span.subject).collect();
    let until_us = horizon(&world.state, &world.register, request, &subjects);
    prop_assert!(until_us > request.now_us);
    for now_us in request.now_us..until_us.min(request.now_us + INSTANTS) {
        let later = compile(&world.state, &world.register, &Request { now_us, ..request.clone() });
        for span in &spans {
            for ts_us in [span.from_us, span.to_us.saturating_sub(1)] {
                let held = later
                    .iter()
                    .filter(|other| other.device == span.device && other.period().contains(ts_us));
                let signals = held.fold(SignalSet::EMPTY, |set, other| set.union(other.signals));
                prop_assert!(span.signals.minus(signals).is_empty(), "{:?} is gone at {}", span, now_us);
            }
        }
    }
    Ok(())
}

/// How often a run met the cases it is for.
#[derive(Default)]
struct Seen {
    permitting: u32,
    mixed: u32,
    overlapping: u32,
}

thread_local! {
    static SEEN: RefCell<Seen> = RefCell::default();
}

type Question = (usize, usize, usize, usize, bool, i64);

fn question() -> impl Strategy<Value = Question> {
    let tier = prop_oneof![4 => Just((0, 0)), 1 => (0..4_usize, 0..3_usize)];
    (0..ASKERS.len(), 0..PURPOSES.len(), tier, prop::bool::weighted(0.3), 0..INSTANTS).prop_map(
        |(asker, purpose, (resolution, use_), study, now_us)| {
            (asker, purpose, resolution, use_, study, now_us)
        },
    )
}

fn vouched(is_clinician: bool, is_in_study: bool) -> Vouched {
    let named = |is_named: bool, name: &str| is_named.then(|| name.to_owned()).into_iter().collect();
    Vouched {
        issuer: "https://id.example".into(),
        roles: named(is_clinician, "clinician"),
        studies: named(is_in_study, "sleep"),
        purposes: BTreeSet::new(),
    }
}

/// Spans are disjoint and equal `decide` pointwise, grant by grant, for every asker and use; and the random states are
/// such that this means something: grants and denies met, several grants shared a device's time.
#[test]
fn spans_equal_decide() {
    // A fixed seed, so that the counts below hold on every run; another seed explores other states.
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[SEED; 32]);
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let bindings = proptest::collection::vec((0..2_usize, 0..3_i64, 1..6_i64), 1..6);
    let tried = TestRunner::new_with_rng(config, rng).run(
        &(bindings, moves(), question()),
        |(bindings, moves, question)| {
            let (asker, purpose, resolution, use_, study, now_us) = question;
            let mut world = world(&bindings);
            for step in &moves {
                play(&mut world, step);
            }
            let request = Request {
                principal: world.did(ASKERS[asker]),
                vouched: None,
                purpose: PURPOSES[purpose].into(),
                study: study.then(|| "sleep".to_owned()),
                resolution: Resolution::ALL[resolution],
                use_: [Use::Rows, Use::Page, Use::Aggregate][use_],
                now_us,
            };
            compare(&mut world, &request)?;
            compare_horizon(&world, &request)?;
            // The same question with groups that a token vouches for, one of them or the other.
            let vouched = Some(Arc::new(vouched(asker == 0, study)));
            let vouched = Request { vouched, ..request };
            compare(&mut world, &vouched)?;
            compare_horizon(&world, &vouched)
        },
    );
    if let Err(failure) = tried {
        panic!("{failure}");
    }
    let seen = SEEN.take();
    let met = (seen.permitting, seen.mixed, seen.overlapping);
    assert!(met.0 >= CASES / 4 && met.1 >= CASES / 20 && met.2 >= CASES / 40, "too few cases met: {met:?}");
}
