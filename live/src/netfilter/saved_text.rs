//! What a namespace's packet filter has, as its own tools say it: for people, whoever wrote it.

use nodeway_core::datapath::Family;

use super::NetfilterError;
use super::tool;
use crate::netns::NetNs;

/// What one tool says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedText {
    /// The tool, as a file's name (`iptables-save.txt`).
    pub name: &'static str,
    /// What it says.
    pub text: String,
}

/// All that a namespace's packet filter has.
///
/// # Errors
/// When a tool fails. One of nftables that is not there says nothing.
pub fn saved_texts(netns: &NetNs) -> Result<Vec<SavedText>, NetfilterError> {
    let mut all = vec![
        SavedText {
            name: "iptables-save.txt",
            text: tool::iptables_save(netns, Family::V4)?,
        },
        SavedText {
            name: "ip6tables-save.txt",
            text: tool::iptables_save(netns, Family::V6)?,
        },
        SavedText {
            name: "ipset-save.txt",
            text: tool::ipset_save(netns)?,
        },
    ];
    all.extend(tool::nft_ruleset(netns)?.map(|text| SavedText {
        name: "nft.json",
        text,
    }));
    Ok(all)
}
