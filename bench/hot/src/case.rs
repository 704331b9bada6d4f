//! What is varied: one axis at a time, away from one base case. Not the product of all axes: nobody would read it.

use crate::workload::Shape;

/// One setting under which every peer is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// What differs from the base case.
    pub axis: &'static str,
    /// Keys, messages and bad ones.
    pub shape: Shape,
    /// Signatures handed over at once.
    pub per_call: usize,
    /// OS threads, each with a peer of its own.
    pub threads: usize,
}

/// 1,024 devices, 100-byte messages, 1,024 per call, none bad, one thread.
pub const BASE: Case = Case {
    axis: "base",
    shape: Shape { devices: 1_024, message_bytes: 100, bad_per_mille: 0 },
    per_call: 1_024,
    threads: 1,
};

/// All cases, the base first; `is_quick` leaves out those that take long to warm up and all but one of the rest.
#[must_use]
pub fn all(is_quick: bool) -> Vec<Case> {
    let take = |values: &[usize]| values[if is_quick { values.len() - 1 } else { 0 }..].to_vec();
    let mut cases = vec![BASE];
    cases.extend(take(&[1, 8, 64]).iter().map(|per_call| Case {
        axis: "per call",
        per_call: *per_call,
        ..BASE
    }));
    cases.extend(take(&[300, 1_024]).iter().map(|bytes| {
        let shape = Shape { message_bytes: *bytes, ..BASE.shape };
        Case { axis: "message bytes", shape, ..BASE }
    }));
    cases.extend(take(&[1, 10, 100]).iter().map(|bad| {
        let shape = Shape { bad_per_mille: *bad, ..BASE.shape };
        Case { axis: "bad per mille", shape, ..BASE }
    }));
    cases.push(Case { axis: "threads", threads: 2, ..BASE });
    if !is_quick {
        cases.extend([16_384, 65_536].map(|devices| {
            let shape = Shape { devices, ..BASE.shape };
            Case { axis: "devices", shape, ..BASE }
        }));
    }
    cases
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shape { devices, message_bytes, bad_per_mille } = self.shape;
        let threads = if self.threads == 1 { "1 thread" } else { "2 threads" };
        write!(
            f,
            "{devices} devices, {message_bytes} B, {} per call, {} % bad, {threads}",
            self.per_call,
            bad_per_mille as f64 / 10.0,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guarantee: each case differs from the base in one thing, and no case occurs twice.
    #[test]
    fn one_axis_at_a_time() {
        for (index, case) in all(false).iter().enumerate() {
            let (shape, base) = (case.shape, BASE.shape);
            let differences = [
                shape.devices != base.devices,
                shape.message_bytes != base.message_bytes,
                shape.bad_per_mille != base.bad_per_mille,
                case.per_call != BASE.per_call,
                case.threads != BASE.threads,
            ];
            let count = differences.iter().filter(|differs| **differs).count();
            assert_eq!(count, usize::from(index > 0), "{case}");
            assert!(!all(false)[..index].contains(case), "{case}");
        }
        assert!(all(true).iter().all(|case| all(false).contains(case)));
    }
}
