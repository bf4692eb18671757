//! Which ports the servers of one folder have: found free once, remembered, and changed only when somebody else took one.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener},
    path::Path,
};

use anyhow::{Result, bail};

use super::env_file;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    Postgres,
    Kafka,
    /// The same broker under its own address, where what it advertises is a proxy's.
    KafkaDirect,
    KafkaController,
    Registry,
    RegistryHealth,
}

const ALL: [(Port, &str); 6] = [
    (Port::Postgres, "POSTGRES"),
    (Port::Kafka, "KAFKA"),
    (Port::KafkaDirect, "KAFKA_DIRECT"),
    (Port::KafkaController, "KAFKA_CONTROLLER"),
    (Port::Registry, "REGISTRY"),
    (Port::RegistryHealth, "REGISTRY_HEALTH"),
];

/// Below what systems hand out to connections going out (Linux from 32,768), or a server that is down for a moment
/// could not come back on its port.
const FIRST: u16 = 19_000;
const BLOCK: u16 = 10;
const BLOCKS: u16 = 1_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(BTreeMap<Port, u16>);

impl Ports {
    /// Those remembered in `file`; what is not there is chosen, and remembered.
    pub fn remembered(file: &Path, folder: &Path) -> Result<Self> {
        let values = env_file::read(file)?;
        let known: BTreeMap<Port, u16> =
            ALL.iter().filter_map(|(port, name)| Some((*port, values.get(*name)?.parse().ok()?))).collect();
        let ports = Self::choose(known, block_of(folder), &is_free)?;
        ports.remember(file)?;
        Ok(ports)
    }

    pub fn get(&self, port: Port) -> u16 {
        self.0[&port]
    }

    /// Gives up a port that somebody else has, and takes the next free one.
    pub fn change(&mut self, port: Port, file: &Path) -> Result<u16> {
        let free = self.free_after(self.get(port), &is_free)?;
        self.0.insert(port, free);
        self.remember(file)?;
        Ok(free)
    }

    fn remember(&self, file: &Path) -> Result<()> {
        let values: Vec<(&str, String)> = ALL.iter().map(|(port, name)| (*name, self.get(*port).to_string())).collect();
        env_file::write(file, "Ports of the servers that `./kept up` starts from this folder.", &values)
    }

    fn choose(known: BTreeMap<Port, u16>, block: u16, free: &dyn Fn(u16) -> bool) -> Result<Self> {
        if known.len() == ALL.len() {
            return Ok(Self(known));
        }
        for at in 0..BLOCKS {
            let first = FIRST + (block + at) % BLOCKS * BLOCK;
            let numbers = (first..).take(ALL.len());
            if numbers.clone().all(free) {
                let mut chosen: BTreeMap<Port, u16> = ALL.iter().map(|it| it.0).zip(numbers).collect();
                chosen.extend(known);
                return Ok(Self(chosen));
            }
        }
        bail!("no free ports between {FIRST} and {}", FIRST + BLOCK * BLOCKS)
    }

    fn free_after(&self, taken: u16, free: &dyn Fn(u16) -> bool) -> Result<u16> {
        let last = FIRST + BLOCK * BLOCKS;
        let mut candidates = (taken.saturating_add(1)..last).chain(FIRST..last);
        match candidates.find(|it| !self.0.values().any(|ours| ours == it) && free(*it)) {
            Some(port) => Ok(port),
            None => bail!("no free port between {FIRST} and {last}"),
        }
    }
}

/// Whether a server could listen there now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Two folders start looking at different places, so that two stacks starting at once seldom meet.
fn block_of(folder: &Path) -> u16 {
    let hash =
        folder.to_string_lossy().bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    u16::try_from(hash % u32::from(BLOCKS)).expect("less than a thousand")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_chosen_where_all_are_free() {
        let taken = |port: u16| port != FIRST + 3 && port != FIRST + 15;
        let ports = Ports::choose(BTreeMap::new(), 0, &taken).unwrap();
        assert_eq!(ports.get(Port::Postgres), FIRST + 20);
        assert_eq!(ports.get(Port::RegistryHealth), FIRST + 25);
    }

    #[test]
    fn a_remembered_port_stays_though_its_own_server_holds_it() {
        let known = BTreeMap::from([(Port::Kafka, 30_001)]);
        let ports = Ports::choose(known, 0, &|port| port != 30_001).unwrap();
        assert_eq!(ports.get(Port::Kafka), 30_001);
        assert_eq!(ports.get(Port::Postgres), FIRST);
    }

    #[test]
    fn a_port_given_up_is_replaced_by_one_that_is_free_and_not_already_ours() {
        let ports = Ports::choose(BTreeMap::new(), 0, &|_| true).unwrap();
        let next = ports.free_after(FIRST, &|port| port != FIRST + 6).unwrap();
        assert_eq!(next, FIRST + 7);
    }

    #[test]
    fn when_nothing_is_free_it_is_said() {
        assert!(Ports::choose(BTreeMap::new(), 3, &|_| false).is_err());
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
        drop(listener);
        assert!(is_free(port));
    }

    #[test]
    fn ports_are_the_same_at_the_next_start() {
        let file = std::env::temp_dir().join(format!("kept-ports-{}", std::process::id()));
        let first = Ports::remembered(&file, Path::new("/a")).unwrap();
        let mut second = Ports::remembered(&file, Path::new("/a")).unwrap();
        assert_eq!(first, second);
        let moved = second.change(Port::Registry, &file).unwrap();
        assert_eq!(Ports::remembered(&file, Path::new("/a")).unwrap().get(Port::Registry), moved);
        std::fs::remove_file(&file).unwrap();
    }
}
