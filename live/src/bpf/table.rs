//! The maps as tables: frontends, listening sockets, counters.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use aya::maps::lpm_trie::Key;
use aya::maps::{
    HashMap, IterableMap as _, LpmTrie, Map, MapData, MapError, PerCpuArray, SockHash,
};
use ipnet::IpNet;
use nodeway_core::datapath::layout::{self, COLUMNS, Fault, FrontendValue, SocketKey, SourceKey};
use nodeway_core::datapath::{Address, Family, Frontend, Reason};
use nodeway_core::plan::FrontendKey;

use super::event::HOOKS;

/// Why a table cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It is full.
    #[error("the table {table} is full: it takes {takes} of them")]
    Full {
        /// Which table.
        table: &'static str,
        /// How many entries it takes.
        takes: u32,
    },
    /// The kernel refused.
    #[error("cannot {action} in the kernel's table {table}: {said}")]
    Refused {
        /// `open`, `put`, `remove`, `read`
        action: &'static str,
        /// Which table.
        table: &'static str,
        /// What the kernel said.
        said: String,
    },
}

pub(super) fn refused(
    action: &'static str,
    table: &'static str,
) -> impl Fn(MapError) -> TableError {
    move |error| {
        let said = match &error {
            MapError::SyscallError(call) => call.io_error.to_string(),
            _ => error.to_string(),
        };
        TableError::Refused {
            action,
            table,
            said,
        }
    }
}

fn map(id: u32, pin: Option<&Path>) -> Result<MapData, MapError> {
    match pin {
        Some(pin) => MapData::from_pin(pin),
        None => MapData::from_id(id),
    }
}

/// The table of frontends.
#[derive(Debug)]
pub(super) struct Frontends(
    pub(super) HashMap<MapData, [u8; layout::FrontendKey::SIZE], [u8; FrontendValue::SIZE]>,
);

impl Frontends {
    const NAME: &'static str = "of frontends";

    pub(super) fn put(&mut self, key: FrontendKey, frontend: Frontend) -> Result<(), TableError> {
        let value = FrontendValue::from(frontend).to_bytes();
        let (family, address) = bytes(key.address);
        let key = layout::FrontendKey::new(family, address, key.port).to_bytes();
        let put = self.0.insert(key, value, 0);
        put.map_err(not_put(Self::NAME, layout::FRONTENDS, E2BIG))
    }

    pub(super) fn remove(&mut self, key: FrontendKey) -> Result<(), TableError> {
        let (family, address) = bytes(key.address);
        let key = layout::FrontendKey::new(family, address, key.port).to_bytes();
        match self.0.remove(&key) {
            Err(error) if !is_missing(&error) => Err(refused("remove", Self::NAME)(error)),
            _ => Ok(()),
        }
    }

    /// The map of that number in the kernel, made by whichever process; by its pin, if it has one.
    pub(super) fn open(id: u32, pin: Option<&Path>) -> Result<Self, TableError> {
        let map = map(id, pin).map_err(refused("open", Self::NAME))?;
        let map = Map::from_map_data(map).and_then(HashMap::try_from);
        Ok(Self(map.map_err(refused("open", Self::NAME))?))
    }

    pub(super) fn id(&self) -> Result<u32, TableError> {
        let info = self.0.map().info().map_err(refused("read", Self::NAME))?;
        Ok(info.id())
    }

    pub(super) fn all(&self) -> Result<BTreeMap<FrontendKey, Frontend>, TableError> {
        let mut all = BTreeMap::new();
        for entry in self.0.iter() {
            let (key, value) = entry.map_err(refused("read", Self::NAME))?;
            let key = layout::FrontendKey::from_bytes(key);
            if let Some(address) = address(key.family, key.address)
                && let Some(frontend) = FrontendValue::from_bytes(value).frontend()
            {
                let port = key.port;
                all.insert(FrontendKey { address, port }, frontend);
            }
        }
        Ok(all)
    }
}

/// `E2BIG` and `ENOSPC`: what a hash table and a trie say when they are full.
const E2BIG: i32 = 7;
const ENOSPC: i32 = 28;

fn not_put(table: &'static str, takes: u32, full: i32) -> impl Fn(MapError) -> TableError {
    move |error| match &error {
        MapError::SyscallError(call) if call.io_error.raw_os_error() == Some(full) => {
            TableError::Full { table, takes }
        }
        _ => refused("put", table)(error),
    }
}

/// The table of source ranges.
#[derive(Debug)]
pub(super) struct Sources(pub(super) LpmTrie<MapData, [u8; SourceKey::SIZE], u8>);

impl Sources {
    const NAME: &'static str = "of source ranges";

    pub(super) fn put(&mut self, key: FrontendKey, range: IpNet) -> Result<(), TableError> {
        let put = self.0.insert(&source(key, range), 1, 0);
        put.map_err(not_put(Self::NAME, layout::SOURCES, ENOSPC))
    }

    pub(super) fn remove(&mut self, key: FrontendKey, range: IpNet) -> Result<(), TableError> {
        match self.0.remove(&source(key, range)) {
            Err(error) if !is_missing(&error) => Err(refused("remove", Self::NAME)(error)),
            _ => Ok(()),
        }
    }

