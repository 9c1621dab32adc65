//! The packet filter's rules for real: what [`nodeway_core::netfilter`] decided stands in a namespace.
//!
//! Rules go in by `iptables-restore --noflush`, into chains of our own that stand first at each
//! hook; frontends are entries of ipsets. A table of rules is changed as a whole or not at all, and
//! only chains that differ are written: one frontend more is one entry of a set. Everything that
//! is ours is known by its name, so what a killed process left is taken up, and all of it can be
//! taken away. What others have stays as it is; where it would break ours, or ours theirs, nothing
//! is installed, and the error names it.

mod change;
mod clash;
mod found;
mod obstacle;
mod own;
mod saved;
mod saved_text;
mod settings;
mod tool;
mod wanted;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use nodeway_core::datapath::Family;
use nodeway_core::netfilter::kube_proxy::{self, ServicePort};
use nodeway_core::netfilter::{Routing, RulesetError};

use crate::netns::{NetNs, NetNsError};
use crate::routes::{self, RoutesError};

pub use clash::Clash;
pub use obstacle::Obstacle;
pub use saved_text::{SavedText, saved_texts};
pub use settings::Setting;
pub use tool::ToolError;
pub use wanted::Wanted;

use own::Own;

/// Whose rules they are, which shows in the names of chains and sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Our own: first at each hook.
    Nodeway,
    /// Those that kube-proxy would have, which a lab installs in its place: last at each hook.
    KubeProxy,
}

impl Owner {
    const ALL: [Self; 2] = [Self::Nodeway, Self::KubeProxy];

    const fn chain_prefix(self) -> &'static str {
        match self {
            Self::Nodeway => "NODEWAY_",
            Self::KubeProxy => "KUBE-",
        }
    }

    const fn set_prefix(self) -> &'static str {
        match self {
            Self::Nodeway => "nodeway-",
            Self::KubeProxy => "KUBE-",
        }
    }

    fn owns_chain(self, name: &str) -> bool {
        name.starts_with(self.chain_prefix()) && name != own::MADE
    }
}

