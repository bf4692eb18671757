//! Countries, and how each writes a postcode.
//!
//! A pattern says which forms are possible, not that a code exists: a hold for a code that is merely unusual would
//! cost more than the parcel it saves.

/// ISO 3166-1 alpha-2, the officially assigned codes.
const CODES: &str = "\
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC \
CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD \
GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH \
KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW \
MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC \
SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY \
UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

/// True for a code of ISO 3166-1.
pub fn is_country(code: &str) -> bool {
    matches!(code.as_bytes(), [b'A'..=b'Z', b'A'..=b'Z'])
        && CODES.as_bytes().chunks(3).any(|it| it.get(..2) == Some(code.as_bytes()))
}

/// What an address in a country must have.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The possible forms of a postcode without spaces and hyphens: `9` a digit, `A` a letter, `X` either. Empty: not
    /// known, so that any code or none will do.
    pub postcode: &'static [&'static str],
    /// What a code looks like, for people.
    pub example: &'static str,
    /// Some write this before the code (L-1234); it is not part of it.
    pub prefix: &'static str,
    /// A house cannot be found without its number.
    pub house_number: bool,
}

const fn rule(postcode: &'static [&'static str], example: &'static str) -> Rule {
    Rule { postcode, example, prefix: "", house_number: false }
}

impl Rule {
    const fn prefixed(self, prefix: &'static str) -> Self {
        Self { prefix, ..self }
    }

    const fn numbered(self) -> Self {
        Self { house_number: true, ..self }
    }

    /// True when `postcode` can be one of this country. Case, spaces and hyphens do not matter.
    pub fn allows(&self, postcode: &str) -> bool {
        if self.postcode.is_empty() {
            return true;
        }
        let mut compact = [0u8; 12];
        let mut length = 0;
        for byte in postcode.bytes().filter(|it| !matches!(it, b' ' | b'-')) {
            if length == compact.len() {
                return false;
            }
            compact[length] = byte.to_ascii_uppercase();
            length += 1;
        }
        let compact = &compact[..length];
        let bare = match compact.strip_prefix(self.prefix.as_bytes()) {
            Some(rest) if !rest.is_empty() => rest,
            _ => compact,
        };
        self.postcode.iter().any(|it| fits(it.as_bytes(), bare) || fits(it.as_bytes(), compact))
    }
}

fn fits(pattern: &[u8], code: &[u8]) -> bool {
    pattern.len() == code.len()
        && pattern.iter().zip(code).all(|(form, byte)| match form {
            b'9' => byte.is_ascii_digit(),
            b'A' => byte.is_ascii_uppercase(),
            b'X' => byte.is_ascii_digit() || byte.is_ascii_uppercase(),
            fixed => fixed == byte,
        })
}

const BRITISH: Rule = rule(&["A99AA", "A999AA", "AA99AA", "AA999AA", "A9A9AA", "AA9A9AA", "GIR0AA"], "SW1A 1AA");

