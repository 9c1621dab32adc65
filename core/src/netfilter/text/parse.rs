//! Text to rules: what `iptables-save` gives, and what `iptables-restore` takes.
//!
//! Only the closed set of matches and targets is read. A line with anything else is an error that
//! names the option; all such lines are told at once, and the rules of the others come with them.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use nodeway_datapath::{Family, protocol};

use super::render::FLAGS;
use crate::netfilter::{
    BuiltIn, Chain, ChainName, ConnectionState, IpSet, Match, Policy, RecentList, RejectWith, Rule,
    Ruleset, SetEntry, Table, Target,
};

/// What cannot be read, by line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: What,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum What {
    /// It is well-formed, and outside the closed set.
    #[error("not simulated: {0}")]
    NotSimulated(String),
    /// It is no line of iptables.
    #[error("{0}")]
    Malformed(String),
}

type Parsed<T> = Result<T, What>;

/// Reads all tables of a family, and every line that could not be read.
#[must_use]
pub fn parse(text: &str, family: Family) -> (Ruleset, Vec<ParseError>) {
    let mut rules = Ruleset::new(family);
    let mut errors = Vec::new();
    let mut table = None;
    for (index, line) in text.lines().enumerate() {
        if let Err(what) = read(line.trim(), &mut table, &mut rules) {
            let line = index + 1;
            errors.push(ParseError { line, what });
        }
    }
    (rules, errors)
}

/// Reads what `ipset save` gives.
#[must_use]
pub fn parse_sets(text: &str, rules: &mut Ruleset) -> Vec<ParseError> {
    let mut errors = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Err(what) = read_set(line.trim(), rules) {
            let line = index + 1;
            errors.push(ParseError { line, what });
        }
    }
    errors
}

fn read(line: &str, table: &mut Option<Table>, rules: &mut Ruleset) -> Parsed<()> {
    if line.is_empty() || line.starts_with('#') || line == "COMMIT" {
        return Ok(());
    }
    if let Some(name) = line.strip_prefix('*') {
        let found = Table::named(name);
        *table = found;
        return match found {
            Some(found) => {
                rules.tables.entry(found).or_default();
                Ok(())
            }
            None => Err(What::NotSimulated(format!("table `{name}`"))),
        };
    }
    let Some(table) = *table else {
        let what = "it stands before any table; begin with `*nat` or another";
        return Err(What::Malformed(what.to_owned()));
    };
    if let Some(declared) = line.strip_prefix(':') {
        let mut words = declared.split_whitespace();
        let name = words.next().unwrap_or_default();
        return declare(rules, table, name, words.next().unwrap_or("-"));
    }
    let words = shell_words::split(line)
        .map_err(|_| What::Malformed("a quotation mark is never closed".to_owned()))?;
    let mut words = Words::from(words);
    // Counters, as `iptables-save -c` prints them.
    if words.0.front().is_some_and(|it| it.starts_with('[')) {
        words.0.pop_front();
    }
    let (command, chain) = (words.next("a command")?, words.next("a chain")?);
    match command.as_str() {
        "-N" | "--new-chain" => declare(rules, table, &chain, "-"),
        "-P" | "--policy" => declare(rules, table, &chain, &words.next("a policy")?),
        "-I" | "--insert" => {
            let place = words.0.front().and_then(|it| it.parse::<usize>().ok());
            if place.is_some() {
                words.0.pop_front();
            }
            let rule = rule(words, rules.family)?;
            let rules = &mut rules.chain_mut(table, &chain).rules;
            let place = place.unwrap_or(1).saturating_sub(1);
            rules.insert(place.min(rules.len()), rule);
            Ok(())
        }
        "-A" | "--append" => {
            let rule = rule(words, rules.family)?;
            rules.append(table, &chain, [rule]);
            Ok(())
        }
        other => Err(What::NotSimulated(format!("command `{other}`"))),
    }
}

