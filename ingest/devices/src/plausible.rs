//! What the registry says about a frame's values, and which code is told when several apply. Nothing is refused here:
//! an implausible value may be the very thing that matters to a physician; it is kept and flagged.

use schemas_frame::{Code, Frame, Series, flags};
use schemas_signals::{Registry, Signal};

/// What was found in a frame's series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Assessment {
    /// `SIGNAL_UNKNOWN`, else `RANGE`, else nothing.
    pub code: Option<Code>,
    /// `flags::RANGE` or nothing.
    pub flags: u32,
    /// Series whose signal the registry does not know; they stay in the frame's bytes and give no rows.
    pub series_unknown: u32,
    /// First unknown signal, for the hint.
    pub unknown_signal: Option<u32>,
    /// First signal with a value out of its range (an infinity or not-a-number included), for the hint.
    pub implausible_signal: Option<u32>,
}

/// Looks at every value of a frame once.
#[must_use]
pub fn assess(frame: &Frame<'_>, registry: &Registry) -> Assessment {
    let mut found = Assessment::default();
    for series in frame.series() {
        let Some(signal) = registry.by_id(series.signal) else {
            found.series_unknown += 1;
            found.unknown_signal = found.unknown_signal.or(Some(series.signal));
            continue;
        };
        if found.implausible_signal.is_none() && !is_plausible(&series, signal) {
            found.implausible_signal = Some(series.signal);
            found.flags |= flags::RANGE;
        }
    }
    found.code = match (found.unknown_signal, found.implausible_signal) {
        (Some(_), _) => Some(Code::SignalUnknown),
        (None, Some(_)) => Some(Code::Range),
        (None, None) => None,
    };
    found
}

fn is_plausible(series: &Series<'_>, signal: &Signal) -> bool {
    let range = signal.range_min..=signal.range_max;
    match series.values.raw_range() {
        // Scaling is monotonic: the extremes speak for all.
        Some((low, high)) => [low, high].iter().all(|raw| range.contains(&series.scale.apply(*raw))),
        // Written so that a not-a-number is out of range.
        None => (0..series.len()).all(|index| range.contains(&series.value(index))),
    }
}

/// Order in which kept codes are told; the flags tell the rest. Readings that were dropped come first, then what
/// weakens the evidence, then what changes a time, then what needs somebody else (a binding), then mere values.
const TOLD: [Code; 5] = [Code::SignalUnknown, Code::Chain, Code::Clock, Code::NotBound, Code::Range];

/// The one code to answer for a kept frame to which several apply; `OK` if none does.
#[must_use]
pub fn most_telling(codes: &[Code]) -> Code {
    TOLD.into_iter().find(|code| codes.contains(code)).unwrap_or(Code::Ok)
}

#[cfg(test)]
mod tests {
    use schemas_frame::{FrameBuilder, OutSeries, OutValues, Scale};
    use schemas_identity::{BootId, SecretKey};

    use super::*;

    fn assess_values(series: Vec<(u32, OutValues)>) -> Assessment {
        let mut builder = FrameBuilder::new(BootId([1; 8]), 0, [0; 16], None, 0);
        for (signal, values) in series {
            let scale = Scale::ONE;
            let (offset_us, period_us) = (0, 1000);
            let out = OutSeries { signal, offset_us, period_us, scale, values, deltas: None, quality: None };
            builder = builder.series(out);
        }
        let bytes = builder.sign(&SecretKey::from_seed(&[7; 32])).unwrap();
        assess(&Frame::parse(&bytes).unwrap(), Registry::builtin())
    }

    // Values in range pass without a remark, at the edges too.
    #[test]
    fn plausible_values() {
        let heart_rate = Registry::builtin().by_name("heart_rate").unwrap();
        let edges = OutValues::F64(vec![heart_rate.range_min, heart_rate.range_max]);
        assert_eq!(assess_values(vec![(1, edges)]), Assessment::default());
    }

    // One value out of range, an infinity or a not-a-number flags the frame and names the signal.
    #[test]
    fn implausible_values() {
        for bad in [-1.0, 1e6, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            let found =
                assess_values(vec![(22, OutValues::U8(vec![50])), (1, OutValues::F64(vec![60.0, bad]))]);
            assert_eq!((found.code, found.flags), (Some(Code::Range), flags::RANGE), "{bad}");
            assert_eq!(found.implausible_signal, Some(1));
        }
    }

    // Integers of every width are judged like their samples one by one, on both sides of the range.
    #[test]
    fn extremes_speak_for_all() {
        let battery = Registry::builtin().by_name("battery").unwrap();
        assert_eq!((battery.range_min, battery.range_max), (0.0, 100.0));
        let cases = [
            (OutValues::U8(vec![0, 100, 50]), false),
            (OutValues::U8(vec![50, 101, 50]), true),
            (OutValues::I8(vec![5, -1]), true),
            (OutValues::U16(vec![3, 65_535]), true),
            (OutValues::I16(vec![-2, 7]), true),
            (OutValues::U32(vec![1, u32::MAX]), true),
            (OutValues::I32(vec![99, i32::MIN, 99]), true),
            (OutValues::I32(vec![99, 1]), false),
        ];
        for (values, is_bad) in cases {
            let found = assess_values(vec![(22, values.clone())]);
            assert_eq!(found.implausible_signal.is_some(), is_bad, "{values:?}");
        }
    }

    // A signal that the registry does not know is told before anything else, and the other series are still looked at.
    #[test]
    fn unknown_signal() {
        let found = assess_values(vec![(250, OutValues::U8(vec![1])), (1, OutValues::F64(vec![-1.0]))]);
        assert_eq!((found.code, found.flags), (Some(Code::SignalUnknown), flags::RANGE));
        assert_eq!((found.series_unknown, found.unknown_signal), (1, Some(250)));
        let far = assess_values(vec![(u32::MAX, OutValues::U8(vec![1]))]);
        assert_eq!(far.unknown_signal, Some(u32::MAX));
    }

    // Of several codes one is told, by a fixed order; only kept codes take part.
    #[test]
    fn one_code_is_told() {
        assert_eq!(most_telling(&[]), Code::Ok);
        assert_eq!(most_telling(&[Code::Range, Code::Clock]), Code::Clock);
        assert_eq!(most_telling(&[Code::NotBound, Code::Chain, Code::Range]), Code::Chain);
        assert!(TOLD.iter().all(|code| code.is_kept()));
    }
}