/// What can go wrong with rules. Nothing is half-applied: what was there before is there again.
#[derive(Debug, thiserror::Error)]
pub enum NetfilterError {
    /// The rules themselves make no sense.
    #[error("cannot install these rules: {0}")]
    Rules(RulesetError),
    /// Somebody else has what we would take.
    #[error(
        "somebody else has what these rules need in namespace `{namespace}`:\n{}",
        lines(clashes)
    )]
    Clash {
        /// The namespace.
        namespace: String,
        /// All of them.
        clashes: Vec<Clash>,
    },
    /// The kernel is set so that marked packets do not arrive.
    #[error(
        "the kernel's settings in namespace `{namespace}` would stop redirected packets:\n{}",
        lines(settings)
    )]
    Settings {
        /// The namespace.
        namespace: String,
        /// All of them.
        settings: Vec<Setting>,
    },
    /// A tool failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// Rules and routes.
    #[error(transparent)]
    Routes(#[from] RoutesError),
    /// The namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

fn lines<T: std::fmt::Display>(items: &[T]) -> String {
    let lines: Vec<String> = items.iter().map(|item| format!("  {item}")).collect();
    lines.join("\n")
}

/// The rules of one owner in one namespace. It remembers what it has installed, so that a change
/// costs what changed; [`Netfilter::forget`] makes it look again.
#[derive(Debug)]
pub struct Netfilter {
    owner: Owner,
    known: Option<Known>,
}

/// What stands in the kernel.
#[derive(Clone, Debug)]
struct Known {
    v4: Own,
    v6: Own,
    routing: Routing,
    addresses: BTreeSet<IpAddr>,
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Netfilter {
    /// The rules of an owner. What is there of them already is taken up by the first change.
    #[must_use]
    pub const fn new(owner: Owner) -> Self {
        Self { owner, known: None }
    }

    /// Makes a namespace have these rules of the owner, and no others of the owner.
    ///
    /// # Errors
    /// When somebody else has what they need, a setting would stop them, or a tool fails. What was
    /// there before is there then.
    pub fn apply(&mut self, netns: &NetNs, wanted: &Wanted) -> Result<(), NetfilterError> {
        let valid = wanted.v4.validate().and_then(|()| wanted.v6.validate());
        valid.map_err(NetfilterError::Rules)?;
        let known = match self.known.take() {
            Some(known) if known.routing.rules == wanted.routing.rules => known,
            _ => {
                self.check(netns, wanted)?;
                self.read(netns)?
            }
        };
        let to = Known {
            v4: Own::of(&wanted.v4, self.owner),
            v6: Own::of(&wanted.v6, self.owner),
            routing: wanted.routing.clone(),
            addresses: wanted.addresses.clone(),
        };
        match self.change(netns, &known, &to) {
            Ok(()) => {
                self.known = Some(to);
                Ok(())
            }
            Err(error) => self.fall_back(netns, &known, &to, error),
        }
    }

    /// Takes all rules, sets and routes of the owner away, and the tables that came with them.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn remove(&mut self, netns: &NetNs) -> Result<(), NetfilterError> {
        self.known = None;
        let from = self.read(netns)?;
        let to = Known {
            v4: Own::default(),
            v6: Own::default(),
            routing: Routing::default(),
            addresses: BTreeSet::new(),
        };
        self.change(netns, &from, &to)?;
        for family in families(netns)? {
            own::take_tables_away(netns, family)?;
        }
        Ok(())
    }

    /// Looks at the kernel again before the next change: somebody may have changed the rules.
    pub fn forget(&mut self) {
        self.known = None;
    }

    /// What of others would stop packets of these rules on their way, as far as it can be seen: it
    /// is for a person to change.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn obstacles(
        &self,
        netns: &NetNs,
        wanted: &Wanted,
    ) -> Result<Vec<Obstacle>, NetfilterError> {
        let mut obstacles = Vec::new();
        for family in families(netns)? {
            let saved = saved::read(netns, family)?;
            obstacles.extend(obstacle::in_tables(family, &saved, wanted));
        }
        if let Some(ruleset) = tool::nft_ruleset(netns)? {
            obstacles.extend(obstacle::in_nftables(&ruleset, wanted));
        }
        Ok(obstacles)
    }

    fn check(&self, netns: &NetNs, wanted: &Wanted) -> Result<(), NetfilterError> {
        if wanted.routing.rules.is_empty() {
            return Ok(());
        }
        let settings = settings::against_marks(netns)?;
        if !settings.is_empty() {
            let namespace = netns.name().to_owned();
            return Err(NetfilterError::Settings {
                namespace,
                settings,
            });
        }
        let found = routes::read(netns)?;
        let mut clashes = clash::with_routes(&wanted.routing, &found);
        for family in families(netns)? {
            let saved = saved::read(netns, family)?;
            clashes.extend(clash::with_rules(&wanted.routing, family, &saved));
        }
        if clashes.is_empty() {
            return Ok(());
        }
        let namespace = netns.name().to_owned();
        Err(NetfilterError::Clash { namespace, clashes })
    }

    fn read(&self, netns: &NetNs) -> Result<Known, NetfilterError> {
        let sets = tool::ipset_save(netns)?;
        let mut known = Known {
            v4: Own::default(),
            v6: Own::default(),
            // Routes are read when they are changed.
            routing: Routing::default(),
            addresses: BTreeSet::new(),
        };
        for family in families(netns)? {
            let saved = saved::read(netns, family)?;
            let own = Own::found(&saved, &sets, family, self.owner);
            match family {
                Family::V4 => known.v4 = own,
                Family::V6 => known.v6 = own,
            }
        }
        Ok(known)
    }

    fn change(&self, netns: &NetNs, from: &Known, to: &Known) -> Result<(), NetfilterError> {
        let routed = |it: &Known| (it.routing.clone(), it.addresses.clone());
        let changes = routed(from) != routed(to);
        // Marked packets are delivered before the first is marked, and after the last.
        if changes && self.owner == Owner::Nodeway {
            let addresses = from.addresses.union(&to.addresses).copied().collect();
            routes::apply(netns, &both(&from.routing, &to.routing), &addresses)?;
        }
        for family in families(netns)? {
            let (from, to) = match family {
                Family::V4 => (&from.v4, &to.v4),
                Family::V6 => (&from.v6, &to.v6),
            };
            let script = change::script(from, to, family, self.owner);
            tool::ipset_restore(netns, &script.sets_before)?;
            tool::iptables_restore(netns, family, &script.rules)?;
            tool::ipset_restore(netns, &script.sets_after)?;
        }
        // Without rules there is nothing to route, even if a killed process left some.
        let nothing = routed(to) == Default::default();
        if (changes || nothing) && self.owner == Owner::Nodeway {
            routes::apply(netns, &to.routing, &to.addresses)?;
        }
        Ok(())
    }

    /// After a change that failed: once more from what is really there, since somebody may have
    /// changed our rules; else back to what was there.
    fn fall_back(
        &mut self,
        netns: &NetNs,
        before: &Known,
        to: &Known,
        error: NetfilterError,
    ) -> Result<(), NetfilterError> {
        let really = self.read(netns)?;
        if self.change(netns, &really, to).is_ok() {
            self.known = Some(to.clone());
            return Ok(());
        }
        let really = self.read(netns)?;
        // The first error is the one to tell.
        let _ = self.change(netns, &really, before);
        if before.v4.is_empty() && before.v6.is_empty() {
            let _ = self.remove(netns);
        }
        Err(error)
    }
}

/// Puts kube-proxy's own table of nftables, as it would be for those Services on a node with those
/// addresses, in the place of what is there. It goes away with the namespace.
///
/// # Errors
/// When `nft` is missing or refuses.
pub fn put_kube_proxys_table(
    netns: &NetNs,
    services: &[ServicePort],
    addresses: &[IpAddr],
) -> Result<(), NetfilterError> {
    for family in families(netns)? {
        let script = kube_proxy::nftables::script(family, services, addresses);
        tool::nft_restore(netns, &script)?;
    }
    Ok(())
}

/// All rules and routes of two routings; where both have a local route, the second's.
fn both(one: &Routing, other: &Routing) -> Routing {
    let mut both = other.clone();
    let more = one.rules.iter().filter(|it| !other.rules.contains(it));
    both.rules.extend(more);
    let has = |address| other.local.iter().any(|it| it.address == address);
    let more = one.local.iter().filter(|it| !has(it.address));
    both.local.extend(more);
    both
}

/// The families that a namespace has.
fn families(netns: &NetNs) -> Result<impl Iterator<Item = Family>, NetNsError> {
    let has_v6 = netns.run(|| Path::new("/proc/sys/net/ipv6").exists())?;
    Ok(FAMILIES
        .into_iter()
        .filter(move |it| has_v6 || *it == Family::V4))
}
