//! Values with a unit: time, prices, money.

use apache_avro::AvroSchema;
use serde::{Deserialize, Serialize};

/// An instant: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

crate::avro_as!(Micros, apache_avro::Schema::TimestampMicros);

impl Micros {
    pub const SECOND: i64 = 1_000_000;
    pub const MINUTE: i64 = 60 * Self::SECOND;
    pub const HOUR: i64 = 60 * Self::MINUTE;
    pub const DAY: i64 = 24 * Self::HOUR;

    /// The instant `micros` later; saturates at the ends of time.
    pub fn plus(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }
}

/// A price per unit: `amount` × 10^−`scale` of the order's currency. 0.0375 is (375, 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
pub struct UnitPrice {
    pub amount: i64,
    /// Decimals in `amount`, 0 to 9.
    pub scale: i32,
}

/// The most decimals a price may have.
pub const MAX_SCALE: i32 = 9;

impl UnitPrice {
    /// `quantity` × price, in minor units (`decimals` of them in the currency), rounded half away from zero.
    /// `None` when the product does not fit 64 bits.
    pub fn total_minor(self, quantity: i64, decimals: u32) -> Option<i64> {
        let product = i128::from(self.amount).checked_mul(i128::from(quantity))?;
        round_to(product, u32::try_from(self.scale).ok()?, decimals)
    }

    /// Reads "12.5", "-0.0375" or "3": digits with at most one point and nine decimals.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() || fraction.len() > MAX_SCALE as usize {
            return None;
        }
        let mut amount: i64 = 0;
        for digit in whole.bytes().chain(fraction.bytes()) {
            if !digit.is_ascii_digit() {
                return None;
            }
            amount = amount.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
        }
        let scale = i32::try_from(fraction.len()).ok()?;
        Some(Self { amount: if negative { -amount } else { amount }, scale })
    }
}

impl std::fmt::Display for UnitPrice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scale = usize::try_from(self.scale).unwrap_or(0);
        let sign = if self.amount < 0 { "-" } else { "" };
        let digits = format!("{:0>width$}", self.amount.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        if scale == 0 { write!(f, "{sign}{whole}") } else { write!(f, "{sign}{whole}.{fraction}") }
    }
}

/// `value` × 10^−`scale` expressed with `decimals` decimals, rounded half away from zero.
pub fn round_to(value: i128, scale: u32, decimals: u32) -> Option<i64> {
    if scale <= decimals {
        return i64::try_from(value.checked_mul(10i128.checked_pow(decimals - scale)?)?).ok();
    }
    let divisor = 10i128.checked_pow(scale - decimals)?;
    let half = divisor / 2;
    let rounded = if value >= 0 { (value + half) / divisor } else { (value - half) / divisor };
    i64::try_from(rounded).ok()
}

/// An amount in minor units of a currency (ISO 4217).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "kept")]
pub struct Money {
    pub minor: i64,
    pub currency: String,
}

/// Decimals of an active ISO 4217 currency; `None` for a code that is not one we know.
/// Source: ISO 4217, list one (currencies of Europe and of its main trading partners).
pub fn currency_decimals(code: &str) -> Option<u32> {
    Some(match code {
        "EUR" | "GBP" | "USD" | "CHF" | "SEK" | "NOK" | "DKK" | "PLN" | "CZK" | "HUF" | "RON" | "BGN" | "TRY"
        | "CAD" | "AUD" | "NZD" | "CNY" | "HKD" | "SGD" | "ZAR" | "MXN" | "BRL" | "INR" | "ILS" | "AED" | "UAH"
        | "RSD" | "MDL" | "ALL" | "MKD" | "BAM" | "GEL" | "MAD" | "THB" => 2,
        "JPY" | "KRW" | "ISK" | "CLP" | "VND" => 0,
        "BHD" | "JOD" | "KWD" | "OMR" | "TND" => 3,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_reads_back_as_it_was_written() {
        for text in ["0", "12.50", "-0.0375", "3", "0.001", "11062.06"] {
            assert_eq!(UnitPrice::parse(text).map(|price| price.to_string()).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_not_a_plain_decimal_is_refused() {
        for text in ["", "-", ".5", "1e3", "1,5", "1.2.3", "0.1234567890", "99999999999999999999", "+1", " 1"] {
            assert_eq!(UnitPrice::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_line_total_is_rounded_once_half_away_from_zero() {
        let price = |text| UnitPrice::parse(text).expect("a price");
        assert_eq!(price("0.0375").total_minor(100, 2), Some(375));
        assert_eq!(price("0.005").total_minor(1, 2), Some(1));
        assert_eq!(price("-0.005").total_minor(1, 2), Some(-1));
        assert_eq!(price("0.001").total_minor(1, 2), Some(0));
        assert_eq!(price("2.5").total_minor(3, 0), Some(8));
        assert_eq!(price("9223372036854775807").total_minor(2, 2), None);
    }
}
