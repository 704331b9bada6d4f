//! The small tables of the schema `catalog`: what can be measured, which studies the asker works in, and what
//! consent lets the asker see, in numbers only. No names of people, no devices.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use schemas_consent::spans::Span;
use schemas_signals::Registry;
use schemas_signals::columns::timestamp;

/// `catalog.signals`: the registry.
pub(crate) fn signals() -> Result<RecordBatch, ArrowError> {
    let all = Registry::builtin().all();
    let text = |of: fn(&schemas_signals::Signal) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(all.iter().map(of)))
    };
    let schema = Schema::new(vec![
        Field::new("id", DataType::UInt32, false),
        Field::new("name", DataType::Utf8, false),
        Field::new("title", DataType::Utf8, false),
        Field::new("class", DataType::Utf8, false),
        Field::new("unit", DataType::Utf8, false),
        Field::new("system", DataType::Utf8, false),
        Field::new("code", DataType::Utf8, false),
        Field::new("range_min", DataType::Float64, false),
        Field::new("range_max", DataType::Float64, false),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(all.iter().map(|signal| signal.id))),
        text(|signal| &signal.name),
        text(|signal| &signal.title),
        text(|signal| &signal.class),
        text(|signal| &signal.unit),
        text(|signal| &signal.system),
        text(|signal| &signal.code),
        Arc::new(Float64Array::from_iter_values(all.iter().map(|signal| signal.range_min))),
        Arc::new(Float64Array::from_iter_values(all.iter().map(|signal| signal.range_max))),
    ];
    RecordBatch::try_new(Arc::new(schema), columns)
}

/// A study as the catalogue shows it.
pub(crate) struct StudyRow {
    /// Its id.
    pub study: String,
    /// Its title.
    pub title: String,
    /// Its purposes, joined by spaces.
    pub purposes: String,
}

/// `catalog.studies`: the asker's studies.
pub(crate) fn studies(rows: &[StudyRow]) -> Result<RecordBatch, ArrowError> {
    let schema = Schema::new(vec![
        Field::new("study", DataType::Utf8, false),
        Field::new("title", DataType::Utf8, false),
        Field::new("purposes", DataType::Utf8, false),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.study))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.title))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.purposes))),
    ];
    RecordBatch::try_new(Arc::new(schema), columns)
}

/// `catalog.grants`: per signal, how many people and devices the warrant covers, and from when to when.
pub(crate) fn grants(spans: &[Span]) -> Result<RecordBatch, ArrowError> {
    #[derive(Default)]
    struct Cover {
        people: HashSet<schemas_identity::Did>,
        devices: HashSet<u32>,
        from: Option<i64>,
        to: Option<i64>,
    }
    let mut by_signal: BTreeMap<u32, Cover> = BTreeMap::new();
    for span in spans {
        for signal in span.signals.iter() {
            let cover = by_signal.entry(signal).or_default();
            cover.people.insert(span.subject);
            cover.devices.insert(span.device.0);
            cover.from = Some(cover.from.map_or(span.from_us, |from| from.min(span.from_us)));
            cover.to = Some(cover.to.map_or(span.to_us, |to| to.max(span.to_us)));
        }
    }
    let registry = Registry::builtin();
    let schema = Schema::new(vec![
        Field::new("signal", DataType::Utf8, true),
        Field::new("subjects", DataType::Int64, false),
        Field::new("devices", DataType::Int64, false),
        Field::new("from", timestamp(), true),
        Field::new("to", timestamp(), true),
    ]);
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter(
            by_signal.keys().map(|id| registry.by_id(*id).map(|signal| signal.name.as_str())),
        )),
        Arc::new(Int64Array::from_iter_values(by_signal.values().map(|cover| count(cover.people.len())))),
        Arc::new(Int64Array::from_iter_values(by_signal.values().map(|cover| count(cover.devices.len())))),
        Arc::new(
            by_signal
                .values()
                .map(|cover| cover.from.filter(|from| *from != i64::MIN))
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        ),
        Arc::new(
            by_signal
                .values()
                .map(|cover| cover.to.filter(|to| *to != i64::MAX))
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        ),
    ];
    RecordBatch::try_new(Arc::new(schema), columns)
}
