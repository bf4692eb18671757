//! Can a parcel be delivered to an address of this form? Problems name the part, never what stands in it.

use kept_schemas::{inbound::HoldReason, order::Address};

use super::{
    Found,
    countries::{is_country, rule_of},
};

/// Checks where an order goes.
pub fn check(address: &Address, found: &mut Found) {
    let missing = |found: &mut Found, field: &str, what: &str| {
        found.order(HoldReason::AddressInvalid, &format!("ship_to.{field}"), format!("{what} is missing"));
    };
    let company = address.company.as_deref().unwrap_or("");
    if !says_something(&address.name) && !says_something(company) {
        missing(found, "name", "the name (or the company's)");
    }
    let extra = address.extra.as_deref().unwrap_or("");
    // British and Irish addresses may have a house's name only, which forms put into either line.
    let in_extra = matches!(address.country.as_str(), "GB" | "IE" | "GG" | "JE" | "IM") && says_something(extra);
    let has_street = says_something(&address.street);
    if !has_street && !in_extra {
        missing(found, "street", "the street");
    }
    if !says_something(&address.city) {
        missing(found, "city", "the town");
    }
    country(&address.country, found);
    let rule = rule_of(&address.country);
    if !says_something(&address.postcode) {
        if !rule.postcode.is_empty() {
            missing(found, "postcode", "the postcode");
        }
    } else if !rule.allows(&address.postcode) {
        let detail = format!("the postcode does not have the form of {} ({})", address.country, rule.example);
        found.order(HoldReason::AddressInvalid, "ship_to.postcode", detail);
    }
    let numbered = address.house_number.as_deref().is_some_and(|it| it.bytes().any(|byte| byte.is_ascii_digit()));
    if rule.house_number && has_street && !numbered && !ends_in_number(&address.street) {
        missing(found, "house_number", "the house number");
    }
}

fn country(code: &str, found: &mut Found) {
    let field = "ship_to.country";
    if code.is_empty() {
        found.order(HoldReason::AddressInvalid, field, "the country is missing".to_owned());
    } else if code == "UK" {
        let detail = "UK is not the country's code; it is GB".to_owned();
        found.order(HoldReason::AddressInvalid, field, detail);
    } else if !is_country(code) {
        let detail = "the country is not a two-letter code of ISO 3166".to_owned();
        found.order(HoldReason::AddressInvalid, field, detail);
    }
}

/// "-", "." and the like are what people write when a form insists.
fn says_something(text: &str) -> bool {
    text.chars().any(char::is_alphanumeric)
}

/// Many channels send street and house number as one line: then a number stands after the first word. (A first word
/// may be a number of its own: "1e Weteringdwarsstraat".)
fn ends_in_number(street: &str) -> bool {
    street.split_whitespace().skip(1).any(|word| word.bytes().any(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(country: &str, postcode: &str, street: &str, house_number: &str) -> Address {
        Address {
            name: "A. Example".into(),
            street: street.into(),
            house_number: (!house_number.is_empty()).then(|| house_number.into()),
            postcode: postcode.into(),
            city: "Somewhere".into(),
            country: country.into(),
            ..Default::default()
        }
    }

    fn problems(address: &Address) -> Vec<String> {
        let mut found = Found::default();
        check(address, &mut found);
        let problems = found.end();
        assert!(problems.iter().all(|it| it.reason == HoldReason::AddressInvalid && it.line_no.is_none()));
        problems.into_iter().map(|it| format!("{}: {}", it.field, it.detail)).collect()
    }

    #[test]
    fn an_address_of_its_countrys_form_has_no_problem() {
        for (country, postcode, street, number) in [
            ("NL", "1234 AB", "Voorbeeldstraat", "12"),
            ("NL", "1234AB", "Voorbeeldstraat 12b", ""),
            ("NL", "1234 AB", "Postbus 100", ""),
            ("BE", "1000", "Rue Exemple", "5"),
            ("DE", "10115", "Musterstraße 3", ""),
            ("FR", "75001", "Lieu-dit Exemple", ""),
            ("GB", "SW1A 1AA", "The Old Mill", ""),
            ("IE", "D02 AF30", "Somewhere", ""),
            ("LU", "L-1234", "Rue Exemple", ""),
            ("AT", "1010", "Beispielgasse 1", ""),
            ("ES", "28001", "Calle Ejemplo s/n", ""),
            ("IT", "00184", "Via Esempio snc", ""),
            ("DK", "8000", "Eksempelvej 1", ""),
            ("SE", "111 22", "Exempelgatan 1", ""),
            ("PL", "00-001", "Przykładowa 1", ""),
            ("CH", "8001", "Beispielstrasse 1", ""),
            ("PT", "1000-001", "Rua Exemplo 1", ""),
            ("AE", "", "Example Road", ""),
            ("JP", "100-0001", "Example 1-1", ""),
        ] {
            assert_eq!(
                problems(&address(country, postcode, street, number)),
                Vec::<String>::new(),
                "{country} {street}"
            );
        }
    }

    #[test]
    fn everything_wrong_with_an_address_is_said_at_once() {
        let broken = Address { country: "NL".into(), postcode: "12".into(), street: "-".into(), ..Default::default() };
        assert_eq!(
            problems(&broken),
            vec![
                "ship_to.name: the name (or the company's) is missing",
                "ship_to.street: the street is missing",
                "ship_to.city: the town is missing",
                "ship_to.postcode: the postcode does not have the form of NL (1234 AB)",
            ]
        );
    }

    #[test]
    fn a_house_number_is_asked_for_where_a_house_is_not_found_without() {
        let missing = vec!["ship_to.house_number: the house number is missing"];
        for (country, postcode) in [("NL", "1234 AB"), ("BE", "1000"), ("DE", "10115")] {
            assert_eq!(problems(&address(country, postcode, "Voorbeeldstraat", "")), missing, "{country}");
            assert_eq!(problems(&address(country, postcode, "2e Voorbeeldstraat", "")), missing, "{country}");
            assert_eq!(problems(&address(country, postcode, "Voorbeeldstraat", "b")), missing, "{country}");
        }
        assert_eq!(problems(&address("FR", "75001", "Rue Exemple", "")), Vec::<String>::new());
    }

    #[test]
    fn a_country_that_is_none_is_said_without_guessing_what_its_postcodes_are() {
        let it = |country| problems(&address(country, "whatever", "Road 1", ""));
        assert_eq!(it("UK"), vec!["ship_to.country: UK is not the country's code; it is GB"]);
        assert_eq!(it("EIRE"), vec!["ship_to.country: the country is not a two-letter code of ISO 3166"]);
        assert_eq!(it(""), vec!["ship_to.country: the country is missing"]);
    }

    #[test]
    fn a_house_name_in_the_second_line_will_do_in_britain() {
        let named = Address { extra: Some("The Old Mill".into()), ..address("GB", "SW1A 1AA", "", "") };
        assert_eq!(problems(&named), Vec::<String>::new());
        let dutch = Address { country: "NL".into(), postcode: "1234 AB".into(), ..named };
        assert_eq!(problems(&dutch), vec!["ship_to.street: the street is missing"]);
    }
}
