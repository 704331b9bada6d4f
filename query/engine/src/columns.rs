//! The columns SQL sees, the lake's columns they are made of, and the names that rows share. How rows are made of them is
//! `gather`'s business.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, ListArray, RecordBatch, StringViewArray, TimestampMicrosecondArray,
    UInt32Array,
};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType, UInt16Type, UInt32Type};
use arrow::error::ArrowError;
use query_consents::Warrant;
use schemas_identity::{BootId, DeviceNumber, ShortId};
use schemas_signals::Registry;
use schemas_signals::columns::ORIGIN_COLUMNS;

use crate::mask::Mask;
use crate::tables::{DeviceNames, FileKind};

/// What a column of names names. Each has few: a scan gathers them once, and a row is the number of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    Subject,
    Device,
    Signal,
    Unit,
}

/// A column of `readings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// A name.
    Name(Label),
    /// The name's number instead, for operators to which it is as good (`numbered`); no statement can ask for it.
    Number(Label),
    Ts,
    Value,
    Flags,
    ReceivedAt,
    Boot,
    Seq,
}

impl Column {
    /// The column of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "subject" => Self::Name(Label::Subject),
            "device" => Self::Name(Label::Device),
            "signal" => Self::Name(Label::Signal),
            "unit" => Self::Name(Label::Unit),
            "ts" => Self::Ts,
            "value" => Self::Value,
            "flags" => Self::Flags,
            "received_at" => Self::ReceivedAt,
            "boot" => Self::Boot,
            "seq" => Self::Seq,
            _ => return None,
        })
    }

    /// What must be read from the lake besides device, signal and time.
    fn sources(self) -> &'static [&'static str] {
        match self {
            Self::Value => &["raw", "num", "den", "real"],
            Self::Flags => &["flags"],
            Self::ReceivedAt => &["received_at"],
            Self::Boot => &["boot"],
            Self::Seq => &["seq"],
            _ => &[],
        }
    }
}

/// The lake columns a projection needs, and the mask: one that holds for all time asks for no time of scalar rows.
pub(crate) fn sources(kind: FileKind, columns: &[Column], is_timeless: bool) -> Vec<&'static str> {
    let mut names = vec!["device", "signal"];
    if kind == FileKind::Wave || !is_timeless || columns.contains(&Column::Ts) {
        names.push("ts");
    }
    if kind == FileKind::Wave {
        names.extend(["ts_last", "period_us"]);
    }
    for column in columns {
        names.extend(column.sources());
    }
    names
}

/// The names a scan shows again and again, each stored once and shared by every row. Equal names have one number, so that
/// rows may be grouped by it. People are not compared: their dids differ, and so do pseudonyms of 128 bits.
pub(crate) struct Labels {
    subjects: StringViewArray,
    devices: StringViewArray,
    device_numbers: HashMap<u32, u32>,
    signals: StringViewArray,
    units: StringViewArray,
    /// By signal; as many as there are signals.
    unit_numbers: Vec<u32>,
    warrant: Arc<Warrant>,
}

impl Labels {
    /// Gathers the names that a mask can show in these columns.
    pub(crate) fn new(mask: &Mask, columns: &[Column], warrant: &Arc<Warrant>, names: &DeviceNames) -> Self {
        let shows = |label: Label| columns.contains(&Column::Name(label));
        let subjects = match shows(Label::Subject) {
            true => mask.people().names(|person| warrant.pseudonym(person)).clone(),
            false => StringViewArray::from_iter_values(std::iter::empty::<&str>()),
        };
        let devices = if shows(Label::Device) { mask.devices() } else { Vec::new() };
        let (devices, device_numbers) = device_names(&devices, names);
        let registry = Registry::builtin();
        let last = registry.all().iter().map(|signal| signal.id).max().unwrap_or(0);
        // Without nulls, which would cost every row of a column a look: a signal nobody knows has no name, see
        // `Self::signal`.
        let of = |id: u32| registry.by_id(id);
        let (units, unit_numbers) =
            numbered((0..=last).map(|id| of(id).map_or("", |signal| signal.unit.as_str())));
        Self {
            subjects,
            devices,
            device_numbers,
            signals: StringViewArray::from_iter_values(
                (0..=last).map(|id| of(id).map_or("", |signal| signal.name.as_str())),
            ),
            units,
            unit_numbers,
            warrant: Arc::clone(warrant),
        }
    }

    /// The names, in the order of their numbers.
    pub(crate) fn names(&self, label: Label) -> &StringViewArray {
        match label {
            Label::Subject => &self.subjects,
            Label::Device => &self.devices,
            Label::Signal => &self.signals,
            Label::Unit => &self.units,
        }
    }

