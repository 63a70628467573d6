//! The closing tables.

use crate::contenders::{self, Cell};
use crate::{Pair, without_avx512};

/// What one contender did in one cell.
pub struct Row {
    cell: Cell,
    name: String,
    /// Nanoseconds a packet: the median over undisturbed slices.
    packet: f64,
    /// How many times as fast as the reference: the median over neighbouring slices, both undisturbed.
    ratio: f64,
}

/// A slice that took so many times the fastest was disturbed by others on the machine.
const DISTURBED: f64 = 1.3;

impl Row {
    pub fn new(cell: Cell, name: String, mut pairs: Vec<Pair>) -> Self {
        let fastest = |of: fn(&Pair) -> f64| pairs.iter().map(of).fold(f64::MAX, f64::min);
        let (own, other) = (fastest(|pair| pair.0), fastest(|pair| pair.1));
        pairs.retain(|pair| pair.0 < DISTURBED * own && pair.1 < DISTURBED * other);
        // Where no two neighbours went undisturbed, the fastest of each is left.
        if pairs.is_empty() {
            pairs.push((own, other));
        }
        let packet = median(pairs.iter().map(|&(own, _)| own).collect());
        let ratio = median(pairs.iter().map(|&(own, other)| other / own).collect());
        Self { cell, name, packet, ratio }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// All rows of a run.
#[derive(Default)]
pub struct Table(Vec<Row>);

impl Table {
    pub fn push(&mut self, row: Row) {
        self.0.push(row);
    }

    /// One line a contender and batch; for each size, nanoseconds a packet, GB/s and the ratio.
    pub fn print(&self, sizes: &[usize]) {
        println!("\nFor each size in octets: ns a packet, GB/s, times the speed of aws-lc-rs");
        println!("{}, backends: {}", processor(), backends());
        let mut lines: Vec<(&Row, Vec<&Row>)> = Vec::new();
        for row in &self.0 {
            let alike = |first: &Row| {
                let key = |row: &Row| (row.cell.algorithm, row.cell.operation, row.cell.batch);
                key(first) == key(row) && first.name == row.name
            };
            match lines.iter_mut().find(|(first, _)| alike(first)) {
                Some((_, rows)) => rows.push(row),
                None => lines.push((row, vec![row])),
            }
        }
        let mut heading = None;
        for (first, rows) in lines {
            let Cell { algorithm, operation, batch, .. } = first.cell;
            if heading.replace((algorithm, operation)) != Some((algorithm, operation)) {
                print!("\n{:24}", format!("{algorithm} {operation}"));
                sizes.iter().for_each(|size| print!("{size:>19} "));
                println!();
            }
            print!("{:>3} x {:18}", batch, first.name);
            for &size in sizes {
                match rows.iter().find(|row| row.cell.size == size) {
                    Some(Row { packet, ratio, .. }) => {
                        print!("{packet:>7.0} {:>5.2} {ratio:>5.2}x", size as f64 / packet);
                    }
                    None => print!("{:>20}", "-"),
                }
            }
            println!();
        }
    }
}

fn backends() -> String {
    let names: Vec<_> = contenders::backends().map(simd_aead::Backend::name).collect();
    let without = if without_avx512() { "; aws-lc-rs without AVX-512" } else { "" };
    names.join(", ") + without
}

/// The name that the processor gives itself.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    match value("model name") {
        Some(name) => {
            let [family, model] =
                ["cpu family", "model\t"].map(|key| value(key).unwrap_or_default());
            format!("{name} (family {family}, model {model})")
        }
        None => std::env::consts::ARCH.to_owned(),
    }
}
