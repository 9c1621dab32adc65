//! Settings of the kernel under which marked packets do not arrive.
//!
//! What was tried with rules and a mark: `rp_filter` 0, 1 and 2, `ip_early_demux`, `route_localnet`,
//! `ip_nonlocal_bind`, `ip_forward` and `fwmark_reflect` make no difference. Two do.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::netns::{NetNs, NetNsError};

/// A setting that is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// As `sysctl` spells it.
    pub name: String,
    /// What it is set to.
    pub value: String,
    /// What that does.
    pub why: &'static str,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, why } = self;
        write!(f, "{name} is {value}: {why}; sysctl -w {name}=0")
    }
}

const SRC_VALID_MARK: &str = "the check of a packet's source then finds the table of marked packets, and drops each that came by a device";
const FWMARK_ACCEPT: &str =
    "an accepted connection then keeps the mark, and its answers are delivered to this node itself";

/// Those that are in the way of marked packets.
pub(super) fn against_marks(netns: &NetNs) -> Result<Vec<Setting>, NetNsError> {
    netns.run(|| {
        let devices = Path::new("/proc/sys/net/ipv4/conf");
        let names = fs::read_dir(devices).into_iter().flatten();
        let names = names.filter_map(|it| it.ok()?.file_name().into_string().ok());
        let mut paths: Vec<(String, &'static str)> = names
            // What a device is born with is no device's yet.
            .filter(|name| name != "default")
            .map(|name| (format!("ipv4/conf/{name}/src_valid_mark"), SRC_VALID_MARK))
            .collect();
        paths.sort();
        paths.push(("ipv4/tcp_fwmark_accept".to_owned(), FWMARK_ACCEPT));
        paths
            .into_iter()
            .filter_map(|(path, why)| in_the_way(&path, why))
            .collect()
    })
}

fn in_the_way(path: &str, why: &'static str) -> Option<Setting> {
    let value = fs::read_to_string(format!("/proc/sys/net/{path}")).ok()?;
    let value = value.trim().to_owned();
    // In `sysctl`'s spelling a dot in a device's name is a slash.
    let name = path
        .replace('.', "\u{0}")
        .replace('/', ".")
        .replace('\u{0}', "/");
    (value != "0").then(|| Setting {
        name: format!("net.{name}"),
        value,
        why,
    })
}
