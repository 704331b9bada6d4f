//! The kinds of failure that are told apart, written before any statement was run. Which row or value failed is not part of
//! a kind: with several failing rows it is a matter of luck in any engine.

use datafusion::common::DataFusionError;

use crate::EngineError;

/// Why a statement gave no rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A value does not fit a type: a cast of a text, a number out of range, a time that is none.
    Cast,
    /// Division or remainder by zero.
    Divide,
    /// Arithmetic left the range of its type.
    Overflow,
    /// A scalar sub-query with more than one row.
    Cardinality,
    /// Names or types do not fit.
    Plan,
    /// A fault of the planner both engines are made of, which says so itself.
    Fault,
    /// Refused before it was planned or run, by a bound or for its form.
    Refused(&'static str),
    /// Anything else; equal only if it reads the same.
    Other(String),
}

impl Kind {
    /// Whether the engine refused it for what it is, which no plain engine does.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Kind::Refused(_))
    }
}

/// The kind of what the plain engine says.
pub(crate) fn of_plain(error: &DataFusionError) -> Kind {
    // The planner does not take the plan it made itself (seeds 2,781, 3,879 and 502,355).
    if error.to_string().contains("SanityCheckPlan") {
        return Kind::Fault;
    }
    match error.find_root() {
        DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::SQL(..)
        | DataFusionError::NotImplemented(_) => Kind::Plan,
        _ => of_text(&error.strip_backtrace()),
    }
}

/// The kind of what the engine says inside; outside it says less.
pub(crate) fn of_engine(error: &EngineError) -> Kind {
    match error {
        EngineError::Evaluation(detail) | EngineError::Internal(detail) => of_text(detail),
        EngineError::Plan(_) | EngineError::Syntax(_) => Kind::Plan,
        EngineError::Unsupported(_) | EngineError::TooBig(_) | EngineError::OverBudget(_) => {
            Kind::Refused(error.code())
        }
        other => Kind::Other(other.to_string()),
    }
}

fn of_text(text: &str) -> Kind {
    let says = |part: &str| text.contains(part);
    if says("Divide by zero") {
        Kind::Divide
    } else if says("Cast error")
        || says("Cannot cast")
        || says("Can't cast")
        || says("Error parsing timestamp")
        || says("Parser error")
    {
        Kind::Cast
    } else if says("verflow") {
        Kind::Overflow
    } else if says("a bug in DataFusion's code") {
        Kind::Fault
    } else if says("more than one row") {
        Kind::Cardinality
    } else {
        Kind::Other(text.to_owned())
    }
}
