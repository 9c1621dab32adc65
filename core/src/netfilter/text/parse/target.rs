//! What a rule does with a packet: `-j` and the options of its target.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nodeway_datapath::Family;

use super::rule::Reader;
use super::{Parsed, What};
use crate::netfilter::{RejectWith, Target};

impl Reader {
    pub(super) fn jump(&mut self) -> Parsed<()> {
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
        while let Some(option) = self
            .words
            .take_any(&["--on-port", "--on-ip", "--tproxy-mark"])
        {
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
