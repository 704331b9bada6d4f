//! The small vocabulary of a grant: purposes, resolutions, exports, uses and half-open periods.
//!
//! What it is not: a hierarchy. Purposes match exactly; a grant for `HRESCH` says nothing about `BIORCH`.

use std::fmt;

/// The purposes of HL7 v3 ActReason (value set PurposeOfUse) that a grant may name. Anything else is refused.
pub const PURPOSES: &[&str] = &[
    "BIORCH",
    "BTG",
    "CAREMGT",
    "CLINTRCH",
    "CLINTRCHNPC",
    "CLINTRCHPC",
    "CLINTRL",
    "CLMATTCH",
    "COC",
    "COVAUTH",
    "COVERAGE",
    "DISASTER",
    "DONAT",
    "DSRCH",
    "ELIGDTRM",
    "ELIGVER",
    "ENROLLM",
    "ERTREAT",
    "ETREAT",
    "FAMRQT",
    "FRAUD",
    "GOV",
    "HACCRED",
    "HCOMPL",
    "HDECD",
    "HDIRECT",
    "HDM",
    "HLEGAL",
    "HMARKT",
    "HOPERAT",
    "HOUTCOMS",
    "HPAYMT",
    "HPRGRP",
    "HQUALIMP",
    "HRESCH",
    "HSYSADMIN",
    "HTEST",
    "LABELING",
    "MEMADMIN",
    "METAMGT",
    "MILCDM",
    "MILDCRG",
    "PATADMIN",
    "PATRQT",
    "PATSFTY",
    "PERFMSR",
    "POARCH",
    "POPHLTH",
    "PRECLINTRCH",
    "PUBHLTH",
    "PWATRNY",
    "RECORDMGT",
    "REMITADV",
    "SUPNWK",
    "SYSDEV",
    "THREAT",
    "TRAIN",
    "TRANSRCH",
    "TREAT",
];

/// The purposes a break-glass access may state.
pub const EMERGENCY_PURPOSES: &[&str] = &["ETREAT", "BTG"];

/// Whether the purpose is one of [`PURPOSES`], exactly.
pub fn is_purpose(purpose: &str) -> bool {
    PURPOSES.binary_search(&purpose).is_ok()
}

/// How fine the data may be seen. Ordered from finest to coarsest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resolution {
    /// Every sample.
    Raw,
    /// One-minute summaries.
    Minute,
    /// One-hour summaries.
    Hour,
    /// Only inside a group.
    Aggregate,
}

impl Resolution {
    /// All of them, finest first.
    pub const ALL: [Resolution; 4] =
        [Resolution::Raw, Resolution::Minute, Resolution::Hour, Resolution::Aggregate];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Resolution::Raw => "raw",
            Resolution::Minute => "1m",
            Resolution::Hour => "1h",
            Resolution::Aggregate => "aggregate",
        }
    }

    /// Reads the name on the wire; anything else is nothing.
    pub fn parse(text: &str) -> Option<Resolution> {
        Resolution::ALL.into_iter().find(|known| known.as_str() == text)
    }
}

impl fmt::Display for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What may leave the house. Ordered from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Export {
    /// Our own pages only: SQL returns no row.
    None,
    /// Our pages and group statistics: SQL returns no row of the person.
    Aggregate,
    /// Rows.
    Rows,
}

impl Export {
    /// All of them, least first.
    pub const ALL: [Export; 3] = [Export::None, Export::Aggregate, Export::Rows];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Export::None => "none",
            Export::Aggregate => "aggregate",
            Export::Rows => "rows",
        }
    }

    /// Reads the name on the wire; anything else is nothing.
    pub fn parse(text: &str) -> Option<Export> {
        Export::ALL.into_iter().find(|known| known.as_str() == text)
    }
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the asking side will do with the data: the door decides this, never the person who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Use {
    /// Rows leave through SQL: needs `export: rows`.
    Rows,
    /// Shown on our own pages: any export will do.
    Page,
    /// Counted inside a group: needs `export: aggregate` or `rows`.
    Aggregate,
}

impl Use {
    /// Whether an export allows this use.
    pub fn is_allowed_by(self, export: Export) -> bool {
        match self {
            Use::Rows => export == Export::Rows,
            Use::Page => true,
            Use::Aggregate => export >= Export::Aggregate,
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Use::Rows => "rows",
            Use::Page => "page",
            Use::Aggregate => "group",
        })
    }
}

/// A half-open time interval in microseconds since 1970 UTC.
///
/// `i64::MIN` and `i64::MAX` mean open; an open end contains every instant after `from_us`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Period {
    /// First instant inside; `i64::MIN` is open.
    pub from_us: i64,
    /// First instant after; `i64::MAX` is open.
    pub to_us: i64,
}

impl Period {
    /// All of time.
    pub const ALWAYS: Period = Period { from_us: i64::MIN, to_us: i64::MAX };

    /// From optional ends, where nothing means open.
    pub fn new(from_us: Option<i64>, to_us: Option<i64>) -> Period {
        Period { from_us: from_us.unwrap_or(i64::MIN), to_us: to_us.unwrap_or(i64::MAX) }
    }

    /// Whether the instant lies inside.
    pub fn contains(&self, at_us: i64) -> bool {
        self.from_us <= at_us && (at_us < self.to_us || self.to_us == i64::MAX)
    }

    /// Whether no instant lies inside.
    pub fn is_empty(&self) -> bool {
        self.from_us >= self.to_us && self.to_us != i64::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The purpose list is sorted, so that the binary search finds every member and nothing else.
    #[test]
    fn purposes_are_sorted() {
        assert!(PURPOSES.is_sorted());
        assert!(PURPOSES.iter().all(|purpose| is_purpose(purpose)));
        assert!(!is_purpose("hresch") && !is_purpose("") && !is_purpose("*"));
    }

    /// Wire names read back, and nothing else reads.
    #[test]
    fn names_read_back() {
        assert!(Resolution::ALL.iter().all(|r| Resolution::parse(r.as_str()) == Some(*r)));
        assert!(Export::ALL.iter().all(|e| Export::parse(e.as_str()) == Some(*e)));
        assert_eq!(
            (Resolution::parse("RAW"), Resolution::parse("1s"), Export::parse("all")),
            (None, None, None)
        );
    }

    /// Periods are half open, and open ends contain the extreme instants.
    #[test]
    fn periods_are_half_open() {
        let period = Period::new(Some(10), Some(20));
        assert_eq!([9, 10, 19, 20].map(|at| period.contains(at)), [false, true, true, false]);
        assert!(Period::ALWAYS.contains(i64::MIN) && Period::ALWAYS.contains(i64::MAX));
        assert!(Period::new(Some(5), Some(5)).is_empty() && !period.is_empty() && !Period::ALWAYS.is_empty());
    }
}
