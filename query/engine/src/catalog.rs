//! The small tables of the schema `catalog`: what can be measured, which studies the asker works in, and what consent
//! lets the asker see, in numbers only; and why rows are missing (`consent.explain()`). No names of people, no devices.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use query_consents::{GrantCount, ReasonCount, StudyCard};
use schemas_signals::Registry;

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

/// `catalog.studies`: studies, and whether the asker works in them.
pub(crate) fn studies(cards: &[StudyCard]) -> Result<RecordBatch, ArrowError> {
    let schema = Schema::new(vec![
        Field::new("study", DataType::Utf8, false),
        Field::new("title", DataType::Utf8, false),
        Field::new("purposes", DataType::Utf8, false),
        Field::new("duo", DataType::Utf8, false),
        Field::new("member", DataType::Boolean, false),
        Field::new("open", DataType::Boolean, false),
    ]);
    let text = |of: &dyn Fn(&StudyCard) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(cards.iter().map(of)))
    };
    let flag = |of: fn(&StudyCard) -> bool| -> ArrayRef {
        Arc::new(BooleanArray::from(cards.iter().map(of).collect::<Vec<bool>>()))
    };
    let columns: Vec<ArrayRef> = vec![
        text(&|card| card.study.clone()),
        text(&|card| card.title.clone()),
        text(&|card| card.purposes.join(" ")),
        text(&|card| card.duo.join(" ")),
        flag(|card| card.is_member),
        flag(|card| card.is_open),
    ];
    RecordBatch::try_new(Arc::new(schema), columns)
}

/// `catalog.grants`: what kinds of grant speak to the asker, and of how many people.
pub(crate) fn grants(counts: &[GrantCount]) -> Result<RecordBatch, ArrowError> {
    let schema = Schema::new(vec![
        Field::new("kind", DataType::Utf8, false),
        Field::new("name", DataType::Utf8, false),
        Field::new("purpose", DataType::Utf8, false),
        Field::new("resolution", DataType::Utf8, false),
        Field::new("export", DataType::Utf8, false),
        Field::new("people", DataType::Int64, true),
    ]);
    let text = |of: fn(&GrantCount) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(counts.iter().map(of)))
    };
    let people = counts.iter().map(|count| count.people.and_then(|people| i64::try_from(people).ok()));
    let columns: Vec<ArrayRef> = vec![
        text(|count| count.kind),
        text(|count| &count.name),
        text(|count| &count.purpose),
        text(|count| count.resolution.as_str()),
        text(|count| count.export.as_str()),
        Arc::new(people.collect::<Int64Array>()),
    ];
    RecordBatch::try_new(Arc::new(schema), columns)
}

/// `consent.explain()`: people who ever spoke to the asker, by what stands between them and this request at full
/// resolution.
pub(crate) fn reasons(counts: &[ReasonCount]) -> Result<RecordBatch, ArrowError> {
    let schema = Schema::new(vec![
        Field::new("reason", DataType::Utf8, false),
        Field::new("people", DataType::Int64, true),
    ]);
    let people = counts.iter().map(|count| count.people.and_then(|people| i64::try_from(people).ok()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(counts.iter().map(|count| &count.reason))),
        Arc::new(people.collect::<Int64Array>()),
    ];
    RecordBatch::try_new(Arc::new(schema), columns)
}
