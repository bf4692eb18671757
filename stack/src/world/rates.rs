//! How often things go wrong at the simulated warehouse and carrier.

/// What may go wrong, and in how many of a thousand cases it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    per_thousand: [u16; Mishap::ALL.len()],
}

macro_rules! mishaps {
    ($($(#[doc = $about:literal])+ $variant:ident = $name:literal, $default:literal);+ $(;)?) => {
        /// One thing that may go wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mishap { $($(#[doc = $about])+ $variant),+ }

        impl Mishap {
            /// Each of them, in a fixed order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// What happens.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => concat!($($about),+)),+ }
            }

            const fn default_per_thousand(self) -> u16 {
                match self { $(Self::$variant => $default),+ }
            }
        }
    };
}

mishaps! {
    /// the warehouse finds less on the shelf than it was asked for
    Short = "short", 10;
    /// the warehouse refuses the whole fulfilment order
    Refused = "refused", 2;
    /// picking takes one to three days more
    LatePick = "late-pick", 20;
    /// the carrier takes one to three days more
    LateDelivery = "late-delivery", 30;
    /// the parcels are lost, damaged, refused or sent back
    DeliveryFailed = "delivery-failed", 5;
    /// two reports arrive in the wrong order
    OutOfOrder = "out-of-order", 30;
    /// one report arrives twice
    Duplicate = "duplicate", 20;
    /// a withdrawal between picking and despatch is not heeded
    WithdrawalTooLate = "withdrawal-too-late", 300;
}

impl Default for Rates {
    fn default() -> Self {
        Self { per_thousand: std::array::from_fn(|at| Mishap::ALL[at].default_per_thousand()) }
    }
}

impl Rates {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self { per_thousand: [0; Mishap::ALL.len()] }
    }

    /// In how many of a thousand cases it happens.
    pub fn of(&self, mishap: Mishap) -> u16 {
        self.per_thousand[mishap as usize]
    }

    /// The same with another rate; more than a thousand is a thousand.
    #[must_use]
    pub fn with(mut self, mishap: Mishap, per_thousand: u16) -> Self {
        self.per_thousand[mishap as usize] = per_thousand.min(1_000);
        self
    }

    /// Takes in one `NAME=PER_THOUSAND`.
    pub fn set(self, text: &str) -> Result<Self, String> {
        let names = || Mishap::ALL.iter().map(|it| it.name()).collect::<Vec<_>>().join(", ");
        let (name, number) = text.split_once('=').ok_or_else(|| format!("'{text}' is not NAME=PER_THOUSAND"))?;
        let mishap = Mishap::ALL
            .iter()
            .find(|it| it.name() == name)
            .ok_or_else(|| format!("'{name}' is none of {}", names()))?;
        match number.parse::<u16>() {
            Ok(rate) if rate <= 1_000 => Ok(self.with(*mishap, rate)),
            _ => Err(format!("{name}: '{number}' is not a whole number from 0 to 1000")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_set_by_its_name_and_the_others_stay() {
        let rates = Rates::default().set("short=250").expect("a rate");
        assert_eq!(rates.of(Mishap::Short), 250);
        for &other in Mishap::ALL.iter().filter(|&&it| it != Mishap::Short) {
            assert_eq!(rates.of(other), Rates::default().of(other), "{}", other.name());
        }
    }

    #[test]
    fn what_is_not_a_rate_is_refused_with_its_reason() {
        for (text, reason) in [
            ("short", "'short' is not NAME=PER_THOUSAND"),
            ("shorts=1", "'shorts' is none of short, refused,"),
            ("short=1001", "short: '1001' is not a whole number"),
            ("short=-1", "short: '-1' is not a whole number"),
            ("short=1.5", "short: '1.5' is not a whole number"),
        ] {
            let error = Rates::default().set(text).expect_err(text);
            assert!(error.starts_with(reason), "{error}");
        }
    }
}
