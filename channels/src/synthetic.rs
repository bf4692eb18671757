//! Invented people and addresses: no one lives there. Whoever shows them calls them synthetic.
//!
//! Everything follows from a seed and the id of what it is for, so that a second run makes the same.

use kept_schemas::order::Address;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// Randomness that follows from a seed and ids alone.
pub fn random(seed: u64, purpose: &str, ids: &[&str]) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(seed.to_be_bytes());
    for part in std::iter::once(&purpose).chain(ids) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    ChaCha8Rng::from_seed(hash.finalize().into())
}

/// An invented person or company and where they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Person {
    pub name: String,
    pub company: Option<String>,
    pub street: String,
    pub house_number: Option<String>,
    pub house_number_addition: Option<String>,
    pub postcode: String,
    pub city: String,
    pub country: String,
    pub email: String,
    /// BCP 47.
    pub language: &'static str,
    /// What is wrong with the address on purpose.
    pub defect: Option<Defect>,
}

/// A fault put into an address, of the kinds that real address books have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    NoHouseNumber,
    NoCity,
    NoStreet,
    Postcode,
}

struct Country {
    code: &'static str,
    /// `9`: 1 to 9, `0`: 0 to 9, `A`: a letter, anything else as it is.
    postcode: &'static str,
    words: &'static Words,
    /// Its posts will not deliver without a house number.
    needs_house_number: bool,
}

struct Words {
    language: &'static str,
    first: &'static [&'static str],
    last: &'static [&'static str],
    streets: &'static [&'static str],
    towns: &'static [&'static str],
    companies: &'static [&'static str],
}

const DUTCH: Words = Words {
    language: "nl",
    first: &["Anna", "Bram", "Daan", "Emma", "Fleur", "Joost", "Lotte", "Sanne", "Sem", "Tess"],
    last: &["Voorbeeld", "van der Proef", "de Fictie", "Verzonnen", "Testman", "van Nergens", "Denkbeeld", "Schijn"],
    streets: &["Kerkstraat", "Dorpsstraat", "Molenweg", "Stationsplein", "Lindelaan", "Havenkade", "Schoolstraat"],
    towns: &["Verzinstad", "Nergenshuizen", "Proefdorp", "Oud-Voorbeeld", "Denkbeeldrecht", "Fictiehaven"],
    companies: &["Bloemen en Meer", "Winkel op de Hoek", "Groothandel", "Cadeaus", "Bakkerij", "Kantoorzaken"],
};
const FRENCH: Words = Words {
    language: "fr",
    first: &["Amélie", "Benoît", "Camille", "Élodie", "Hugo", "Inès", "Louis", "Manon", "Théo", "Zoé"],
    last: &["Exemple", "Delessai", "Fictif", "Dumodèle", "Imaginaire", "Nullepart", "Personne"],
    streets: &["Rue de l'Église", "Avenue de la Gare", "Rue du Moulin", "Place du Marché", "Rue des Écoles"],
    towns: &["Exempleville", "Saint-Fictif", "Nullepart-sur-Mer", "Essai-le-Grand", "Modèle-la-Forêt"],
    companies: &["Fleurs et Cadeaux", "Boutique du Coin", "Grossiste", "Papeterie", "Boulangerie"],
};
const GERMAN: Words = Words {
    language: "de",
    first: &["Anja", "Ben", "Clara", "Emil", "Jürgen", "Käthe", "Lena", "Moritz", "Sören", "Ute"],
    last: &["Beispiel", "Mustermann", "Probe", "Erfunden", "Niemand", "Ausgedacht", "Muster-Weiß"],
    streets: &["Hauptstraße", "Bahnhofstraße", "Mühlenweg", "Am Markt", "Lindenallee", "Schulstraße"],
    towns: &["Musterstadt", "Beispielhausen", "Nirgendwo", "Probedorf", "Neu-Erfunden"],
    companies: &["Blumen und mehr", "Laden am Eck", "Großhandel", "Geschenke", "Bürobedarf"],
};
const ENGLISH: Words = Words {
    language: "en",
    first: &["Alice", "Ben", "Chloe", "Dylan", "Grace", "Harry", "Isla", "Jack", "Mia", "Noah"],
    last: &["Example", "Sample", "Madeup", "Nowhere", "Fictional", "Placeholder", "Invented"],
    streets: &["Church Street", "Station Road", "Mill Lane", "High Street", "Park Avenue", "School Lane"],
    towns: &["Sampleton", "Exampleford", "Nowhere-on-Sea", "Madeupham", "Upper Fiction", "Placeholder Bridge"],
    companies: &["Flowers and More", "Corner Shop", "Wholesale", "Gifts", "Stationers", "Bakery"],
};
const SPANISH: Words = Words {
    language: "es",
    first: &["Ana", "Carlos", "Elena", "Javier", "Lucía", "Mateo", "Nuria", "Pablo"],
    last: &["Ejemplo", "Ficticio", "Inventado", "Muestra", "Ninguno"],
    streets: &["Calle Mayor", "Calle de la Iglesia", "Plaza del Mercado", "Avenida de la Estación"],
    towns: &["Villaejemplo", "San Ficticio", "Ningunaparte", "Muestra de Arriba"],
    companies: &["Flores y Regalos", "Tienda de la Esquina", "Mayorista", "Papelería"],
};
const ITALIAN: Words = Words {
    language: "it",
    first: &["Alessia", "Bruno", "Chiara", "Davide", "Elisa", "Luca", "Marta", "Nicolò"],
    last: &["Esempio", "Finto", "Inventato", "Prova", "Nessuno"],
    streets: &["Via Roma", "Via della Chiesa", "Piazza del Mercato", "Viale della Stazione"],
    towns: &["Esempiopoli", "San Finto", "Provamare", "Nessundove"],
    companies: &["Fiori e Regali", "Bottega", "Ingrosso", "Cartoleria"],
};
const PORTUGUESE: Words = Words {
    language: "pt",
    first: &["Ana", "Bruno", "Inês", "João", "Maria", "Rui", "Sofia", "Tiago"],
    last: &["Exemplo", "Fictício", "Inventado", "Ninguém", "Amostra"],
    streets: &["Rua da Igreja", "Rua do Moinho", "Praça do Mercado", "Avenida da Estação"],
    towns: &["Vila Exemplo", "São Fictício", "Nenhures", "Amostra de Baixo"],
    companies: &["Flores e Prendas", "Loja da Esquina", "Grossista", "Papelaria"],
};
const NORDIC: Words = Words {
    language: "en",
    first: &["Astrid", "Bjørn", "Elin", "Freja", "Lars", "Maja", "Nils", "Søren", "Åsa"],
    last: &["Eksempel", "Påhitt", "Ingensted", "Opdigt", "Prøve"],
    streets: &["Storgata", "Kirkegade", "Skolvägen", "Stationsvej", "Kvarngatan"],
    towns: &["Eksempelby", "Påhittstad", "Ingenstedvik", "Prøvehavn"],
    companies: &["Blomster og Gaver", "Hjørnebutik", "Engros", "Papir"],
};
const SLAVIC: Words = Words {
    language: "en",
    first: &["Agnieszka", "Eliška", "Jakub", "Łukasz", "Ondřej", "Zofia"],
    last: &["Przykład", "Vzorek", "Zmyślony", "Nikdo", "Próba"],
    streets: &["Ogrodowa", "Szkolna", "Nádražní", "Školní", "Kościelna"],
    towns: &["Przykładowo", "Vzorkov", "Nikdežice", "Zmyślin"],
    companies: &["Kwiaty", "Květiny", "Hurtownia", "Papírnictví"],
};

