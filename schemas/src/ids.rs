//! Identities. Each is a pure function of what it names, so that a repeat is recognised anywhere.
//!
//! Form: a version-8 UUID (RFC 9562, section 5.8) whose bits are the head of a SHA-256 over the parts, each part
//! preceded by its length, so that no two lists of parts run together.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A UUID made from `parts`; `kind` keeps identities of different things apart.
pub fn derive(kind: &str, parts: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new();
    for part in std::iter::once(kind.as_bytes()).chain(parts.iter().copied()) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// SHA-256 in hex: the version of a body that bears none, and the form in which bearer keys are kept.
pub fn sha256_hex(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

macro_rules! identity {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The id in its text form, as topics and pages show it.
            pub fn parse(text: &str) -> Option<Self> { Uuid::try_parse(text).ok().map(Self) }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { self.0.fmt(f) }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("a UUID as text") }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        Uuid::try_parse(text).map($name).map_err(|_| E::custom("not a UUID"))
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        $crate::avro_as!($name, apache_avro::Schema::String);
    };
}

identity!(
    /// An order: (shop, the shop's order number), whichever way it came in.
    OrderId
);
identity!(
    /// One event: (step, cause event id, index), or for outside input (account, external id, version or body hash).
    EventId
);

impl OrderId {
    /// The id of order `number` of `shop` (a marketplace or a shop, never a connection to it).
    pub fn of(shop: &str, number: &str) -> Self {
        Self(derive("order", &[shop.as_bytes(), number.as_bytes()]))
    }
}

impl EventId {
    /// The id of the `index`-th event that `step` makes from `cause`.
    pub fn of_step(step: &str, cause: EventId, index: u32) -> Self {
        Self(derive("event", &[step.as_bytes(), cause.0.as_bytes(), &index.to_be_bytes()]))
    }

    /// The id of input from outside; `version` is the source's version or the hash of the body.
    pub fn of_input(account: &str, external_id: &str, version: &[u8]) -> Self {
        Self(derive("input", &[account.as_bytes(), external_id.as_bytes(), version]))
    }
}

/// The id of a thing that follows from another one, such as a fulfilment order of an order: (kind, owner, parts).
pub fn child(kind: &str, owner: OrderId, parts: &[&[u8]]) -> Uuid {
    let mut all: Vec<&[u8]> = vec![owner.0.as_bytes()];
    all.extend_from_slice(parts);
    derive(kind, &all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(OrderId::of("a", "bc"), OrderId::of("ab", "c"));
    }

    #[test]
    fn the_id_that_the_page_for_producers_tells_is_right() {
        let row = format!("| `shop.example` | `1001` | `{}` |", OrderId::of("shop.example", "1001"));
        assert!(include_str!("../../docs/producing.md").contains(&row), "{row}");
    }

    #[test]
    fn a_hash_is_written_in_hex() {
        // FIPS 180-2, appendix B.1.
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(b"abc"), hash);
    }

    #[test]
    fn the_same_order_has_the_same_id_for_ever() {
        assert_eq!(OrderId::of("shop.nl", "1001").to_string(), OrderId::of("shop.nl", "1001").to_string());
        assert_eq!(OrderId::of("shop.nl", "1001").0.get_version_num(), 8);
    }
}
