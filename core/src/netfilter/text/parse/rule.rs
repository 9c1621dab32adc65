//! A rule's options become its matches; where it leads to is [`target`](super::target)'s.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use nodeway_datapath::{Family, protocol};

use super::words::{Words, no_value, number};
use super::{Parsed, What};
use crate::netfilter::text::render::FLAGS;
use crate::netfilter::{ChainName, ConnectionState, Match, RecentList, Rule, Target};

/// The options of `-m recent` that are read; `--mask` and `--rsource` say what is always so.
const RECENT: [&str; 7] = [
    "--set",
    "--rcheck",
    "--reap",
    "--rsource",
    "--name",
    "--mask",
    "--seconds",
];

/// Where the options of a rule are collected.
pub(super) struct Reader {
    pub(super) words: Words,
    pub(super) family: Family,
    matches: Vec<Match>,
    comment: Option<String>,
    pub(super) target: Option<Target>,
    /// The module whose options come.
    module: String,
}

pub(super) fn rule(words: Words, family: Family) -> Parsed<Rule> {
    let mut reader = Reader {
        words,
        family,
        matches: Vec::new(),
        comment: None,
        target: None,
        module: String::new(),
    };
    while !reader.words.is_empty() {
        let not = reader.words.take("!");
        let option = reader.words.next("an option")?;
        reader.option(not, &option)?;
    }
    let mut rule = Rule {
        matches: reader.matches,
        comment: reader.comment.map(Into::into),
        target: reader.target,
    };
    rule.sort();
    Ok(rule)
}

impl Reader {
    fn option(&mut self, not: bool, option: &str) -> Parsed<()> {
        let one = match option {
            "-s" | "--source" | "--src" => Match::Source {
                not,
                network: self.network(option)?,
            },
            "-d" | "--destination" | "--dst" => Match::Destination {
                not,
                network: self.network(option)?,
            },
            "-i" | "--in-interface" => Match::InInterface {
                not,
                name: self.words.next("a device")?.into(),
            },
            "-o" | "--out-interface" => Match::OutInterface {
                not,
                name: self.words.next("a device")?.into(),
            },
            "-p" | "--protocol" => Match::Protocol {
                not,
                protocol: self.protocol()?,
            },
            "-m" | "--match" => return self.load(),
            "-j" | "--jump" => return self.jump(),
            "-g" | "--goto" => {
                let to: ChainName = self.words.next("a chain")?.into();
                self.target = Some(Target::Goto(to));
                return Ok(());
            }
            "--sport" | "--source-port" => Match::SourcePort {
                not,
                ports: self.ports(option)?,
            },
            "--dport" | "--destination-port" => Match::DestinationPort {
                not,
                ports: self.ports(option)?,
            },
            "--tcp-flags" => Match::TcpFlags {
                not,
                mask: self.flags(option)?,
                set: self.flags(option)?,
            },
            "--syn" => Match::TcpFlags {
                not,
                mask: 0x17,
                set: 0x02,
            },
            "--comment" => {
                // iptables escapes an apostrophe even within quotation marks, where a shell does not.
                self.comment = Some(self.words.next("a comment")?.replace("\\'", "'"));
                return Ok(());
            }
            _ => return self.of_module(not, option),
        };
        self.matches.push(one);
        Ok(())
    }

    fn load(&mut self) -> Parsed<()> {
        self.module = self.words.next("a module")?;
        match self.module.as_str() {
            "tcp" | "comment" | "mark" | "connmark" | "conntrack" | "state" | "owner" | "set"
            | "addrtype" | "statistic" => Ok(()),
            "socket" => {
                let transparent = self.words.take("--transparent");
                self.matches.push(Match::Socket { transparent });
                Ok(())
            }
            "recent" => self.recent(),
            other => Err(What::NotSimulated(format!("-m {other}"))),
        }
    }

    /// An option that means something else in another module.
    fn of_module(&mut self, not: bool, option: &str) -> Parsed<()> {
        let one = match (self.module.as_str(), option) {
            ("mark", "--mark") => {
                let (value, mask) = self.masked(option)?;
                Match::Mark { not, value, mask }
            }
            ("connmark", "--mark") => {
                let (value, mask) = self.masked(option)?;
                Match::ConnMark { not, value, mask }
            }
            ("conntrack", "--ctstate") | ("state", "--state") => Match::ConnectionState {
                not,
                states: self.states()?,
            },
            ("owner", "--uid-owner") => Match::UidOwner {
                not,
                uid: self.words.value(option)?,
            },
            ("owner", "--gid-owner") => Match::GidOwner {
                not,
                gid: self.words.value(option)?,
            },
            ("set", "--match-set") => {
                let set = self.words.next("a set")?.into();
                let source = match self.words.next("what is looked up")?.as_str() {
                    "dst,dst" => false,
                    "src,src" => true,
                    other => return Err(What::NotSimulated(format!("--match-set {other}"))),
                };
                Match::Set { not, set, source }
            }
            ("addrtype", "--src-type" | "--dst-type") => {
                let kind = self.words.next("a type")?;
                if kind != "LOCAL" {
                    return Err(What::NotSimulated(format!("{option} {kind}")));
                }
                if option == "--src-type" {
                    Match::SourceLocal { not }
                } else {
                    Match::DestinationLocal { not }
                }
            }
            ("statistic", "--mode") => {
                let mode = self.words.next("a mode")?;
                if mode != "random" {
                    return Err(What::NotSimulated(format!("--mode {mode}")));
                }
                return Ok(());
            }
            ("statistic", "--probability") => Match::Random {
                probability: self.probability(option)?,
            },
            _ => return Err(What::NotSimulated(option.to_owned())),
        };
        self.matches.push(one);
        Ok(())
    }

