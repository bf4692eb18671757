//! Reference data as decisions see it: whole, in memory, with the version (offset) of each topic.

use std::collections::BTreeMap;

use kept_schemas::{
    inbound::ReferenceVersion,
    reference::{Account, Customer, Location, Policy, Product},
    topics::Topic,
};

/// A snapshot of all reference topics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reference {
    pub products: BTreeMap<String, Product>,
    pub locations: BTreeMap<String, Location>,
    pub accounts: BTreeMap<String, Account>,
    pub customers: BTreeMap<String, Customer>,
    pub policies: BTreeMap<String, Policy>,
    /// The offset after the last record read, per topic.
    pub versions: BTreeMap<Topic, i64>,
}

impl Reference {
    /// The policy of a channel, else the default one, else ours.
    pub fn policy(&self, channel: &str) -> Policy {
        self.policies.get(channel).or_else(|| self.policies.get("default")).cloned().unwrap_or_default()
    }

    /// The versions of `topics`, as a decision records them.
    pub fn versions_of(&self, topics: &[Topic]) -> Vec<ReferenceVersion> {
        topics
            .iter()
            .map(|topic| ReferenceVersion {
                topic: topic.name().to_owned(),
                version: self.versions.get(topic).copied().unwrap_or(0),
            })
            .collect()
    }
}
