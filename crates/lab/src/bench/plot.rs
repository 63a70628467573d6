//! The figures as an SVG: a panel for each link and workload, a bar for each contender.

use crate::bench::contender::Contender;
use crate::bench::figures::Row;
use crate::bench::table::{number, title};
use crate::bench::workload::{Better, Workload};
use std::fmt::Write;

const WIDTH: f64 = 560.0;
const LABELS: f64 = 170.0;
const VALUES: f64 = 110.0;
const BAR: f64 = 16.0;
const STEP: f64 = 22.0;
const HEAD: f64 = 48.0;
const GAP: f64 = 24.0;
const COLUMNS: usize = 2;

/// Draws all rows.
pub fn svg(rows: &[Row]) -> String {
    let panels: Vec<&[Row]> =
        rows.chunk_by(|a, b| (a.link, a.workload) == (b.link, b.workload)).collect();
    let mut body = String::new();
    let mut top = GAP;
    for line in panels.chunks(COLUMNS) {
        let mut left = GAP;
        for panel in line {
            draw(&mut body, panel, left, top);
            left += WIDTH + GAP;
        }
        let tallest = line.iter().map(|panel| panel.len()).max().unwrap_or(0);
        top += HEAD + tallest as f64 * STEP + GAP;
    }
    let width = GAP + (WIDTH + GAP) * panels.len().clamp(1, COLUMNS) as f64;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {top}\" width=\"{width}\" \
         height=\"{top}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn draw(out: &mut String, rows: &[Row], left: f64, top: f64) {
    let Some(first) = rows.first() else { return };
    let better = match first.workload.better() {
        Better::Higher => "more is better",
        Better::Lower => "less is better",
    };
    text(
        out,
        (left, top + 14.0),
        "start",
        "font-size=\"15\" font-weight=\"bold\"",
        &title(first.link, first.workload),
    );
    let subtitle = format!("median; the line is the spread of the rounds; {better}");
    text(out, (left, top + 32.0), "start", "fill=\"#666\"", &subtitle);
    let largest = rows.iter().map(|row| row.max.max(row.median)).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LABELS - VALUES) / largest;
    let zero = left + LABELS;
    for (index, row) in rows.iter().enumerate() {
        let y = top + HEAD + index as f64 * STEP;
        let middle = y + BAR / 2.0;
        text(out, (zero - 8.0, middle + 4.0), "end", "", &row.contender.to_string());
        let _ = writeln!(
            out,
            "<rect x=\"{zero}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{}\"/>",
            (row.median * scale).max(1.0),
            color(row.contender)
        );
        let (low, high) = (zero + row.min * scale, zero + row.max * scale);
        let _ = writeln!(
            out,
            "<path d=\"M{low:.1} {middle}H{high:.1}M{low:.1} {0}v8M{high:.1} {0}v8\" stroke=\"#222\"/>",
            middle - 4.0
        );
        text(out, (high.max(zero) + 8.0, middle + 4.0), "start", "", &value(row));
    }
    let bottom = top + HEAD + rows.len() as f64 * STEP;
    let _ = writeln!(out, "<path d=\"M{zero} {}V{bottom}\" stroke=\"#888\"/>", top + HEAD - 4.0);
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, more: &str, words: &str) {
    // None of the words holds a character that XML would take for its own.
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{words}</text>"
    );
}

fn value(row: &Row) -> String {
    let figure = number(row.median);
    match row.p99_ms {
        Some(p99) => format!("{figure}, p99 {}", number(p99)),
        None if matches!(
            row.workload,
            Workload::Udp64 | Workload::Udp1400 | Workload::Udp1400Gso | Workload::Imix
        ) =>
        {
            format!("{:.0} k", row.median / 1e3)
        }
        None => figure,
    }
}

/// The limits are grey, ours is blue, and the peers are orange.
fn color(contender: Contender) -> &'static str {
    match contender {
        Contender::Plain | Contender::Null => "#9aa5b1",
        Contender::VgwAes => "#1f6feb",
        Contender::VgwLowLatency | Contender::VgwChacha | Contender::VgwWireguard => "#6ca4f8",
        _ => "#e0873a",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::Figures;
    use crate::bench::rig::Link;
    use crate::bench::sample::Sample;

    #[test]
    fn each_row_has_a_bar_as_long_as_its_figure() {
        let mut figures = Figures::default();
        for (contender, figure) in [(Contender::Plain, 10.0), (Contender::VgwAes, 5.0)] {
            let sample = Sample { figure, rate: 1.0, cpu_s_per_gb: None, loss: None, p99: None };
            figures.add(Link::Veth, Workload::Tcp1, contender, sample);
        }
        let svg = svg(&figures.rows());
        let bars: Vec<&str> = svg.lines().filter(|line| line.contains("height=\"16\"")).collect();
        assert!(
            bars[0].contains("width=\"280.0\"") && bars[1].contains("width=\"140.0\""),
            "{svg}"
        );
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
    }
}
