//! The consent mask: a warrant's spans compiled for fast questions on device number, signal and time.
//! Not a decision about consent: that was taken when the warrant was made. Default is deny: whatever no
//! interval names is not visible.
//!
//! Answers two kinds of question: which intervals of time hold for one device and signal (exact, per row),
//! and whether anything at all may be visible inside a box of ranges (coarse, for pruning).

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};

use arrow::array::StringViewArray;
use parking_lot::Mutex;
use query_audit::Scope;
use query_consents::Basis;
use schemas_consent::Span;
use schemas_identity::{DeviceNumber, Did, ShortId};
use schemas_signals::SignalSet;

use crate::tables::DeviceNames;

mod part;

pub(crate) use part::{Lookup, Part};

/// Time during which one person's consent covers a device and signal; half-open, microseconds UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    /// First visible instant.
    pub from: i64,
    /// First instant no longer visible.
    pub to: i64,
    /// Index into [`Mask::people`].
    pub who: u32,
}

/// Inclusive ranges of the three columns the mask is about, as statistics give them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Device numbers.
    pub devices: (u32, u32),
    /// Signal ids.
    pub signals: (u16, u16),
    /// Instants, microseconds.
    pub times: (i64, i64),
}

impl Bounds {
    /// Everything.
    pub(crate) const ALL: Self =
        Self { devices: (0, u32::MAX), signals: (0, u16::MAX), times: (i64::MIN, i64::MAX) };
}

/// What the user's own leak-proof predicates leave over. `None` = no restriction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Narrow {
    /// Allowed device numbers.
    pub devices: Option<HashSet<u32>>,
    /// Allowed signals.
    pub signals: Option<SignalSet>,
    /// First instant, inclusive.
    pub from: Option<i64>,
    /// Last instant, exclusive.
    pub to: Option<i64>,
}

impl Narrow {
    /// Both must hold.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            devices: intersect(self.devices, other.devices),
            signals: match (self.signals, other.signals) {
                (Some(a), Some(b)) => Some(a.intersect(b)),
                (a, b) => a.or(b),
            },
            from: self.from.max(other.from),
            to: match (self.to, other.to) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
        }
    }

    /// Either may hold; a superset of the true union, which is all that pruning needs.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            devices: unite(self.devices, other.devices),
            signals: self.signals.zip(other.signals).map(|(a, b)| a.union(b)),
            from: self.from.zip(other.from).map(|(a, b)| a.min(b)),
            to: self.to.zip(other.to).map(|(a, b)| a.max(b)),
        }
    }
}

fn intersect(a: Option<HashSet<u32>>, b: Option<HashSet<u32>>) -> Option<HashSet<u32>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.intersection(&b).copied().collect()),
        (a, b) => a.or(b),
    }
}

fn unite(a: Option<HashSet<u32>>, b: Option<HashSet<u32>>) -> Option<HashSet<u32>> {
    a.zip(b).map(|(a, b)| a.union(&b).copied().collect())
}

#[derive(Debug, Clone)]
struct Entry {
    device: u32,
    signals: SignalSet,
    from: i64,
    to: i64,
    who: u32,
}

impl Entry {
    /// What the user's predicates leave of it, its device aside.
    fn narrowed(&self, narrow: &Narrow) -> Option<Self> {
        let mut kept = self.clone();
        if let Some(signals) = narrow.signals {
            kept.signals = kept.signals.intersect(signals);
        }
        kept.from = kept.from.max(narrow.from.unwrap_or(i64::MIN));
        kept.to = kept.to.min(narrow.to.unwrap_or(i64::MAX));
        (kept.from < kept.to && !kept.signals.is_empty()).then_some(kept)
    }
}

/// A warrant's spans, ordered by device and time.
#[derive(Debug)]
pub(crate) struct Mask {
    entries: Vec<Entry>,
    people: Arc<People>,
    /// First and last instant of any entry, to answer most questions about another time at once.
    hull: (i64, i64),
    /// Whether every entry holds for all time, so that nobody need look at a row's time.
    is_timeless: bool,
    /// Devices by the names of a study; made when first asked for.
    numbers: OnceLock<HashMap<ShortId, u32>>,
    /// What of whom lies in it; made when first asked for.
    scopes: OnceLock<Arc<[Scope]>>,
}

