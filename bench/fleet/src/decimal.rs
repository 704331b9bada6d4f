//! Decimal text to integers with one common scale, so that a reading comes out of SQL as the very same double.

use schemas_frame::{OutValues, RAW_TIMES_NUM_MAX, SCALE_MAX, Scale};

/// Most digits after the point that are kept as an integer; beyond it values travel as f64.
const FRACTION_DIGITS_MAX: usize = 9;
/// |raw| must stay exactly representable as a double.
const RAW_MAX: i64 = 1 << 53;

/// One number as written: all its digits as an integer, and how many stood after the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    /// The digits.
    pub mantissa: i64,
    /// Digits after the point, trailing zeros dropped.
    pub digits: usize,
    /// Written with a minus although zero, as sensors do: a double keeps that sign, an integer cannot.
    pub is_negative_zero: bool,
}

impl Decimal {
    /// Reads `-12.50`; exponents, infinities and more than 18 digits are refused.
    pub fn parse(text: &str) -> Option<Decimal> {
        let text = text.trim();
        let (is_negative, body) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
        let fraction = fraction.trim_end_matches('0');
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_number(whole) || !is_number(fraction) || whole.len() + fraction.len() > 18
        {
            return None;
        }
        let mantissa: i64 = format!("{whole}{fraction}").parse().ok()?;
        Some(Decimal {
            mantissa: if is_negative { -mantissa } else { mantissa },
            digits: fraction.len(),
            is_negative_zero: is_negative && mantissa == 0,
        })
    }

    fn raw(self, digits: usize) -> Option<i64> {
        let factor = 10i64.checked_pow(u32::try_from(digits.checked_sub(self.digits)?).ok()?)?;
        self.mantissa.checked_mul(factor).filter(|raw| raw.abs() < RAW_MAX)
    }

    /// Nearest double of the text: the reader of the standard library rounds once, arithmetic would round twice.
    pub fn value(self) -> f64 {
        if self.is_negative_zero {
            return -0.0;
        }
        let (mantissa, digits) = (self.mantissa, self.digits);
        format!("{mantissa}e-{digits}").parse().unwrap_or(mantissa as f64 / 10f64.powi(digits as i32))
    }
}

/// Numbers times `unit` with one scale: integers where that is exact, doubles otherwise.
pub fn encode(numbers: &[Decimal], unit: Scale) -> (OutValues, Scale) {
    let digits = numbers.iter().map(|number| number.digits).max().unwrap_or(0);
    encode_exactly(numbers, digits, unit).unwrap_or_else(|| {
        let scaled = |value: f64| (value * f64::from(unit.num)) / f64::from(unit.den);
        let values = numbers.iter().map(|number| scaled(number.value())).collect();
        (OutValues::F64(values), Scale::ONE)
    })
}

fn encode_exactly(numbers: &[Decimal], digits: usize, unit: Scale) -> Option<(OutValues, Scale)> {
    if digits > FRACTION_DIGITS_MAX || numbers.iter().any(|number| number.is_negative_zero) {
        return None;
    }
    let den = 10u32.checked_pow(u32::try_from(digits).ok()?)?.checked_mul(unit.den)?;
    let raws: Vec<i64> = numbers.iter().map(|number| number.raw(digits)).collect::<Option<_>>()?;
    let is_exact =
        raws.iter().all(|raw| raw.unsigned_abs().saturating_mul(unit.num.into()) < RAW_TIMES_NUM_MAX);
    if !is_exact || u64::from(den) >= SCALE_MAX {
        return None;
    }
    Some((OutValues::narrowest(&raws)?, Scale { num: unit.num, den }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: the double that comes out is the double of the text.
    #[test]
    fn doubles_survive() {
        for text in [
            "82.72",
            "0.000000",
            "-2",
            "0.890625",
            "28.39",
            "-1234.5678",
            "123456789.123456789",
            "0.1",
            "-0.00",
        ] {
            let number = Decimal::parse(text).unwrap();
            let (values, scale) = encode(&[number], Scale::ONE);
            let value = match values {
                OutValues::F64(list) => list[0],
                _ => scale.apply(number.raw(number.digits).unwrap()),
            };
            assert_eq!(value.to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
        }
        for text in ["", "-", "1e5", "inf", "1.2.3", "12345678901234567890"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    /// Guarantee: a sensor's unit is applied whether or not its counts are whole numbers.
    #[test]
    fn units_are_applied() {
        let unit = Scale { num: 1, den: 64 };
        let read = |text| encode(&[Decimal::parse(text).unwrap()], unit);
        assert_eq!(read("43"), (OutValues::U8(vec![43]), unit));
        assert_eq!(read("1.5"), (OutValues::U8(vec![15]), Scale { num: 1, den: 640 }));
        assert_eq!(read("12345678901234.5"), (OutValues::F64(vec![12_345_678_901_234.5 / 64.0]), Scale::ONE));
    }
}
