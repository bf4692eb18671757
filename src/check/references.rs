//! Reference data as it was: every version that topics and the ledger's table still have.

use std::{collections::BTreeMap, sync::Arc};

use kept_processors::reference::Reference;
use kept_schemas::{
    Codec, Micros, Topic,
    inbound::ReferenceVersion,
    reference::{Account, Customer, Location, Policy, Product},
    topics::Record,
};

/// Snapshots that are kept at hand.
const AT_HAND: usize = 6;

/// One version: a record of a reference topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub key: String,
    /// `None`: it was removed.
    pub value: Option<Vec<u8>>,
    pub at: Micros,
}

/// Every version of every reference topic, by its offset.
#[derive(Debug, Clone, Default)]
pub struct References {
    versions: BTreeMap<(Topic, i64), Version>,
    made: Vec<(BTreeMap<Topic, i64>, Arc<Reference>)>,
}

impl References {
    /// Learns a version; the same from topic and table is one.
    pub fn add(&mut self, topic: Topic, offset: i64, version: Version) {
        self.versions.entry((topic, offset)).or_insert(version);
        self.made.clear();
    }

    /// Each schema id that versions were written with is to be learnt before snapshots are made.
    pub fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.versions.values().filter_map(|version| version.value.as_deref())
    }

    /// Reference data as a decision recorded it; a version named later stands for the later look.
    pub fn of(&mut self, codec: &Codec, recorded: &[ReferenceVersion]) -> Arc<Reference> {
        let mut wanted = BTreeMap::new();
        for version in recorded {
            if let Some(topic) = Topic::of(&version.topic) {
                wanted.insert(topic, version.version);
            }
        }
        self.below(codec, wanted)
    }

    /// Reference data as it was at an instant.
    pub fn at(&mut self, codec: &Codec, at: Micros) -> Arc<Reference> {
        let wanted = self.versions_at(at);
        self.below(codec, wanted)
    }

    /// Per topic, the offset that came next at an instant.
    pub fn versions_at(&self, at: Micros) -> BTreeMap<Topic, i64> {
        let mut wanted = BTreeMap::new();
        for ((topic, offset), version) in &self.versions {
            if version.at <= at {
                wanted.insert(*topic, offset + 1);
            }
        }
        wanted
    }

    /// All records below the wanted versions.
    pub fn below(&mut self, codec: &Codec, wanted: BTreeMap<Topic, i64>) -> Arc<Reference> {
        if let Some((_, made)) = self.made.iter().find(|(versions, _)| *versions == wanted) {
            return Arc::clone(made);
        }
        let mut reference = Reference::default();
        for ((topic, offset), version) in &self.versions {
            if wanted.get(topic).is_some_and(|wanted| offset < wanted) {
                put(&mut reference, codec, *topic, version);
            }
        }
        reference.versions.clone_from(&wanted);
        let reference = Arc::new(reference);
        if self.made.len() == AT_HAND {
            self.made.remove(0);
        }
        self.made.push((wanted, Arc::clone(&reference)));
        reference
    }
}

fn put(reference: &mut Reference, codec: &Codec, topic: Topic, version: &Version) {
    match topic {
        Topic::ReferenceProducts => set::<Product>(&mut reference.products, codec, version),
        Topic::ReferenceLocations => set::<Location>(&mut reference.locations, codec, version),
        Topic::ReferenceAccounts => set::<Account>(&mut reference.accounts, codec, version),
        Topic::ReferenceCustomers => set::<Customer>(&mut reference.customers, codec, version),
        Topic::ReferencePolicies => set::<Policy>(&mut reference.policies, codec, version),
        _ => {}
    }
}

/// A version that cannot be read changes nothing, as for every reader.
fn set<T: Record>(all: &mut BTreeMap<String, T>, codec: &Codec, version: &Version) {
    match &version.value {
        None => {
            all.remove(&version.key);
        }
        Some(value) => {
            if let Ok(Some(value)) = codec.decode::<T>(value) {
                all.insert(version.key.clone(), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kept_schemas::codec::offline;

    use super::*;

    #[test]
    fn a_snapshot_has_what_was_there_below_its_version_and_nothing_later() {
        let codec = offline();
        let product = |grams| {
            let product = Product { sku: "MUG".into(), weight_grams: Some(grams), ..Default::default() };
            Some(codec.encode(&product).expect("it fits").bytes())
        };
        let mut references = References::default();
        let day = Micros::DAY;
        for (offset, value, at) in [(0, product(1), day), (2, product(2), 2 * day), (3, None, 3 * day)] {
            references.add(Topic::ReferenceProducts, offset, Version { key: "MUG".into(), value, at: Micros(at) });
        }
        let recorded = |version| [ReferenceVersion { topic: "reference.products".into(), version }];
        let grams = |reference: &Reference| reference.products.get("MUG").and_then(|it| it.weight_grams);
        assert_eq!(grams(&references.of(&codec, &recorded(1))), Some(1));
        assert_eq!(grams(&references.of(&codec, &recorded(3))), Some(2));
        assert_eq!(grams(&references.of(&codec, &recorded(4))), None);
        assert_eq!(grams(&references.at(&codec, Micros(2 * day + 1))), Some(2));
        let reference = references.of(&codec, &recorded(3));
        assert_eq!(reference.versions[&Topic::ReferenceProducts], 3);
    }
}
