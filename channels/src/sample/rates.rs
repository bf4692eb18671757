//! How often what goes wrong, in a sample: each rate has a name, a usual value and a meaning.

use serde::Serialize;

/// A share in parts of 100,000, so that no float decides anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Share(pub u32);

impl Share {
    /// Everything.
    pub const WHOLE: u32 = 100_000;

    /// Reads a percentage: `2.5` or `2.5%`, 0 to 100, at most three decimals.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is not a percentage such as 2.5, from 0 to 100 with at most three decimals");
        let price = kept_schemas::UnitPrice::parse(text.trim().trim_end_matches('%')).ok_or_else(wrong)?;
        let shift = u32::try_from(3 - price.scale).map_err(|_| wrong())?;
        let parts = price.amount.checked_mul(10i64.pow(shift)).ok_or_else(wrong)?;
        match u32::try_from(parts) {
            Ok(parts) if parts <= Self::WHOLE => Ok(Self(parts)),
            _ => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{}.{:03}", self.0 / 1_000, self.0 % 1_000);
        write!(f, "{}%", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

macro_rules! rates {
    ($($(#[doc = $about:literal])+ $name:ident: $usual:literal),+ $(,)?) => {
        /// How often what goes wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        pub struct Rates { $($(#[doc = $about])+ pub $name: Share),+ }

        impl Default for Rates {
            fn default() -> Self { Self { $($name: Share($usual)),+ } }
        }

        impl Rates {
            /// Every rate as 0: nothing goes wrong.
            pub fn none() -> Self { Self { $($name: Share(0)),+ } }

            /// Name, usual value and meaning of each.
            pub const TABLE: &'static [(&'static str, Share, &'static str)] =
                &[$((stringify!($name), Share($usual), concat!($($about),+))),+];

            /// Sets the rate of a name; dashes and underscores are the same.
            pub fn set(&mut self, name: &str, share: Share) -> Result<(), String> {
                match name.replace('-', "_").as_str() {
                    $(stringify!($name) => self.$name = share,)+
                    _ => {
                        let names: Vec<&str> = Self::TABLE.iter().map(|(name, _, _)| *name).collect();
                        return Err(format!("{name} is not a rate; they are {}", names.join(", ")));
                    }
                }
                Ok(())
            }
        }
    };
}

rates! {
    /// of orders have an address with a fault: no house number, a wrong postcode, no street, no town
    bad_addresses: 2_500,
    /// of orders to be paid online are paid 1 to 30 hours late
    late_payments: 4_000,
    /// of orders to be paid online are never paid: the payment fails
    failed_payments: 1_000,
    /// of orders are cancelled by the customer within three hours, a fifth of them only one line
    cancellations: 1_500,
    /// of orders come a second time by another way in
    second_ways: 1_000,
    /// of orders are sent twice by their own channel
    redeliveries: 1_000,
    /// of orders have a line whose article nobody knows
    unknown_skus: 500,
    /// of orders state a total that lines and charges do not add up to
    totals_differ: 400,
    /// of orders sent by HTTP have a body that cannot be read
    wrong_bodies: 200,
    /// of articles have less stock than will be ordered
    short_articles: 2_000,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_read_back_as_they_were_written() {
        for text in ["0%", "2.5%", "0.005%", "100%", "12%"] {
            assert_eq!(Share::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "-1", "100.001", "0.0001", "many", "1e3"] {
            assert!(Share::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_set_by_its_name_and_an_unknown_one_is_told() {
        let mut rates = Rates::none();
        rates.set("bad-addresses", Share(7)).unwrap();
        assert_eq!(rates.bad_addresses, Share(7));
        assert!(rates.set("good_addresses", Share(1)).unwrap_err().contains("bad_addresses"));
        assert_eq!(Rates::TABLE.len(), 10);
    }
}
