//! The maps, and the globals that the loader sets before the programs are loaded.
//!
//! A global is a constant to the verifier, so what one switches off is not part of the loaded
//! program: it costs nothing.

use aya_ebpf::Global;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{HashMap, LpmTrie, PerCpuArray, RingBuf, SockHash};
use nodeway_datapath::layout::{self, FrontendKey, FrontendValue, Peer, SocketKey, SourceKey};

/// Whether an sk_lookup program of ours stands beside tc: 1, else 0.
#[expect(unsafe_code, reason = "the loader finds a global by its name")]
#[unsafe(no_mangle)]
pub static SK_LOOKUP: Global<u32> = Global::new(0);

/// Whether each decision becomes an event in the ring: 1, else 0.
#[expect(unsafe_code, reason = "the loader finds a global by its name")]
#[unsafe(no_mangle)]
pub static TRACE: Global<u32> = Global::new(0);

/// The network namespace whose calls are redirected: a cgroup holds processes of many.
#[expect(unsafe_code, reason = "the loader finds a global by its name")]
#[unsafe(no_mangle)]
pub static NETNS_COOKIE: Global<u64> = Global::new(0);

/// Frontends, by address and port.
#[map]
pub static FRONTENDS: HashMap<FrontendKey, FrontendValue> =
    HashMap::with_max_entries(layout::FRONTENDS, 0);

/// Who may come by a frontend that is open to some sources alone.
#[map]
pub static SOURCES: LpmTrie<SourceKey, u8> = LpmTrie::with_max_entries(layout::SOURCES, 0);

/// Listening sockets of our listeners, by port and family.
#[map]
pub static LISTEN_SOCKETS: SockHash<SocketKey> =
    SockHash::with_max_entries(layout::LISTEN_SOCKETS, 0);

/// How often each reason was given at each hook, and each fault.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(layout::COUNTERS, 0);

/// Decisions, while tracing is on.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(layout::EVENT_BYTES, 0);

/// What a client's socket asked for, kept as long as the socket is.
#[btf_map]
pub static PEERS: SkStorage<Peer> = SkStorage::new();