    /// The number of the name that a run's rows have.
    pub(crate) fn number(&self, label: Label, run: &Run) -> Option<u32> {
        let number = match label {
            Label::Subject => Some(run.who),
            Label::Device => self.device_numbers.get(&run.device).copied(),
            Label::Signal => self.signal(run),
            Label::Unit => {
                self.signal(run).and_then(|signal| self.unit_numbers.get(signal as usize).copied())
            }
        };
        number.filter(|number| (*number as usize) < self.names(label).len())
    }

    /// The name of a boot.
    pub(crate) fn boot(&self, boot: BootId) -> String {
        self.warrant.boot(boot).to_string()
    }

    /// A signal's own number, if it has a name.
    fn signal(&self, run: &Run) -> Option<u32> {
        let row = usize::from(run.signal);
        let is_known = row < self.signals.len() && !self.signals.value(row).is_empty();
        is_known.then_some(u32::from(run.signal))
    }
}

/// The names of devices, and the number of each device's name. A name unknown to an older view is no reason to fail,
/// and none to leave a permitted row out.
fn device_names(devices: &[u32], names: &DeviceNames) -> (StringViewArray, HashMap<u32, u32>) {
    let mut known: HashMap<Option<ShortId>, u32> = HashMap::with_capacity(devices.len());
    let mut numbers = HashMap::with_capacity(devices.len());
    let mut texts = Vec::with_capacity(devices.len());
    for device in devices {
        let id = names(DeviceNumber(*device));
        let number = *known.entry(id).or_insert_with(|| {
            texts.push(id.map_or_else(String::new, |id| id.to_string()));
            u32::try_from(texts.len() - 1).unwrap_or(u32::MAX)
        });
        numbers.insert(*device, number);
    }
    (StringViewArray::from_iter_values(texts), numbers)
}

/// The different ones among some texts, and the number of each text.
fn numbered<'a>(texts: impl Iterator<Item = &'a str>) -> (StringViewArray, Vec<u32>) {
    let mut known: HashMap<&str, u32> = HashMap::new();
    let mut different = Vec::new();
    let numbers = texts.map(|text| {
        *known.entry(text).or_insert_with(|| {
            different.push(text);
            u32::try_from(different.len() - 1).unwrap_or(u32::MAX)
        })
    });
    let numbers = numbers.collect();
    (StringViewArray::from_iter_values(different), numbers)
}

/// Whether a projection asks for what files keep once per frame.
pub(crate) fn wants_origin(columns: &[Column]) -> bool {
    columns.iter().flat_map(|column| column.sources()).any(|name| ORIGIN_COLUMNS.contains(name))
}

/// A run of visible samples of one lake row (wave) or of successive lake rows (scalar), all of one person,
/// device and signal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Lake row (the first, for scalar).
    pub row: usize,
    /// First sample in that row (0 for scalar).
    pub start: usize,
    /// Samples (wave) or rows (scalar).
    pub len: usize,
    /// Index into the mask's people.
    pub who: u32,
    /// Device number.
    pub device: u32,
    /// Signal id.
    pub signal: u16,
}

/// A lake column by its name.
pub(crate) fn named<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, ArrowError> {
    batch.column_by_name(name).ok_or_else(|| wrong(name))
}

/// A lake column that is not as it must be.
pub(crate) fn wrong(name: &str) -> ArrowError {
    ArrowError::SchemaError(format!("lake column {name} is missing or of another type"))
}

/// A signed 64-bit lake column.
pub(crate) fn integers<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a Int64Array, ArrowError> {
    named(batch, name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong(name))
}

/// An unsigned 32-bit lake column.
pub(crate) fn unsigned<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a UInt32Array, ArrowError> {
    named(batch, name)?.as_primitive_opt::<UInt32Type>().ok_or_else(|| wrong(name))
}

/// The lake's signal column.
pub(crate) fn signals(batch: &RecordBatch) -> Result<&arrow::array::UInt16Array, ArrowError> {
    named(batch, "signal")?.as_primitive_opt::<UInt16Type>().ok_or_else(|| wrong("signal"))
}

/// A time column of the lake.
pub(crate) fn timestamps<'a>(
    batch: &'a RecordBatch,
    name: &str,
) -> Result<&'a TimestampMicrosecondArray, ArrowError> {
    named(batch, name)?.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| wrong(name))
}

/// A lake column of lists.
pub(crate) fn list<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ListArray, ArrowError> {
    named(batch, name)?.as_list_opt::<i32>().ok_or_else(|| wrong(name))
}

/// Some of a column's values.
pub(crate) fn slice<T>(values: &[T], start: usize, len: usize) -> Result<&[T], ArrowError> {
    values
        .get(start..start.saturating_add(len))
        .ok_or_else(|| ArrowError::InvalidArgumentError("lake row is shorter than it says".to_owned()))
}