/// The people of a mask, shared with masks that were cut down from it.
#[derive(Debug)]
pub(crate) struct People {
    dids: Vec<Did>,
    /// How results name them; made when first asked for.
    names: OnceLock<StringViewArray>,
    /// Who comes when by identity, the order of records; made when first asked for.
    order: OnceLock<Vec<u32>>,
}

impl People {
    fn new(dids: Vec<Did>) -> Arc<Self> {
        Arc::new(Self { dids, names: OnceLock::new(), order: OnceLock::new() })
    }

    /// In the order of [`Interval::who`].
    pub(crate) fn dids(&self) -> &[Did] {
        &self.dids
    }

    /// Everybody's place in [`Self::dids`], by rising identity.
    pub(crate) fn in_order(&self) -> &[u32] {
        self.order.get_or_init(|| {
            let mut order: Vec<u32> = (0..).take(self.dids.len()).collect();
            order.sort_unstable_by_key(|who| self.dids.get(*who as usize));
            order
        })
    }

    /// How results name them, in the same order. `name` is the same function for as long as the mask lives: a mask is kept
    /// for one study only.
    pub(crate) fn names(&self, name: impl Fn(&Did) -> String) -> &StringViewArray {
        self.names.get_or_init(|| StringViewArray::from_iter_values(self.dids.iter().map(name)))
    }
}

impl Mask {
    /// Compiles spans. Empty and inverted spans vanish.
    pub(crate) fn new(spans: &[Span]) -> Self {
        let mut numbers: HashMap<Did, u32> = HashMap::with_capacity(spans.len());
        let mut people = Vec::new();
        let mut entries = Vec::with_capacity(spans.len());
        for span in spans {
            if span.from_us >= span.to_us || span.signals.is_empty() {
                continue;
            }
            let who = *numbers.entry(span.subject).or_insert_with(|| {
                people.push(span.subject);
                u32::try_from(people.len() - 1).unwrap_or(u32::MAX)
            });
            entries.push(Entry {
                device: span.device.0,
                signals: span.signals,
                from: span.from_us,
                to: span.to_us,
                who,
            });
        }
        Self::of(entries, People::new(people))
    }

    /// The same mask, cut down by the user's own predicates.
    pub(crate) fn narrowed(&self, narrow: &Narrow) -> Self {
        let mut entries = Vec::with_capacity(if narrow.devices.is_some() { 0 } else { self.len() });
        match &narrow.devices {
            Some(devices) => {
                // In order, so that people have the same numbers each time.
                let mut devices: Vec<&u32> = devices.iter().collect();
                devices.sort_unstable();
                for device in devices {
                    let own = self.entries.get(self.of_devices(*device, *device)).unwrap_or_default();
                    entries.extend(own.iter().filter_map(|entry| entry.narrowed(narrow)));
                }
            }
            None => entries.extend(self.entries.iter().filter_map(|entry| entry.narrowed(narrow))),
        }
        // Who lost all entries would only cost: names, numbers, counts.
        if entries.len() < self.people.dids.len() / 2 {
            let people = self.renumbered(&mut entries);
            return Self::of(entries, people);
        }
        Self::of(entries, Arc::clone(&self.people))
    }

    /// The people of these entries, which are numbered anew.
    fn renumbered(&self, entries: &mut [Entry]) -> Arc<People> {
        let mut numbers: HashMap<u32, u32> = HashMap::new();
        let mut dids = Vec::new();
        for entry in entries {
            let Some(did) = self.people.dids.get(entry.who as usize) else { continue };
            entry.who = *numbers.entry(entry.who).or_insert_with(|| {
                dids.push(*did);
                u32::try_from(dids.len() - 1).unwrap_or(u32::MAX)
            });
        }
        People::new(dids)
    }

    fn of(mut entries: Vec<Entry>, people: Arc<People>) -> Self {
        // Most come in order: then this is one pass.
        entries.sort_by_key(|entry| (entry.device, entry.from, entry.to));
        let from = entries.iter().map(|entry| entry.from).min().unwrap_or(i64::MAX);
        let to = entries.iter().map(|entry| entry.to).max().unwrap_or(i64::MIN);
        let is_timeless = entries.iter().all(|entry| (entry.from, entry.to) == (i64::MIN, i64::MAX));
        let (numbers, scopes) = (OnceLock::new(), OnceLock::new());
        Self { entries, people, hull: (from, to), is_timeless, numbers, scopes }
    }

    /// The people named.
    pub(crate) fn people(&self) -> &Arc<People> {
        &self.people
    }

