//! RFC 3339 in UTC to microseconds since 1970 and back. Local times and zones other than `Z` are refused: a statement
//! must have one spelling.

use jiff::Timestamp;

/// Text that is no RFC 3339 time in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a time like 2026-01-31T08:00:00Z")]
pub struct TimeError;

/// Longest spelling: date, time, nine fraction digits, `Z`.
const TEXT_BYTES_MAX: usize = 30;

/// Microseconds since 1970 of an RFC 3339 time that ends with `Z`. Finer fractions are refused.
pub fn parse_rfc3339_us(text: &str) -> Result<i64, TimeError> {
    if text.len() > TEXT_BYTES_MAX || !text.ends_with('Z') || text.as_bytes().get(10) != Some(&b'T') {
        return Err(TimeError);
    }
    let stamp: Timestamp = text.parse().map_err(|_| TimeError)?;
    if stamp.subsec_nanosecond() % 1_000 != 0 {
        return Err(TimeError);
    }
    Ok(stamp.as_microsecond())
}

/// The RFC 3339 spelling of microseconds since 1970; times outside the years -9999..9999 are given as plain numbers.
pub fn format_rfc3339_us(us: i64) -> String {
    Timestamp::from_microsecond(us).map_or_else(|_| us.to_string(), |stamp| stamp.to_string())
}

/// Serde of an optional time as text or null.
pub(crate) mod optional {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(time: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
        time.map(super::format_rfc3339_us).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse_rfc3339_us(&text).map_err(de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: one time, one spelling in, the same moment out.
    #[test]
    fn times() {
        assert_eq!(parse_rfc3339_us("1970-01-01T00:00:01Z"), Ok(1_000_000));
        assert_eq!(parse_rfc3339_us("2022-02-07T09:27:41.000001Z"), Ok(1_644_226_061_000_001));
        assert_eq!(format_rfc3339_us(1_644_226_061_000_001), "2022-02-07T09:27:41.000001Z");
        for text in [
            "",
            "2022-02-07",
            "2022-02-07T09:27:41+01:00",
            "2022-02-07 09:27:41Z",
            "2022-02-07T09:27:41.0000001Z",
        ] {
            assert_eq!(parse_rfc3339_us(text), Err(TimeError), "{text}");
        }
    }
}