const fn country(
    code: &'static str,
    postcode: &'static str,
    words: &'static Words,
    needs_house_number: bool,
) -> Country {
    Country { code, postcode, words, needs_house_number }
}

/// Forms of postcodes are general knowledge; codes made from them need not exist.
const COUNTRIES: &[Country] = &[
    country("NL", "9000 AA", &DUTCH, true),
    country("BE", "9000", &DUTCH, true),
    country("DE", "90000", &GERMAN, true),
    country("LU", "9000", &FRENCH, true),
    country("AT", "9000", &GERMAN, true),
    country("DK", "9000", &NORDIC, true),
    country("PL", "90-000", &SLAVIC, true),
    country("FR", "90000", &FRENCH, false),
    country("GB", "AA9 9AA", &ENGLISH, false),
    country("IE", "A90 A0A0", &ENGLISH, false),
    country("ES", "20000", &SPANISH, false),
    country("CH", "9000", &GERMAN, false),
    country("PT", "9000-000", &PORTUGUESE, false),
    country("AU", "9000", &ENGLISH, false),
    country("IT", "90000", &ITALIAN, false),
    country("FI", "90000", &NORDIC, false),
    country("SE", "900 00", &NORDIC, false),
    country("NO", "9000", &NORDIC, false),
    country("JE", "JE9 9AA", &ENGLISH, false),
    country("GG", "GY9 9AA", &ENGLISH, false),
    country("JP", "900-0000", &ENGLISH, false),
    country("CY", "9000", &ENGLISH, false),
    country("HK", "", &ENGLISH, false),
    country("SG", "900000", &ENGLISH, false),
    country("MT", "AAA 9000", &ENGLISH, false),
    country("IL", "9000000", &ENGLISH, false),
    country("IS", "900", &NORDIC, false),
    country("US", "90000", &ENGLISH, false),
    country("GR", "900 00", &ENGLISH, false),
    country("CA", "A9A 9A9", &ENGLISH, false),
    country("CZ", "900 00", &SLAVIC, false),
    country("LT", "90000", &SLAVIC, false),
    country("BH", "900", &ENGLISH, false),
    country("AE", "", &ENGLISH, false),
    country("SA", "90000", &ENGLISH, false),
    country("LB", "9000", &ENGLISH, false),
    country("BR", "90000-000", &PORTUGUESE, false),
    country("ZA", "9000", &ENGLISH, false),
];