fn declare(rules: &mut Ruleset, table: Table, name: &str, policy: &str) -> Parsed<()> {
    let policy = match policy {
        "-" => None,
        "ACCEPT" => Some(Policy::Accept),
        "DROP" => Some(Policy::Drop),
        other => return Err(What::Malformed(format!("`{other}` is no policy"))),
    };
    let chain: &mut Chain = rules.chain_mut(table, name);
    chain.policy = policy;
    Ok(())
}

/// The words of a line that are left.
struct Words(VecDeque<String>);

impl From<Vec<String>> for Words {
    fn from(words: Vec<String>) -> Self {
        Self(words.into())
    }
}

impl Words {
    fn next(&mut self, wanted: &str) -> Parsed<String> {
        self.0
            .pop_front()
            .ok_or_else(|| What::Malformed(format!("the line ends where {wanted} should stand")))
    }

    fn value<T: FromStr>(&mut self, option: &str) -> Parsed<T> {
        let text = self.next(&format!("the value of `{option}`"))?;
        text.parse()
            .map_err(|_| What::Malformed(format!("`{text}` is no value of `{option}`")))
    }

    fn take(&mut self, option: &str) -> bool {
        let there = self.0.front().is_some_and(|it| it == option);
        if there {
            self.0.pop_front();
        }
        there
    }
}

/// Where the options of a rule are collected.
struct Reader {
    words: Words,
    family: Family,
    matches: Vec<Match>,
    comment: Option<String>,
    target: Option<Target>,
    /// The module whose options come.
    module: String,
}

