//! What came of it, as tables for people and as JSON.

use std::fmt;
use std::path::Path;
use std::process::Command;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::by_hand::ByHand;
use super::cpu::Cores;
use super::load::Connections;
use super::sample::Row;
use super::way::Way;
use crate::bench::{Machine, short};

/// By which tools it was measured, and on which cores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tools {
    /// The load generator's core, and Envoy's.
    pub pinned: (usize, usize),
    /// Envoy's version.
    pub envoy: String,
    /// The load generator.
    pub wrk: String,
    /// The twin's compiler.
    pub clang: String,
}

impl Tools {
    /// With this Envoy, and no other tool yet.
    #[must_use]
    pub fn of(cores: Cores, envoy: &Path) -> Self {
        Self {
            pinned: (cores.load, cores.envoy),
            envoy: version(envoy),
            ..Self::default()
        }
    }
}

/// `1.40.0` out of `envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`; all of it, of another form.
fn version(envoy: &Path) -> String {
    let output = Command::new(envoy).arg("--version").output();
    let text = output.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned());
    let text = text.unwrap_or_default();
    let built = text.rsplit_once("version:").map(|(_, built)| built);
    let number = built.and_then(|built| built.split('/').nth(1));
    number.map(str::to_owned).unwrap_or(text)
}

/// Everything that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// On what.
    pub machine: Machine,
    /// By what.
    pub tools: Tools,
    /// How many rounds.
    pub rounds: u16,
    /// Seconds of load.
    pub seconds: u16,
    /// Connections at a time.
    pub connections: u16,
    /// Whether kube-proxy's rules stood on the node.
    pub kube_proxy: bool,
    /// A row for each way, number of frontends, and kind of connection.
    pub rows: Vec<Row>,
    /// Frontends in the table while programs ran by hand.
    pub programs_frontends: u32,
    /// A row for each packet and way.
    pub programs: Vec<ByHand>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            machine,
            tools,
            rounds,
            seconds,
            connections,
            kube_proxy,
            ..
        } = self;
        let (load, envoy) = tools.pinned;
        writeln!(f, "{machine}")?;
        writeln!(
            f,
            "Envoy {} with one worker on core {envoy}, {} on core {load}",
            tools.envoy, tools.wrk
        )?;
        writeln!(
            f,
            "{rounds} rounds of {seconds} s, {connections} connections"
        )?;
        if *kube_proxy {
            writeln!(f, "kube-proxy's rules stand on the node")?;
        }
        if load == envoy {
            writeln!(
                f,
                "there is one core for both: they are in each other's way"
            )?;
        }
        for kind in Connections::ALL {
            writeln!(f, "\n{}; CPU in µs a request", kind.name())?;
            writeln!(f, "{}", self.table(kind))?;
        }
        writeln!(
            f,
            "\ntc's program by hand, {} frontends; ns a packet; the twin by {}",
            self.programs_frontends, tools.clang
        )?;
        write!(f, "{}", self.programs_table())
    }
}

impl Report {
    fn table(&self, kind: Connections) -> Table {
        let mut table = blank();
        table.set_header([
            "FRONTENDS",
            "WAY",
            "REQ/S",
            "÷ STRAIGHT",
            "P50 µs",
            "P99 µs",
            "ENVOY",
            "ENVOY + WRK",
            "÷ STRAIGHT",
            "ALL CPUS",
            "FAILED",
        ]);
        for row in self.rows.iter().filter(|row| row.connections == kind) {
            let ratio = |ratio: String| match row.way {
                Way::Straight => "1".to_owned(),
                _ => ratio,
            };
            table.add_row([
                row.frontends.to_string(),
                row.way.name().to_owned(),
                rate(row.requests_per_second.median),
                ratio(row.rate_ratio.to_string()),
                format!("{:.0}", row.p50_us.median),
                format!("{:.0}", row.p99_us.median),
                format!("{:.1}", row.envoy_us.median),
                format!("{:.1}", row.both_us.median),
                ratio(row.both_ratio.to_string()),
                format!("{:.1}", row.machine_us.median),
                row.failed.to_string(),
            ]);
        }
        align(&mut table, &[0, 2, 4, 5, 6, 7, 9, 10]);
        table
    }

    fn programs_table(&self) -> Table {
        let mut table = blank();
        table.set_header([
            "WAY", "PACKET", "EMPTY", "TWIN", "OURS", "÷ EMPTY", "÷ TWIN",
        ]);
        for row in &self.programs {
            table.add_row([
                row.way.name().to_owned(),
                row.packet.to_owned(),
                format!("{:.0}", row.empty_ns.median),
                format!("{:.0}", row.twin_ns.median),
                format!("{:.0}", row.ours_ns.median),
                row.over_empty.to_string(),
                row.over_twin.to_string(),
            ]);
        }
        align(&mut table, &[2, 3, 4]);
        table
    }
}

/// Rates differ by a few in a hundred: three digits.
fn rate(rate: f64) -> String {
    if (1e3..1e5).contains(&rate) {
        format!("{:.1} k", rate / 1e3)
    } else {
        short(rate)
    }
}

fn blank() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

fn align(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::redirect::sample::Sample;

    #[test]
    fn a_row_says_what_it_is_beside_going_straight() {
        let sample = |requests_per_second| Sample {
            requests_per_second,
            p50_us: 700.0,
            ..Sample::default()
        };
        let straight = [sample(40_000.0)];
        let row = |way, own: &[Sample]| Row::of((way, 10, Connections::New), own, &straight);
        let report = Report {
            machine: Machine::default(),
            tools: Tools::default(),
            rounds: 1,
            seconds: 1,
            connections: 32,
            kube_proxy: false,
            rows: vec![
                row(Way::Straight, &straight),
                row(Way::Tc, &[sample(38_000.0)]),
            ],
            programs_frontends: 10,
            programs: Vec::new(),
        };
        let text = report.to_string();
        let line = text.lines().find(|line| line.contains(" tc ")).unwrap();
        assert!(line.contains("38.0 k"), "{line}");
        assert!(line.contains("0.95 (0.95..0.95)"), "{line}");
    }
}
