//! The figures as tables: one for each link and workload.

use crate::bench::contender::Contender;
use crate::bench::figures::{Figures, Missing, Row};
use crate::bench::rig::Link;
use crate::bench::workload::{Better, FIXED_RATE, Workload};
use crate::report::rate;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use std::fmt;

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        for part in rows.chunk_by(|a, b| (a.link, a.workload) == (b.link, b.workload)) {
            if let Some(first) = part.first() {
                writeln!(f, "{}", title(first.link, first.workload))?;
                writeln!(f, "{}\n", table(part))?;
            }
        }
        for link in [Link::Veth, Link::Wire] {
            for (contender, why) in self.missing(link) {
                match why {
                    Missing::Absent(install) => {
                        writeln!(f, "absent: {contender} ({install}, or --peer {contender}=PATH)")?
                    }
                    Missing::Failed(error) => writeln!(f, "failed: {contender}: {error}")?,
                }
            }
        }
        Ok(())
    }
}

/// What a workload over a link is called.
pub(super) fn title(link: Link, workload: Workload) -> String {
    let link = match link {
        Link::Veth => "veth as it is",
        Link::Wire => "wire-like",
    };
    format!("{workload}, {}, {link}", workload.unit())
}

fn table(rows: &[Row]) -> Table {
    let of = |contender| rows.iter().find(|row| row.contender == contender);
    let (plain, ours) = (of(Contender::Plain), of(Contender::VgwAes));
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "contender",
        "median",
        "min",
        "max",
        "to plain",
        "vgw-aes256gcm is",
        "CPU-s/GB",
        "",
    ]);
    for row in rows {
        let to_plain = plain
            .map(|plain| row.median / plain.median)
            .filter(|ratio| ratio.is_finite())
            .map(|ratio| format!("{ratio:.3}"));
        let better = ours
            .filter(|ours| ours.contender != row.contender)
            .map(|ours| advantage(ours.median, row.median, row.workload.better()))
            .filter(|ratio| ratio.is_finite())
            .map(|ratio| format!("{ratio:.2}x"));
        table.add_row([
            row.contender.to_string(),
            number(row.median),
            number(row.min),
            number(row.max),
            to_plain.unwrap_or_default(),
            better.unwrap_or_default(),
            row.cpu_s_per_gb.map(|cost| format!("{cost:.2}")).unwrap_or_default(),
            note(row),
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// How many times as good our figure is: above 1 it is the better one.
fn advantage(ours: f64, theirs: f64, better: Better) -> f64 {
    match better {
        Better::Higher => ours / theirs,
        Better::Lower => theirs / ours,
    }
}

/// Three digits that say something.
pub(super) fn number(value: f64) -> String {
    match value {
        value if value >= 1000.0 => format!("{value:.0}"),
        value if value >= 100.0 => format!("{value:.1}"),
        value if value >= 10.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

fn note(row: &Row) -> String {
    if let Some(loss) = row.loss {
        return format!("{}, {:.1} % lost", rate(row.rate), loss * 100.0);
    }
    if let Some(p99) = row.p99_ms {
        let load =
            if row.rate > 0.0 { format!(", beside {}", rate(row.rate)) } else { String::new() };
        return format!("p99 {} ms{load}", number(p99));
    }
    if row.workload == Workload::Rate1250 && row.rate < 0.97 * FIXED_RATE {
        return format!("only {}", rate(row.rate));
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::sample::Sample;

    fn figures() -> Figures {
        let mut figures = Figures::default();
        let sample =
            |figure| Sample { figure, rate: 4e8, cpu_s_per_gb: None, loss: None, p99: None };
        for (contender, value) in
            [(Contender::Plain, 10.0), (Contender::VgwAes, 4.0), (Contender::Gotatun, 0.5)]
        {
            figures.add(Link::Veth, Workload::Tcp1, contender, sample(value));
            figures.add(Link::Veth, Workload::Rate1250, contender, sample(value));
        }
        figures.miss(Link::Veth, Contender::Openvpn, Missing::Absent("apt-get it".into()));
        figures
    }

    #[test]
    fn ratios_say_who_is_better_whichever_way_round() {
        let text = figures().to_string();
        let line = |workload: &str| {
            let part = text.split(workload).nth(1).unwrap_or_default();
            part.lines().find(|line| line.contains("gotatun")).unwrap_or_default().to_owned()
        };
        assert!(line("tcp1").contains("0.050") && line("tcp1").contains("8.00x"), "{text}");
        // Less CPU is better.
        assert!(line("rate1250").contains("0.12x") && line("rate1250").contains("only 400 Mbit/s"));
    }

    #[test]
    fn who_is_absent_is_said_with_the_command_that_brings_it() {
        let text = figures().to_string();
        assert!(text.contains("absent: openvpn (apt-get it, or --peer openvpn=PATH)"), "{text}");
        assert!(!figures().has_failures());
    }
}