    /// The map of that number in the kernel, made by whichever process; by its pin, if it has one.
    pub(super) fn open(id: u32, pin: Option<&Path>) -> Result<Self, TableError> {
        let map = map(id, pin).map_err(refused("open", Self::NAME))?;
        let map = Map::from_map_data(map).and_then(LpmTrie::try_from);
        Ok(Self(map.map_err(refused("open", Self::NAME))?))
    }

    pub(super) fn id(&self) -> Result<u32, TableError> {
        let info = self.0.map().info().map_err(refused("read", Self::NAME))?;
        Ok(info.id())
    }

    pub(super) fn all(&self) -> Result<Vec<(FrontendKey, IpNet)>, TableError> {
        let mut all = Vec::new();
        for key in self.0.keys() {
            let key = key.map_err(refused("read", Self::NAME))?;
            let bits = key.prefix_len().saturating_sub(SourceKey::FRONTEND_BITS);
            let SourceKey { frontend, source } = SourceKey::from_bytes(key.data());
            if let Some(to) = address(frontend.family, frontend.address)
                && let Some(from) = address(frontend.family, source)
                && let Ok(bits) = u8::try_from(bits)
                && let Ok(range) = IpNet::new(from, bits)
            {
                let (address, port) = (to, frontend.port);
                all.push((FrontendKey { address, port }, range));
            }
        }
        Ok(all)
    }
}

/// A range of a frontend as the trie holds it.
fn source(key: FrontendKey, range: IpNet) -> Key<[u8; SourceKey::SIZE]> {
    let (family, address) = bytes(key.address);
    let (_, network) = bytes(range.network());
    let source = SourceKey {
        frontend: layout::FrontendKey::new(family, address, key.port),
        source: network,
    };
    let bits = SourceKey::FRONTEND_BITS + u32::from(range.prefix_len());
    Key::new(bits, source.to_bytes())
}

/// The table of listening sockets; the programs put them in.
pub(super) struct ListenSockets(pub(super) SockHash<MapData, [u8; SocketKey::SIZE]>);

impl ListenSockets {
    const NAME: &'static str = "of listening sockets";

    pub(super) fn remove(&mut self, key: SocketKey) -> Result<(), TableError> {
        match self.0.remove(&key.to_bytes()) {
            Err(error) if !is_missing(&error) => Err(refused("remove", Self::NAME)(error)),
            _ => Ok(()),
        }
    }

    pub(super) fn keys(&self) -> Result<Vec<SocketKey>, TableError> {
        self.0
            .keys()
            .map(|key| key.map(SocketKey::from_bytes))
            .collect::<Result<_, _>>()
            .map_err(refused("read", Self::NAME))
    }
}

fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        // ENOENT; a socket map says EINVAL of a key that it does not have.
        MapError::SyscallError(call) => matches!(call.io_error.raw_os_error(), Some(2 | 22)),
        _ => false,
    }
}

/// How often what was decided, over all CPUs, since the maps were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By hook (`tc`, `sk-lookup`, `connect`) and reason; only what was counted.
    pub decisions: BTreeMap<(&'static str, Reason), u64>,
    /// What could not be done and was worked around; only what was counted.
    pub faults: BTreeMap<Fault, u64>,
}

impl Counters {
    /// How often a hook gave a reason.
    #[must_use]
    pub fn of(&self, hook: &'static str, reason: Reason) -> u64 {
        self.decisions.get(&(hook, reason)).copied().unwrap_or(0)
    }

    /// All that is not 0, by hook and reason as they are printed.
    #[must_use]
    pub fn by_hook(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let mut all: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for ((hook, reason), count) in &self.decisions {
            let of_hook = all.entry((*hook).to_owned()).or_default();
            of_hook.insert(reason.to_string(), *count);
        }
        all
    }

    pub(super) fn read(map: &PerCpuArray<MapData, u64>) -> Result<Self, TableError> {
        let get = |row: u8, column: u8| {
            let index = u32::from(row) * COLUMNS + u32::from(column);
            let values = map.get(&index, 0).map_err(refused("read", "of counters"))?;
            Ok(values.iter().sum::<u64>())
        };
        let mut counters = Self::default();
        for (name, hook) in HOOKS {
            for reason in Reason::ALL {
                match get(layout::row(hook), *reason as u8)? {
                    0 => {}
                    count => {
                        counters.decisions.insert((name, *reason), count);
                    }
                }
            }
        }
        for fault in Fault::ALL {
            match get(layout::FAULT_ROW, *fault as u8)? {
                0 => {}
                count => {
                    counters.faults.insert(*fault, count);
                }
            }
        }
        Ok(counters)
    }
}

/// An address as the programs hold it.
pub(super) fn bytes(address: IpAddr) -> (Family, Address) {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            let address = [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            (Family::V4, address)
        }
        IpAddr::V6(address) => (Family::V6, address.octets()),
    }
}

/// What the programs hold as an address.
pub(super) fn address(family: u8, bytes: Address) -> Option<IpAddr> {
    let [a, b, c, d, ..] = bytes;
    match family {
        4 => Some(Ipv4Addr::new(a, b, c, d).into()),
        6 => Some(Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}
