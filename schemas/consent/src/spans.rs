//! The decision for every sample at once: disjoint intervals per device, ready for a scan to mask with.
//!
//! Binding x grants - denies. What it is not: a second opinion. Pointwise it equals [`decide`](crate::decide()), and a
//! property test over random states says so.

use std::collections::{BTreeSet, HashMap};

use schemas_identity::register::{Binding, Device};
use schemas_identity::{DeviceNumber, Did, Register, StatementId};
use schemas_signals::{Registry, SignalSet};

use crate::decide::Request;
use crate::grant::{Devices, Grant, Grantee};
use crate::matching::{Context, covers_device};
use crate::state::{ConsentState, EMERGENCY_ROLE, SubjectConsent, emergency_signals};
use crate::terms::Period;

/// These signals of this device may be seen over this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The device.
    pub device: DeviceNumber,
    /// The signals. Two spans of one device that overlap in time have no signal in common.
    pub signals: SignalSet,
    /// First instant, microseconds since 1970 UTC; `i64::MIN` is open.
    pub from_us: i64,
    /// First instant after; `i64::MAX` is open.
    pub to_us: i64,
    /// Whose body it was on.
    pub subject: Did,
    /// The grant or break-glass statement that allows it; nothing for the subject's own look.
    pub grant: Option<StatementId>,
}

impl Span {
    /// The time as a period.
    pub fn period(&self) -> Period {
        Period { from_us: self.from_us, to_us: self.to_us }
    }

    /// Whether a sample of this device lies inside.
    pub fn contains(&self, signal: u32, ts_us: i64) -> bool {
        self.signals.contains(signal) && self.period().contains(ts_us)
    }
}

/// Everything the request may see, sorted by device, then by time.
pub fn compile(state: &ConsentState, register: &Register, request: &Request) -> Vec<Span> {
    let context = Context::new(register, request);
    let mut subjects = candidates(state, &context);
    subjects.insert(*context.asker.party());
    cut_all(register, &views(state, &context, &subjects))
}

/// [`compile`], cut down to these subjects: what to put in the place of their spans when only they said something new.
pub fn compile_some(
    state: &ConsentState,
    register: &Register,
    request: &Request,
    subjects: &BTreeSet<Did>,
) -> Vec<Span> {
    cut_all(register, &views(state, &Context::new(register, request), subjects))
}

fn cut_all(register: &Register, views: &HashMap<Did, View<'_>>) -> Vec<Span> {
    let mut spans = Vec::new();
    if views.is_empty() {
        return spans;
    }
    for device in register.devices() {
        for binding in register.bindings(device.number) {
            let subject = register.subject_of(&binding.subject);
            if let Some(view) = views.get(&subject) {
                view.cut(device, binding, subject, &mut spans);
            }
        }
    }
    spans
}

/// Subjects that ever said something to the one who asks, or for whom the glass was broken, allowed or not.
pub fn named_subjects(state: &ConsentState, register: &Register, request: &Request) -> BTreeSet<Did> {
    candidates(state, &Context::new(register, request))
}

/// Which of these subjects [`named_subjects`] has.
pub fn named_among(
    state: &ConsentState,
    register: &Register,
    request: &Request,
    subjects: &BTreeSet<Did>,
) -> BTreeSet<Did> {
    let context = Context::new(register, request);
    let grantees: Vec<&Grantee> = state.grantees().filter(|grantee| concerns(&context, grantee)).collect();
    let is_named = |subject: &&Did| {
        let is_opened = state.is_opened_by(context.asker.party(), subject);
        is_opened || grantees.iter().any(|grantee| state.names(grantee, subject))
    };
    subjects.iter().filter(is_named).copied().collect()
}

