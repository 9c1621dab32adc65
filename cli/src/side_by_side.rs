//! `nodeway sim --redirect all`: every request by each way, one below the other. Does it make a
//! difference, and what does it cost?

use comfy_table::{CellAlignment, Table, presets};
use nodeway_sim::{Report, Row};

use crate::paint::{FAINT, STRONG, paint};
use crate::screen::say;
use crate::sim::{answered_by, asked, at, expectations, or_none, short, status};

const HEADER: [&str; 9] = [
    "",
    "WAY",
    "STATUS",
    "ANSWERED BY",
    "ENVOY",
    "PROXIES",
    "CONNECTIONS",
    "HOPS",
    "TIME",
];

pub(crate) fn screen(reports: &[Report]) {
    let Some(first) = reports.first() else { return };
    for hop in reports.iter().flat_map(|report| &report.hops) {
        say!("{hop}");
    }
    say!(
        "{}  {}",
        paint(STRONG, &first.title),
        paint(FAINT, format!("seed {}", first.seed))
    );
    // One table, so that columns are the same for every request; its rows are of one line each.
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(HEADER);
    for column in table.column_iter_mut().skip(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for index in 0..first.requests.len() {
        let rows = reports.iter().filter_map(|it| it.requests.get(index));
        for row in rows {
            table.add_row(cells(row));
        }
    }
    let text = table.to_string();
    let mut lines = text.lines();
    say!("{}", lines.next().unwrap_or_default().trim_end());
    for row in &first.requests {
        let at = at(row).map_or_else(String::new, |at| format!("  at {at}"));
        let request = format!("{}  {}{at}", row.client, asked(row));
        say!("{}", paint(STRONG, request));
        for line in lines.by_ref().take(reports.len()) {
            say!("{}", line.trim_end());
        }
    }
    reasons(reports);
    expectations(reports);
}

fn cells(row: &Row) -> [String; 9] {
    let way = row.redirect.to_string();
    if !row.applicable {
        let texts = ["-", &way, "", "not applicable", "", "", "", "", ""];
        return texts.map(str::to_owned);
    }
    let envoy = match (row.redirected, &row.proxy_pod, &row.proxy_node) {
        (true, Some(pod), _) => format!("in {}", short(pod)),
        (true, None, Some(node)) => format!("on {node}"),
        (true, None, None) => "none".to_owned(),
        (false, ..) if row.proxies > 0 => "passed through".to_owned(),
        (false, ..) => "not redirected".to_owned(),
    };
    [
        if row.holds() { "✓" } else { "✗" }.to_owned(),
        way,
        status(row),
        answered_by(row),
        envoy,
        row.proxies.to_string(),
        row.connections.to_string(),
        row.hops.to_string(),
        format!("{:.3} ms", row.time_ms),
    ]
}

/// Why a way is none for a client, once a reason.
fn reasons(reports: &[Report]) {
    let mut told: Vec<&str> = Vec::new();
    let rows = reports.iter().flat_map(|report| &report.requests);
    for row in rows.filter(|row| !row.applicable) {
        let reason = or_none(row.reason.as_deref());
        if !told.contains(&reason) {
            say!("{} is not applicable: {reason}", row.redirect);
            told.push(reason);
        }
    }
}
