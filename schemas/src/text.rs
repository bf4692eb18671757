//! Closed lists of words and identifiers that travel as Avro strings.
//!
//! An Avro enum cannot gain a symbol without breaking readers that were built before it, so words travel as
//! strings: a reader that does not know a word yet sees `Unknown` and goes on.

/// An enum whose variants travel as fixed words; `Unknown` stands for every word this build does not know.
#[macro_export]
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub enum $name {
            $($(#[$vmeta])* $variant,)+
            /// A word that this build does not know; never written.
            #[default]
            Unknown,
        }

        impl $name {
            /// Every known value, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ Self::Unknown => "unknown" }
            }

            /// The value of a word; `Unknown` for one that is not in the list.
            pub fn of(word: &str) -> Self {
                match word { $($word => Self::$variant,)+ _ => Self::Unknown }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.pad(self.as_str()) }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Word;
                impl serde::de::Visitor<'_> for Word {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("a word") }
                    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<$name, E> { Ok($name::of(word)) }
                }
                deserializer.deserialize_str(Word)
            }
        }

        $crate::avro_as!($name, apache_avro::Schema::String);
    };
}

/// Gives a type the Avro schema of the form it is serialised in.
#[macro_export]
macro_rules! avro_as {
    ($name:ty, $schema:expr) => {
        impl apache_avro::serde::AvroSchemaComponent for $name {
            fn get_schema_in_ctxt(
                _: &mut std::collections::HashSet<apache_avro::schema::Name>,
                _: apache_avro::schema::NamespaceRef,
            ) -> apache_avro::Schema {
                $schema
            }
            fn get_record_fields_in_ctxt(
                _: &mut std::collections::HashSet<apache_avro::schema::Name>,
                _: apache_avro::schema::NamespaceRef,
            ) -> Option<Vec<apache_avro::schema::RecordField>> {
                None
            }
        }
    };
}