/// The rule of a country; the general one where we have none.
pub fn rule_of(country: &str) -> Rule {
    match country {
        "NL" => rule(&["9999AA"], "1234 AB").prefixed("NL").numbered(),
        "BE" => rule(&["9999"], "1000").prefixed("B").numbered(),
        "DE" => rule(&["99999"], "10115").prefixed("D").numbered(),
        "LU" => rule(&["9999"], "1111").prefixed("L"),
        "FR" | "MC" => rule(&["99999"], "75001").prefixed("F"),
        "GB" | "GG" | "JE" | "IM" => BRITISH,
        // The routing key's second and third place are digits, but for D6W.
        "IE" => rule(&["A99XXXX", "D6WXXXX"], "D02 AF30"),
        "AT" => rule(&["9999"], "1010").prefixed("A"),
        "ES" => rule(&["99999"], "28001").prefixed("E"),
        "IT" | "SM" | "VA" => rule(&["99999"], "00184").prefixed("I"),
        "DK" => rule(&["9999"], "8000").prefixed("DK"),
        "SE" => rule(&["99999"], "111 22").prefixed("SE"),
        "PL" => rule(&["99999"], "00-001").prefixed("PL"),
        "CH" | "LI" => rule(&["9999"], "8001").prefixed("CH"),
        "PT" => rule(&["9999999"], "1000-001").prefixed("PT"),
        "NO" => rule(&["9999"], "0150").prefixed("NO"),
        "FI" | "AX" => rule(&["99999"], "00100").prefixed("FI"),
        "CZ" => rule(&["99999"], "110 00").prefixed("CZ"),
        "SK" => rule(&["99999"], "811 01").prefixed("SK"),
        "HU" => rule(&["9999"], "1011").prefixed("H"),
        "SI" => rule(&["9999"], "1000").prefixed("SI"),
        "HR" => rule(&["99999"], "10000").prefixed("HR"),
        "EE" => rule(&["99999"], "10111").prefixed("EE"),
        "LV" => rule(&["9999"], "LV-1010").prefixed("LV"),
        "LT" => rule(&["99999"], "LT-01100").prefixed("LT"),
        "RO" => rule(&["999999"], "010011").prefixed("RO"),
        "BG" => rule(&["9999"], "1000").prefixed("BG"),
        "GR" => rule(&["99999"], "104 31").prefixed("GR"),
        "CY" => rule(&["9999"], "1010").prefixed("CY"),
        "US" => rule(&["99999", "999999999"], "10001"),
        _ => rule(&[], ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_postcode_is_known_by_its_form_however_it_is_spaced() {
        for (country, good, bad) in [
            ("NL", &["1234 AB", "1234AB", "1234ab", "NL-1234 AB"][..], &["1234", "12345", "AB 1234", "1234 A"][..]),
            ("BE", &["1000", "B-1000"], &["100", "10000", "1000 AB"]),
            ("DE", &["10115", "D-10115"], &["1011", "101155", "1011A"]),
            ("FR", &["75001", "F-75001"], &["7500", "75 0011", "2A004"]),
            ("GB", &["M1 1AA", "SW1A 1AA", "b33 8th", "CR2 6XH", "EC1A1BB"], &["M1", "12345", "SW1A 1A", "SW1A 11A"]),
            ("IE", &["D02 AF30", "D6W 1234", "t12ab34"], &["D02", "D2 AF30", "12345"]),
            ("LU", &["1234", "L-1234"], &["L-123", "12345"]),
            ("AT", &["1010", "A-1010"], &["101"]),
            ("ES", &["28001"], &["2800", "E-2800"]),
            ("IT", &["00184"], &["184"]),
            ("DK", &["8000", "DK-8000"], &["800"]),
            ("SE", &["111 22", "SE-111 22"], &["1112"]),
            ("PL", &["00-001", "00001"], &["00-01"]),
            ("CH", &["8001", "CH-8001"], &["80011"]),
            ("PT", &["1000-001", "1000001"], &["1000"]),
        ] {
            let rule = rule_of(country);
            assert!(rule.allows(rule.example), "{country}: its own example");
            for code in good {
                assert!(rule.allows(code), "{country} {code}");
            }
            for code in bad.iter().chain(&["", "ÄÖ12", "1234 AB 1234 AB 1234 AB"]) {
                assert!(!rule.allows(code), "{country} {code}");
            }
        }
    }

    #[test]
    fn every_example_fits_its_own_rule() {
        for code in CODES.split(' ') {
            let rule = rule_of(code);
            assert!(rule.allows(rule.example), "{code}");
        }
    }

    #[test]
    fn a_country_is_a_code_of_iso_3166() {
        assert_eq!(CODES.split(' ').count(), 249);
        for code in ["NL", "GB", "AD", "ZW", "US"] {
            assert!(is_country(code), "{code}");
        }
        for code in ["UK", "EU", "XX", "nl", "NLD", "N", "", "L ", " N", "ÄÖ"] {
            assert!(!is_country(code), "{code}");
        }
    }
}
