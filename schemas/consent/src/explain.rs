//! Why nothing of a person may be seen: the reason that came closest, over every sample there could be. It is `decide` asked
//! at the points where its answer can change; what it is not is a second opinion.

use std::collections::{BTreeMap, BTreeSet};

use schemas_identity::register::{Binding, Device};
use schemas_identity::{Did, Register};
use schemas_signals::Registry;

use crate::decide::{Decision, Point, Reason, Request, decide};
use crate::grant::Grant;
use crate::matching::Context;
use crate::state::{ConsentState, SubjectConsent};
use crate::terms::Period;

/// Why a request may see nothing of these subjects, for each of them; those of whom it may see something are left out.
///
/// A subject who wore no device has [`Reason::NotBound`]. Of several reasons the one furthest down [`Reason`] counts. The work
/// is bounded by subjects x devices they wore x edges of their grants' periods x signals of the registry.
pub fn explain(
    state: &ConsentState,
    register: &Register,
    request: &Request,
    subjects: &BTreeSet<Did>,
) -> BTreeMap<Did, Reason> {
    let context = Context::new(register, request);
    let mut closest: BTreeMap<Did, Option<Reason>> = BTreeMap::new();
    for device in register.devices() {
        for binding in register.bindings(device.number) {
            let subject = register.subject_of(&binding.subject);
            if !subjects.contains(&subject) {
                continue;
            }
            let found = closest_on(state, &context, device, binding, subject);
            let known = closest.entry(subject).or_insert(found);
            // Once something may be seen, nothing else matters.
            *known = known.zip(found).map(|(known, found)| known.max(found));
        }
    }
    let unworn = subjects.iter().map(|subject| (*subject, Some(Reason::NotBound)));
    let mut reasons: BTreeMap<Did, Option<Reason>> = unworn.collect();
    reasons.extend(closest);
    reasons.into_iter().filter_map(|(subject, reason)| Some((subject, reason?))).collect()
}

/// The reason on one body for as long as one device was on it; nothing if some sample may be seen.
fn closest_on(
    state: &ConsentState,
    context: &Context<'_>,
    device: &Device,
    binding: &Binding,
    subject: Did,
) -> Option<Reason> {
    let at = |signal, ts_us| Point { subject, device: device.number, signal, ts_us };
    let judged = |signal, ts_us| match decide(state, context.register, context.request, &at(signal, ts_us)) {
        Decision::Permit { .. } => None,
        Decision::Deny { reason } => Some(reason),
    };
    let worn = Period::new(binding.from_us, binding.to_us);
    let first = judged(Registry::builtin().all().first()?.id, worn.from_us)?;
    let consent = state.subject(&subject);
    if matches!(first, Reason::DeadKey | Reason::Frozen { .. } | Reason::Erased { .. }) || consent.is_none() {
        return Some(first);
    }
    let mut closest = first;
    for ts_us in edges(consent, worn) {
        for signal in Registry::builtin().all() {
            closest = closest.max(judged(signal.id, ts_us)?);
        }
    }
    Some(closest)
}

/// Instants of a worn time from which on the answer may be another one.
fn edges(consent: Option<&SubjectConsent>, worn: Period) -> BTreeSet<i64> {
    let mut edges = BTreeSet::from([worn.from_us]);
    let Some(consent) = consent else { return edges };
    let ended = consent.ended().iter().map(|ended| &ended.grant);
    let rules: Vec<&Grant> = consent.grants().iter().chain(consent.denies()).chain(ended).collect();
    for edge_us in rules.iter().flat_map(|rule| [rule.data.from_us, rule.data.to_us]) {
        if worn.from_us < edge_us && edge_us < worn.to_us {
            edges.insert(edge_us);
        }
    }
    edges
}
