//! Property: compiled spans say the same as `decide`, at every point where the answer can change, over random states.

use std::collections::BTreeSet;

use proptest::prelude::*;
use schemas_identity::statement::{Devices, GranteeKind, RevokeTarget};
use schemas_identity::{Body, Did};
use schemas_signals::{Registry, SignalSet};

use super::world::{World, owned};
use crate::{Decision, Point, Request, Resolution, Span, Use, compile, decide, horizon, named_subjects};

const PEOPLE: [&str; 2] = ["anna", "ben"];
const ASKERS: [&str; 3] = ["rita", "cleo", "anna"];
const DEVICES: [&str; 2] = ["watch1", "watch2"];
const SIGNALS: [&str; 5] = ["heart_rate", "vitals", "steps", "*", "waveform"];
const PURPOSES: [&str; 3] = ["HRESCH", "TREAT", "ETREAT"];
const RESOLUTIONS: [&str; 4] = ["raw", "1m", "1h", "aggregate"];
const EXPORTS: [&str; 3] = ["none", "aggregate", "rows"];
/// Instants are small, so that edges meet.
const INSTANTS: i64 = 8;

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

fn rule() -> impl Strategy<Value = Move> {
    let who = (any::<bool>(), 0..2_usize, 0..4_usize, 0..SIGNALS.len(), 0..3_usize);
    let terms = (0..4_usize, 0..PURPOSES.len(), 0..3_usize);
    (who, terms, ends(), ends()).prop_map(|((is_deny, who, to, signal, device), terms, data, valid)| {
        Move::Rule { is_deny, who, to, signal, device, terms, data, valid }
    })
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        12 => rule(),
        1 => (0..2_usize, any::<bool>()).prop_map(|(who, all)| Move::Revoke { who, all }),
        1 => (0..2_usize).prop_map(|who| Move::Freeze { who }),
        2 => (0..2_usize, -20_000..10_i64).prop_map(|(who, at_s)| Move::Glass { who, at_s }),
        1 => (0..2_usize).prop_map(|who| Move::Erase { who }),
    ];
    proptest::collection::vec(one, 0..14)
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
            body.purposes = owned(&[PURPOSES[terms.1]]);
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
    let mut permits = 0;
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
                match decide(&world.state, &world.register, request, &at) {
                    Decision::Permit { grant } => {
                        permits += 1;
                        prop_assert_eq!(found.len(), 1, "{:?}", at);
                        prop_assert_eq!(found[0].grant, grant);
                    }
                    Decision::Deny { reason } => prop_assert!(found.is_empty(), "{:?} {}", at, reason),
                }
            }
        }
    }
    prop_assert_eq!(permits > 0, !spans.is_empty());
    Ok(())
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Spans are disjoint and equal `decide` pointwise, grant by grant, for every asker and use.
    #[test]
    fn spans_equal_decide(
        bindings in proptest::collection::vec((0..2_usize, 0..3_i64, 1..6_i64), 1..6),
        moves in moves(),
        (asker, purpose, resolution, use_, study, now_us) in
            (0..ASKERS.len(), 0..PURPOSES.len(), 0..4_usize, 0..3_usize, any::<bool>(), 0..INSTANTS),
    ) {
        let mut world = world(&bindings);
        for step in &moves {
            play(&mut world, step);
        }
        let request = Request {
            principal: world.did(ASKERS[asker]),
            purpose: PURPOSES[purpose].into(),
            study: study.then(|| "sleep".to_owned()),
            resolution: Resolution::ALL[resolution],
            use_: [Use::Rows, Use::Page, Use::Aggregate][use_],
            now_us,
        };
        compare(&mut world, &request)?;
        compare_horizon(&world, &request)?;
    }
}