/// Up to when the answer about these subjects stays what it is if nobody says anything, microseconds since 1970 UTC:
/// unlike [`horizon`] it also counts what begins to allow. What it says may be too early, never too late.
pub fn steady_until(
    state: &ConsentState,
    register: &Register,
    request: &Request,
    subjects: &BTreeSet<Did>,
) -> i64 {
    let context = Context::new(register, request);
    let mut edges: Vec<i64> = Vec::new();
    for consent in subjects.iter().filter_map(|subject| state.subject(subject)) {
        for rule in consent.grants().iter().chain(consent.denies()) {
            if concerns(&context, &rule.grantee) {
                edges.extend([rule.valid.from_us, rule.valid.to_us]);
            }
        }
        let windows = consent.emergencies().iter().map(|emergency| emergency.window);
        edges.extend(windows.flat_map(|window| [window.from_us, window.to_us]));
    }
    for role in register.roles() {
        edges.extend(role.from.into_iter().chain(role.to));
    }
    if let Some(study) = request.study.as_ref().and_then(|name| register.study(name)) {
        edges.extend(study.from.into_iter().chain(study.to));
    }
    edges.into_iter().filter(|edge_us| *edge_us > request.now_us).min().unwrap_or(i64::MAX)
}

/// When the answer for these subjects may next change by time alone, microseconds since 1970 UTC; `i64::MAX` is never.
///
/// A stream that outlives this instant must be asked for again.
pub fn horizon(
    state: &ConsentState,
    register: &Register,
    request: &Request,
    subjects: &BTreeSet<Did>,
) -> i64 {
    let context = Context::new(register, request);
    let mut until_us = i64::MAX;
    let mut groups: BTreeSet<&Grantee> = BTreeSet::new();
    for consent in subjects.iter().filter_map(|subject| state.subject(subject)) {
        for grant in consent.grants().iter().filter(|grant| context.permits(grant).is_ok()) {
            until_us = until_us.min(grant.valid.to_us);
            groups.insert(&grant.grantee);
        }
        for deny in consent.denies().iter().filter(|deny| context.may_deny(deny)) {
            if deny.valid.from_us > request.now_us {
                until_us = until_us.min(deny.valid.from_us);
            }
        }
        for emergency in consent.emergencies().iter().filter(|emergency| context.opens(emergency)) {
            until_us = until_us.min(emergency.window.to_us);
            until_us = until_us.min(role_end(register, EMERGENCY_ROLE));
        }
    }
    for group in groups {
        until_us = until_us.min(match group {
            Grantee::Party(_) => i64::MAX,
            Grantee::Role(name) => role_end(register, name),
            Grantee::Study(name) => match register.study(name) {
                Some(study) => study.to.unwrap_or(i64::MAX),
                None => i64::MAX,
            },
        });
    }
    until_us
}

fn role_end(register: &Register, name: &str) -> i64 {
    match register.role(name) {
        Some(role) => role.to.unwrap_or(i64::MAX),
        None => i64::MAX,
    }
}

fn candidates(state: &ConsentState, context: &Context<'_>) -> BTreeSet<Did> {
    let mut subjects = BTreeSet::new();
    for grantee in state.grantees().filter(|grantee| concerns(context, grantee)) {
        subjects.extend(state.naming(grantee).copied());
    }
    subjects.extend(state.opened_by(context.asker.party()).copied());
    subjects
}

/// Whether a grantee is the one who asks, in force or not.
fn concerns(context: &Context<'_>, grantee: &Grantee) -> bool {
    match grantee {
        Grantee::Party(party) => context.asker.is(party),
        Grantee::Role(name) => context.asker.may_have_role(name),
        Grantee::Study(name) => context.request.study.as_deref() == Some(name),
    }
}

/// What a request may see of one subject, samples aside.
struct View<'a> {
    /// In order of precedence.
    permits: Vec<Rule<'a>>,
    denies: Vec<Rule<'a>>,
}

#[derive(Clone, Copy)]
struct Rule<'a> {
    signals: SignalSet,
    devices: &'a Devices,
    data: Period,
    id: Option<StatementId>,
}