    fn network(&mut self, option: &str) -> Parsed<ipnet::IpNet> {
        let text = self.words.next("an address")?;
        let network = match text.contains('/') {
            true => text.parse().ok(),
            false => text.parse::<IpAddr>().ok().map(ipnet::IpNet::from),
        };
        let network = network.map(|it| it.trunc());
        network.ok_or_else(|| no_value(&text, option))
    }

    fn protocol(&mut self) -> Parsed<u8> {
        let name = self.words.next("a protocol")?;
        match name.as_str() {
            "tcp" => Ok(protocol::TCP),
            "udp" => Ok(protocol::UDP),
            "icmp" => Ok(protocol::ICMP),
            "ipv6-icmp" | "icmpv6" => Ok(protocol::ICMPV6),
            other => other
                .parse()
                .map_err(|_| What::NotSimulated(format!("-p {other}"))),
        }
    }

    fn ports(&mut self, option: &str) -> Parsed<RangeInclusive<u16>> {
        let text = self.words.next("a port")?;
        let (from, to) = text.split_once(':').unwrap_or((&text, &text));
        match (from.parse(), to.parse()) {
            (Ok(from), Ok(to)) => Ok(from..=to),
            _ => Err(no_value(&text, option)),
        }
    }

    /// `FIN,SYN`, `ALL` or `NONE`.
    fn flags(&mut self, option: &str) -> Parsed<u8> {
        let text = self.words.next("TCP flags")?;
        let flag = |name: &str| match name {
            "ALL" => Some(0x3f),
            "NONE" => Some(0),
            name => FLAGS
                .iter()
                .find(|(it, _)| *it == name)
                .map(|(_, bit)| *bit),
        };
        let mut flags = text.split(',').map(flag);
        let all: Option<u8> = flags.try_fold(0, |all, one| Some(all | one?));
        all.ok_or_else(|| no_value(&text, option))
    }

    /// `VALUE[/MASK]`, decimal or hexadecimal.
    pub(super) fn masked(&mut self, option: &str) -> Parsed<(u32, u32)> {
        let text = self.words.next("a mark")?;
        let (value, mask) = text.split_once('/').unwrap_or((&text, "0xffffffff"));
        match (number(value), number(mask)) {
            (Some(value), Some(mask)) => Ok((value, mask)),
            _ => Err(no_value(&text, option)),
        }
    }

    fn states(&mut self) -> Parsed<Vec<ConnectionState>> {
        let text = self.words.next("states")?;
        text.split(',')
            .map(|name| {
                ConnectionState::named(name)
                    .ok_or_else(|| What::Malformed(format!("`{name}` is no state")))
            })
            .collect()
    }

    fn probability(&mut self, option: &str) -> Parsed<u32> {
        const WHOLE: f64 = 2_147_483_648.0;
        let share: f64 = self.words.value(option)?;
        if !(0.0..=1.0).contains(&share) {
            return Err(What::Malformed(format!("{share} is no probability")));
        }
        // As the kernel's own tool rounds; a float of that range fits.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "0 to 2^31 by the check above"
        )]
        let parts = (share * WHOLE).round() as i64;
        Ok(u32::try_from(parts).unwrap_or(0))
    }

    fn recent(&mut self) -> Parsed<()> {
        let (mut set, mut check, mut reap) = (false, false, false);
        let (mut name, mut within) = (String::from("DEFAULT"), Duration::ZERO);
        while let Some(option) = self.words.take_any(&RECENT) {
            match option.as_str() {
                "--set" => set = true,
                "--rcheck" => check = true,
                "--reap" => reap = true,
                "--rsource" => {}
                "--name" => name = self.words.next("the value of `--name`")?,
                "--seconds" => within = Duration::from_secs(self.words.value(&option)?),
                _ => drop(self.words.next("a mask")?),
            }
        }
        let name = name.into();
        let list = match (set, check) {
            (true, false) => RecentList::Set { name },
            (false, true) => RecentList::Check { name, within, reap },
            _ => {
                return Err(What::NotSimulated(
                    "-m recent without --set or --rcheck".into(),
                ));
            }
        };
        self.matches.push(Match::Recent(list));
        Ok(())
    }
}