/// An invented person in `country` for `who` (a customer's or an order's number): the same for the same question.
/// Of a thousand so many have an address with a fault. `None`: no such country here, so nothing is invented.
pub fn person(seed: u64, who: &[&str], country: &str, business: bool, defects_per_mille: u32) -> Option<Person> {
    let country = COUNTRIES.iter().find(|it| it.code == country)?;
    let mut random = random(seed, "person", who);
    let words = country.words;
    let pick = |random: &mut ChaCha8Rng, list: &'static [&'static str]| list[random.random_range(0..list.len())];
    let first = pick(&mut random, words.first);
    let last = pick(&mut random, words.last);
    let street = pick(&mut random, words.streets);
    let town = pick(&mut random, words.towns);
    let company = format!("{} {last} (synthetic)", pick(&mut random, words.companies));
    let house = random.random_range(1..=220).to_string();
    let addition = (random.random_range(0..8) == 0)
        .then(|| char::from(b'A' + u8::try_from(random.random_range(0..4)).expect("below 4")).to_string());
    let postcode = postcode(&mut random, country.postcode);
    let mailbox: u32 = random.random_range(0..1_000_000);
    let faulty = random.random_range(0..1_000) < defects_per_mille;
    let which = random.random_range(0..10);
    let mut person = Person {
        name: format!("{first} {last}"),
        company: business.then_some(company),
        street: street.to_owned(),
        house_number: Some(house),
        house_number_addition: addition,
        postcode,
        city: town.to_owned(),
        country: country.code.to_owned(),
        email: format!("customer-{mailbox:06}@example.com"),
        language: words.language,
        defect: None,
    };
    if faulty {
        person.break_address(country, which);
    }
    Some(person)
}

impl Person {
    /// The address as an order has it.
    pub fn address(&self) -> Address {
        Address {
            name: self.name.clone(),
            company: self.company.clone(),
            street: self.street.clone(),
            house_number: self.house_number.clone(),
            house_number_addition: self.house_number_addition.clone(),
            extra: None,
            postcode: self.postcode.clone(),
            city: self.city.clone(),
            region: None,
            country: self.country.clone(),
        }
    }

    /// Puts a fault into the address, which of them by `which` (0 to 9).
    pub fn spoil(&mut self, which: u32) -> Option<Defect> {
        let country = COUNTRIES.iter().find(|it| it.code == self.country)?;
        self.break_address(country, which);
        self.defect
    }

    fn break_address(&mut self, country: &Country, which: u32) {
        let defect = match which {
            // A missing house number is the commonest fault where one is needed.
            0..6 if country.needs_house_number => Defect::NoHouseNumber,
            0..8 if !country.postcode.is_empty() => Defect::Postcode,
            8 => Defect::NoStreet,
            _ => Defect::NoCity,
        };
        match defect {
            Defect::NoHouseNumber => {
                self.house_number = None;
                self.house_number_addition = None;
            }
            Defect::NoCity => self.city.clear(),
            Defect::NoStreet => self.street.clear(),
            Defect::Postcode => self.postcode = "?".into(),
        }
        self.defect = Some(defect);
    }
}

fn postcode(random: &mut ChaCha8Rng, form: &str) -> String {
    // Letters that every country with letters in its codes allows in every place.
    const LETTERS: &[u8] = b"AEHNPRTXY";
    form.chars()
        .map(|c| match c {
            '9' => char::from(b'0' + random.random_range(1..=9u8)),
            '0' => char::from(b'0' + random.random_range(0..=9u8)),
            'A' => char::from(LETTERS[random.random_range(0..LETTERS.len())]),
            other => other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_customer_lives_at_the_same_place_in_every_run() {
        let one = person(7, &["shop", "17850"], "GB", false, 25);
        assert_eq!(one, person(7, &["shop", "17850"], "GB", false, 25));
        assert_ne!(one, person(8, &["shop", "17850"], "GB", false, 25));
        assert!(one.is_some());
        assert_eq!(person(7, &["x"], "", false, 25), None);
    }

    #[test]
    fn about_as_many_addresses_have_a_fault_as_was_asked_for() {
        let faulty = (0..10_000)
            .filter_map(|n: u32| person(1, &[&n.to_string()], "NL", false, 25))
            .filter(|it| it.defect.is_some())
            .count();
        assert!((200..300).contains(&faulty), "{faulty}");
        let none = (0..1_000).filter_map(|n: u32| person(1, &[&n.to_string()], "DE", true, 0));
        assert!(none.into_iter().all(|it| it.defect.is_none() && it.house_number.is_some() && it.company.is_some()));
    }

    #[test]
    fn postcodes_have_their_countrys_form() {
        let form = |code: &str| {
            let kind = |c: char| {
                if c.is_ascii_digit() {
                    '0'
                } else if c.is_ascii_uppercase() {
                    'A'
                } else {
                    c
                }
            };
            code.chars().map(kind).collect::<String>()
        };
        for (country, expected) in
            [("NL", "0000 AA"), ("DE", "00000"), ("JE", "AA0 0AA"), ("PT", "0000-000"), ("HK", "")]
        {
            for n in 0..50u32 {
                let it = person(3, &[&n.to_string()], country, false, 0).unwrap();
                assert_eq!(form(&it.postcode), expected, "{country} {}", it.postcode);
            }
        }
    }
}