fn rule(words: Words, family: Family) -> Parsed<Rule> {
    let mut reader = Reader {
        words,
        family,
        matches: Vec::new(),
        comment: None,
        target: None,
        module: String::new(),
    };
    while !reader.words.0.is_empty() {
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
        network.ok_or_else(|| What::Malformed(format!("`{text}` is no value of `{option}`")))
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
            _ => Err(What::Malformed(format!(
                "`{text}` is no value of `{option}`"
            ))),
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
        all.ok_or_else(|| What::Malformed(format!("`{text}` is no value of `{option}`")))
    }

    /// `VALUE[/MASK]`, decimal or hexadecimal.
    fn masked(&mut self, option: &str) -> Parsed<(u32, u32)> {
        let text = self.words.next("a mark")?;
        let (value, mask) = text.split_once('/').unwrap_or((&text, "0xffffffff"));
        match (number(value), number(mask)) {
            (Some(value), Some(mask)) => Ok((value, mask)),
            _ => Err(What::Malformed(format!(
                "`{text}` is no value of `{option}`"
            ))),
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
        while let Some(option) = self.words.0.front().cloned() {
            match option.as_str() {
                "--set" => set = true,
                "--rcheck" => check = true,
                "--reap" => reap = true,
                "--rsource" => {}
                "--name" | "--mask" | "--seconds" => {
                    self.words.0.pop_front();
                    match option.as_str() {
                        "--name" => name = self.words.0.front().cloned().unwrap_or_default(),
                        "--seconds" => {
                            let text = self.words.0.front().cloned().unwrap_or_default();
                            let seconds = text.parse().map_err(|_| {
                                What::Malformed(format!("`{text}` is no value of `--seconds`"))
                            })?;
                            within = Duration::from_secs(seconds);
                        }
                        _ => {}
                    }
                }
                _ => break,
            }
            self.words.0.pop_front();
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

    fn jump(&mut self) -> Parsed<()> {
        let name = self.words.next("a target")?;
        let target = match name.as_str() {
            "ACCEPT" => Target::Accept,
            "DROP" => Target::Drop,
            "RETURN" => Target::Return,
            "REJECT" => self.reject()?,
            "MARK" => self.mark()?,
            "CONNMARK" => self.connmark()?,
            "CT" => match self.words.next("--notrack")?.as_str() {
                "--notrack" => Target::NoTrack,
                other => return Err(What::NotSimulated(format!("-j CT {other}"))),
            },
            "NOTRACK" => Target::NoTrack,
            "SET" => self.map()?,
            "TPROXY" => self.tproxy()?,
            "REDIRECT" => match self.words.next("--to-ports")?.as_str() {
                "--to-ports" | "--to-port" => Target::Redirect {
                    port: self.words.value("--to-ports")?,
                },
                other => return Err(What::NotSimulated(format!("-j REDIRECT {other}"))),
            },
            "DNAT" => self.dnat()?,
            "SNAT" => match self.words.next("--to-source")?.as_str() {
                "--to-source" => Target::Snat {
                    from: self.words.value("--to-source")?,
                },
                other => return Err(What::NotSimulated(format!("-j SNAT {other}"))),
            },
            "MASQUERADE" => Target::Masquerade {
                random_fully: self.words.take("--random-fully"),
            },
            "LOG" | "NFLOG" | "QUEUE" | "NFQUEUE" | "TRACE" | "DSCP" | "TCPMSS" | "NETMAP" => {
                return Err(What::NotSimulated(format!("-j {name}")));
            }
            _ => Target::Jump(name.into()),
        };
        self.target = Some(target);
        Ok(())
    }

    fn reject(&mut self) -> Parsed<Target> {
        if !self.words.take("--reject-with") {
            return Ok(Target::Reject(RejectWith::PortUnreachable));
        }
        let with = self.words.next("how to reject")?;
        match with.as_str() {
            "icmp-port-unreachable" | "icmp6-port-unreachable" => {
                Ok(Target::Reject(RejectWith::PortUnreachable))
            }
            "tcp-reset" => Ok(Target::Reject(RejectWith::TcpReset)),
            other => Err(What::NotSimulated(format!("--reject-with {other}"))),
        }
    }

    /// `--set-mark V/M` clears the bits of both and sets V; `--set-xmark` is as the kernel keeps it.
    fn mark(&mut self) -> Parsed<Target> {
        let option = self.words.next("--set-xmark")?;
        let (value, mask) = match option.as_str() {
            "--set-xmark" => self.masked(&option)?,
            "--set-mark" => {
                let (value, mask) = self.masked(&option)?;
                (value, mask | value)
            }
            "--or-mark" => {
                let (value, _) = self.masked(&option)?;
                (value, value)
            }
            other => return Err(What::NotSimulated(format!("-j MARK {other}"))),
        };
        Ok(Target::Mark { value, mask })
    }

    fn connmark(&mut self) -> Parsed<Target> {
        let option = self.words.next("--save-mark")?;
        let target = match option.as_str() {
            "--save-mark" => Target::SaveMark,
            "--restore-mark" => Target::RestoreMark,
            other => return Err(What::NotSimulated(format!("-j CONNMARK {other}"))),
        };
        for mask in ["--nfmask", "--ctmask"] {
            if self.words.take(mask) {
                let (value, _) = self.masked(mask)?;
                if value != u32::MAX {
                    return Err(What::NotSimulated(format!("{mask} {value:#x}")));
                }
            }
        }
        Ok(target)
    }

    fn map(&mut self) -> Parsed<Target> {
        let option = self.words.next("--map-set")?;
        if option != "--map-set" {
            return Err(What::NotSimulated(format!("-j SET {option}")));
        }
        let set = self.words.next("a set")?.into();
        let which = self.words.next("what is looked up")?;
        let what = self.words.next("--map-mark")?;
        if (which.as_str(), what.as_str()) != ("dst,dst", "--map-mark") {
            return Err(What::NotSimulated(format!("--map-set {which} {what}")));
        }
        Ok(Target::MapMark(set))
    }

    fn tproxy(&mut self) -> Parsed<Target> {
        let any = match self.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let mut to = SocketAddr::new(any, 0);
        let (mut value, mut mask) = (0, 0);
        while let Some(option) = self.words.0.front().cloned() {
            match option.as_str() {
                "--on-port" | "--on-ip" | "--tproxy-mark" => self.words.0.pop_front(),
                _ => break,
            };
            match option.as_str() {
                "--on-port" => to.set_port(self.words.value(&option)?),
                "--on-ip" => to.set_ip(self.words.value(&option)?),
                _ => (value, mask) = self.masked(&option)?,
            }
        }
        Ok(Target::Tproxy { to, value, mask })
    }

    fn dnat(&mut self) -> Parsed<Target> {
        let option = self.words.next("--to-destination")?;
        if option != "--to-destination" {
            return Err(What::NotSimulated(format!("-j DNAT {option}")));
        }
        let text = self.words.next("an address")?;
        let to = text.parse().ok().or_else(|| {
            let address: IpAddr = text.parse().ok()?;
            Some(SocketAddr::new(address, 0))
        });
        match to {
            Some(to) => Ok(Target::Dnat { to }),
            None => Err(What::NotSimulated(format!("--to-destination {text}"))),
        }
    }
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn read_set(line: &str, rules: &mut Ruleset) -> Parsed<()> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let mut words = Words::from(words);
    let (command, name) = (words.next("a command")?, words.next("a set")?);
    match command.as_str() {
        "create" => {
            let kind = words.next("a type")?;
            if kind != "hash:ip,port" {
                return Err(What::NotSimulated(format!("a set of type {kind}")));
            }
            let marks = words.0.iter().any(|it| it == "skbinfo");
            rules.sets.insert(name.into(), IpSet::new(marks));
            Ok(())
        }
        "add" => {
            let text = words.next("an entry")?;
            let at = entry(&text)?;
            let mark = match words.take("skbmark") {
                false => None,
                true => {
                    let text = words.next("a mark")?;
                    let (value, _) = text.split_once('/').unwrap_or((&text, ""));
                    Some(number(value).ok_or_else(|| {
                        What::Malformed(format!("`{text}` is no value of `skbmark`"))
                    })?)
                }
            };
            let Some(set) = rules.sets.get_mut(name.as_str()) else {
                return Err(What::Malformed(format!(
                    "the set `{name}` is not created before"
                )));
            };
            set.insert(at, SetEntry { mark });
            Ok(())
        }
        other => Err(What::NotSimulated(format!("command `{other}`"))),
    }
}

/// `ADDRESS,tcp:PORT`
fn entry(text: &str) -> Parsed<SocketAddr> {
    let malformed = || What::Malformed(format!("`{text}` is no address and port"));
    let (address, port) = text.split_once(',').ok_or_else(malformed)?;
    let port = match port.split_once(':') {
        Some(("tcp", port)) => port,
        Some((other, _)) => return Err(What::NotSimulated(format!("an entry of {other}"))),
        None => port,
    };
    match (address.parse(), port.parse()) {
        (Ok(address), Ok(port)) => Ok(SocketAddr::new(address, port)),
        _ => Err(malformed()),
    }
}

impl Table {
    /// The table of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Raw, Self::Mangle, Self::Nat, Self::Filter]
            .into_iter()
            .find(|table| table.name() == name)
    }
}

impl ConnectionState {
    /// The state of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "NEW" => Self::New,
            "ESTABLISHED" => Self::Established,
            "RELATED" => Self::Related,
            "INVALID" => Self::Invalid,
            "UNTRACKED" => Self::Untracked,
            "SNAT" => Self::Snat,
            "DNAT" => Self::Dnat,
            _ => return None,
        })
    }
}

impl Ruleset {
    /// Without tables that have no rule, built-in chains that say nothing, and the order of states:
    /// what two rulesets must share to be the same.
    #[must_use]
    pub fn normal(mut self) -> Self {
        for chains in self.tables.values_mut() {
            chains.retain(|name, chain| {
                let says = chain.policy == Some(Policy::Drop) || !chain.rules.is_empty();
                says || BuiltIn::named(name).is_none()
            });
            for chain in chains.values_mut() {
                if chain.policy == Some(Policy::Accept) {
                    chain.policy = None;
                }
                for one in chain.rules.iter_mut().flat_map(|rule| &mut rule.matches) {
                    if let Match::ConnectionState { states, .. } = one {
                        states.sort_unstable();
                        states.dedup();
                    }
                }
            }
        }
        self.tables.retain(|_, chains| !chains.is_empty());
        self
    }
}