impl<'a> Rule<'a> {
    fn of(grant: &'a Grant) -> Rule<'a> {
        Rule { signals: grant.signals, devices: &grant.devices, data: grant.data, id: Some(grant.id) }
    }

    fn always(signals: SignalSet, id: Option<StatementId>) -> Rule<'a> {
        Rule { signals, devices: &Devices::All, data: Period::ALWAYS, id }
    }
}

fn views<'a>(
    state: &'a ConsentState,
    context: &Context<'_>,
    subjects: &BTreeSet<Did>,
) -> HashMap<Did, View<'a>> {
    let mut views = HashMap::new();
    if !context.is_live() {
        return views;
    }
    for subject in subjects {
        if let Some(view) = view(state.subject(subject), context, subject) {
            views.insert(*subject, view);
        }
    }
    views
}

fn view<'a>(consent: Option<&'a SubjectConsent>, context: &Context<'_>, subject: &Did) -> Option<View<'a>> {
    let own =
        || View { permits: vec![Rule::always(Registry::builtin().everything(), None)], denies: Vec::new() };
    let Some(consent) = consent else { return context.is_own(subject).then(own) };
    if context.blocked(consent).is_some() {
        return None;
    }
    if context.is_own(subject) {
        return Some(own());
    }
    let mut permits: Vec<Rule<'a>> =
        consent.grants().iter().filter(|grant| context.permits(grant).is_ok()).map(Rule::of).collect();
    let openings = consent.emergencies().iter().filter(|emergency| context.opens(emergency));
    permits.extend(openings.map(|open| Rule::always(emergency_signals(), Some(open.statement))));
    if permits.is_empty() {
        return None;
    }
    let denies = consent.denies().iter().filter(|deny| context.denies(deny)).map(Rule::of).collect();
    Some(View { permits, denies })
}

impl View<'_> {
    /// Appends the spans of one binding: time is cut wherever a rule begins or ends, signals go to the first permit.
    fn cut(&self, device: &Device, binding: &Binding, subject: Did, spans: &mut Vec<Span>) {
        let worn = Period::new(binding.from_us, binding.to_us);
        let (permits, denies) = (on_device(&self.permits, device), on_device(&self.denies, device));
        let cuts = cuts(worn, permits.iter().chain(&denies));
        let first = spans.len();
        for pair in cuts.windows(2) {
            let &[from_us, to_us] = pair else { continue };
            let mut open = Registry::builtin().everything();
            for deny in denies.iter().filter(|deny| deny.data.contains(from_us)) {
                open = open.minus(deny.signals);
            }
            for permit in permits.iter().filter(|permit| permit.data.contains(from_us)) {
                let signals = open.intersect(permit.signals);
                open = open.minus(signals);
                if !signals.is_empty() {
                    let span =
                        Span { device: device.number, signals, from_us, to_us, subject, grant: permit.id };
                    push(span, first, spans);
                }
            }
        }
    }
}

fn on_device<'r>(rules: &[Rule<'r>], device: &Device) -> Vec<Rule<'r>> {
    rules.iter().filter(|rule| covers_device(rule.devices, device)).copied().collect()
}

/// Every instant inside the worn time at which a rule begins or ends, with the worn time's own ends.
fn cuts<'r>(worn: Period, rules: impl Iterator<Item = &'r Rule<'r>>) -> Vec<i64> {
    let mut cuts = vec![worn.from_us, worn.to_us];
    for rule in rules {
        for edge_us in [rule.data.from_us, rule.data.to_us] {
            if worn.from_us < edge_us && edge_us < worn.to_us {
                cuts.push(edge_us);
            }
        }
    }
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// Appends, or lengthens the span that ends where this one begins and otherwise says the same.
fn push(span: Span, first: usize, spans: &mut Vec<Span>) {
    let joined = spans.iter_mut().skip(first).find(|known| {
        known.to_us == span.from_us && known.signals == span.signals && known.grant == span.grant
    });
    match joined {
        Some(known) => known.to_us = span.to_us,
        None => spans.push(span),
    }
}