    /// How many intervals it has.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What of whom lies in it: one scope a person, by rising identity.
    pub(crate) fn scopes(&self) -> Arc<[Scope]> {
        Arc::clone(self.scopes.get_or_init(|| self.scopes_anew()))
    }

    fn scopes_anew(&self) -> Arc<[Scope]> {
        let mut scopes: Vec<Option<Scope>> = vec![None; self.people.dids.len()];
        for entry in &self.entries {
            let who = entry.who as usize;
            let (Some(place), Some(subject)) = (scopes.get_mut(who), self.people.dids.get(who)) else {
                continue;
            };
            let scope =
                Scope { subject: *subject, signals: entry.signals, from_us: entry.from, to_us: entry.to };
            place.get_or_insert(scope).widen(&scope);
        }
        self.people.in_order().iter().filter_map(|who| scopes.get(*who as usize).copied().flatten()).collect()
    }

    /// Distinct device numbers, ascending.
    pub(crate) fn devices(&self) -> Vec<u32> {
        let mut devices: Vec<u32> = self.entries.iter().map(|entry| entry.device).collect();
        devices.dedup();
        devices
    }

    /// The number of one of its devices by name. `names` is the same function for as long as the mask lives: a mask is
    /// kept for one study only. While it does not know them all, what it says is not kept.
    pub(crate) fn number(&self, name: ShortId, names: &DeviceNames) -> Option<u32> {
        if let Some(numbers) = self.numbers.get() {
            return numbers.get(&name).copied();
        }
        let devices = self.devices();
        let named = devices.iter().filter_map(|number| Some((names(DeviceNumber(*number))?, *number)));
        let numbers: HashMap<ShortId, u32> = named.collect();
        let found = numbers.get(&name).copied();
        if numbers.len() == devices.len() {
            let _ = self.numbers.set(numbers);
        }
        found
    }

    /// The visible intervals of one device and signal, disjoint and ascending, into `out`.
    fn intervals(&self, entries: &[Entry], signal: u16, out: &mut Vec<Interval>) {
        out.clear();
        for entry in entries {
            if entry.signals.contains(u32::from(signal)) {
                let from = out.last().map_or(entry.from, |last: &Interval| last.to.max(entry.from));
                if from < entry.to {
                    out.push(Interval { from, to: entry.to, who: entry.who });
                }
            }
        }
    }

    /// False only if nothing inside `bounds` can be visible by the intervals in these places.
    fn any_of(&self, places: Range<usize>, bounds: &Bounds) -> bool {
        let signals = SignalSet::between(u32::from(bounds.signals.0), u32::from(bounds.signals.1));
        self.entries.get(places).unwrap_or_default().iter().any(|entry| {
            entry.from <= bounds.times.1
                && entry.to > bounds.times.0
                && !entry.signals.intersect(signals).is_empty()
        })
    }

    /// Where the intervals of these devices stand.
    fn of_devices(&self, first: u32, last: u32) -> Range<usize> {
        let start = self.entries.partition_point(|entry| entry.device < first);
        let end = self.entries.partition_point(|entry| entry.device <= last);
        start..end.max(start)
    }
}

/// Most intervals kept in all compiled masks, about 200 bytes each with names and scopes.
const KEPT_INTERVALS_MAX: usize = 1_000_000;

/// Masks compiled before, for as long as what they were compiled from is in use or kept; the last used first.
#[derive(Default)]
pub(crate) struct Masks {
    kept: Mutex<Vec<(Weak<Basis>, Arc<Mask>)>>,
}

impl Masks {
    /// The mask of a basis.
    pub(crate) fn of(&self, basis: &Arc<Basis>) -> Arc<Mask> {
        let mut kept = self.kept.lock();
        kept.retain(|(from, _)| from.strong_count() > 0);
        let found = kept.iter().position(|(from, _)| std::ptr::eq(from.as_ptr(), Arc::as_ptr(basis)));
        let entry = match found {
            Some(index) => kept.remove(index),
            None => (Arc::downgrade(basis), Arc::new(Mask::new(basis.spans()))),
        };
        let mask = Arc::clone(&entry.1);
        kept.insert(0, entry);
        let mut intervals = 0;
        kept.retain(|(_, mask)| {
            intervals += mask.len();
            intervals <= KEPT_INTERVALS_MAX
        });
        mask
    }
}
