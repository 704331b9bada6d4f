//! Times by how often they occur, with a bounded error and a fixed size.
//!
//! Buckets double in width every 64 of them, so a time is told at most 1/64 too long; exact below 128 ns.

/// Buckets of one width.
const LINEAR: u64 = 64;
/// 64 + 58 times 64 buckets reach the whole of u64.
const BUCKETS: usize = 59 * LINEAR as usize;

/// A histogram of nanoseconds.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; BUCKETS], total: 0, max_ns: 0 }
    }
}

fn bucket(ns: u64) -> usize {
    if ns < LINEAR {
        return ns as usize;
    }
    let shift = ns.ilog2() - LINEAR.ilog2();
    ((u64::from(shift) + 1) * LINEAR + (ns >> shift) - LINEAR) as usize
}

/// The longest time that falls into a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < LINEAR {
        return bucket;
    }
    let shift = bucket / LINEAR - 1;
    let first = (bucket % LINEAR + LINEAR) << shift;
    first + ((1 << shift) - 1)
}

impl Histogram {
    /// Counts a time, `times` times.
    pub fn record(&mut self, ns: u64, times: u64) {
        self.counts[bucket(ns)] += times;
        self.total += times;
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The longest.
    #[must_use]
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The time that a share of all did not exceed; 0 if none was counted.
    #[must_use]
    pub fn quantile_ns(&self, share: f64) -> u64 {
        let rank = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(bucket).min(self.max_ns);
            }
        }
        self.max_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guarantee: every time has a bucket, in order, and is told at most 1/64 too long.
    #[test]
    fn buckets_are_narrow() {
        let mut last = 0;
        for exponent in 0..64 {
            for offset in [0, 1, 3, 7] {
                let ns = (1u64 << exponent).saturating_add(offset * ((1 << exponent) / 8));
                let at = bucket(ns);
                assert!(at < BUCKETS && at >= last, "{ns}");
                assert!(upper(at) >= ns && (upper(at) - ns) as f64 <= ns as f64 / 64.0, "{ns} {}", upper(at));
                assert!(at == 0 || upper(at - 1) < ns, "{ns}");
                last = at.min(last.max(at));
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    // Guarantee: quantiles are the ranks they say; adding is counting both; nothing counted is 0.
    #[test]
    fn quantiles() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile_ns(0.99), 0);
        for ns in 1..=100 {
            histogram.record(ns, 1);
        }
        assert_eq!([0.5, 0.99, 1.0].map(|share| histogram.quantile_ns(share)), [50, 99, 100]);
        let mut other = Histogram::default();
        other.record(1_000_000, 300);
        histogram.add(&other);
        assert_eq!((histogram.total(), histogram.max_ns()), (400, 1_000_000));
        assert_eq!(histogram.quantile_ns(0.5), 1_000_000);
        assert_eq!(histogram.quantile_ns(0.25), 100);
    }
}
