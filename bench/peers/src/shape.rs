//! What a frame of each kind holds: real signals of the registry, values as random walks.
//! Not a body: a walk compresses as a steady sensor does, and no better.

use schemas_frame::{OutSeries, OutValues, Scale};

/// Largest step of a walk between two samples.
const STEP_MAX: i16 = 4;

/// A kind of frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Five vital signs, ten samples each, one a second: about 300 bytes.
    A,
    /// Acceleration and PPG, 240 samples each, 32 a second: about 2 KiB.
    B,
}

/// One signal of a kind.
#[derive(Debug, Clone, Copy)]
struct Signal {
    id: u32,
    den: u32,
    low: i16,
    high: i16,
}

/// Heart rate, SpO2, respiratory rate, skin temperature, RMSSD; all within the registry's ranges.
const VITALS: [Signal; 5] = [
    Signal { id: 1, den: 10, low: 450, high: 1_700 },
    Signal { id: 2, den: 10, low: 880, high: 1_000 },
    Signal { id: 3, den: 10, low: 80, high: 400 },
    Signal { id: 5, den: 100, low: 2_800, high: 3_800 },
    Signal { id: 9, den: 10, low: 100, high: 1_500 },
];
/// Three axes of acceleration, PPG.
const WAVES: [Signal; 4] = [
    Signal { id: 14, den: 4_096, low: -8_192, high: 8_191 },
    Signal { id: 15, den: 4_096, low: -8_192, high: 8_191 },
    Signal { id: 16, den: 4_096, low: -8_192, high: 8_191 },
    Signal { id: 18, den: 1, low: -2_000, high: 2_000 },
];

impl Kind {
    fn signals(self) -> &'static [Signal] {
        match self {
            Kind::A => &VITALS,
            Kind::B => &WAVES,
        }
    }

    /// Samples of each series.
    #[must_use]
    pub fn samples(self) -> usize {
        match self {
            Kind::A => 10,
            Kind::B => 240,
        }
    }

    /// Spacing of samples.
    #[must_use]
    pub fn period_us(self) -> u64 {
        match self {
            Kind::A => 1_000_000,
            Kind::B => 31_250,
        }
    }

    /// From one frame's start to the next one's.
    #[must_use]
    pub fn frame_us(self) -> u64 {
        self.period_us() * self.samples() as u64
    }

    /// Samples of a frame over all its series.
    #[must_use]
    pub fn readings(self) -> u64 {
        (self.signals().len() * self.samples()) as u64
    }

    /// Names of the series in a table that has one column a series, in the frame's order.
    #[must_use]
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            Kind::A => &["heart_rate", "spo2", "respiratory_rate", "skin_temperature", "hrv_rmssd"],
            Kind::B => &["acceleration_x", "acceleration_y", "acceleration_z", "ppg"],
        }
    }

    /// `a` or `b`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::A => "a",
            Kind::B => "b",
        }
    }
}

/// splitmix64: seeded, and fast beside a signature.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit.max(1)
    }
}

/// A device's sensors.
#[derive(Debug, Clone)]
pub struct Sensors {
    kind: Kind,
    at: Vec<i16>,
    dice: Dice,
}

impl Sensors {
    /// Sensors that start in the middle of their ranges.
    #[must_use]
    pub fn new(kind: Kind, seed: u64) -> Sensors {
        let at = kind.signals().iter().map(|signal| (signal.low / 2) + (signal.high / 2)).collect();
        Sensors { kind, at, dice: Dice(seed) }
    }

    /// The series of the next frame.
    pub fn measure(&mut self) -> Vec<OutSeries> {
        let mut frame = Vec::with_capacity(self.at.len());
        for (signal, at) in self.kind.signals().iter().zip(&mut self.at) {
            let mut values = Vec::with_capacity(self.kind.samples());
            for _ in 0..self.kind.samples() {
                let step = self.dice.below(2 * STEP_MAX as u64 + 1) as i16 - STEP_MAX;
                *at = (*at + step).clamp(signal.low, signal.high);
                values.push(*at);
            }
            frame.push(OutSeries {
                signal: signal.id,
                offset_us: 0,
                period_us: self.kind.period_us(),
                scale: Scale { num: 1, den: signal.den },
                values: OutValues::I16(values),
                deltas: None,
                quality: None,
            });
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guarantee: the numbers in the reports are the frames' own.
    #[test]
    fn kinds_are_what_they_say() {
        for (kind, readings, frame_us) in [(Kind::A, 50, 10_000_000), (Kind::B, 960, 7_500_000)] {
            let series = Sensors::new(kind, 1).measure();
            let samples: usize = series.iter().map(|one| one.values.len()).sum();
            assert_eq!((samples as u64, kind.readings(), kind.frame_us()), (readings, readings, frame_us));
            assert_eq!(series.len(), kind.fields().len());
        }
    }
}
