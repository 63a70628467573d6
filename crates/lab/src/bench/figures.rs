//! All that was measured, and the rows that are made of it.

use crate::bench::contender::Contender;
use crate::bench::rig::Link;
use crate::bench::sample::Sample;
use crate::bench::workload::Workload;
use serde::Serialize;
use std::collections::BTreeMap;

/// What one workload on one contender showed in all rounds: an element of the JSON list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The workload.
    #[serde(serialize_with = "as_text")]
    pub workload: Workload,
    /// The contender.
    #[serde(serialize_with = "as_text")]
    pub contender: Contender,
    /// The median of the rounds.
    pub median: f64,
    /// The smallest of the rounds.
    pub min: f64,
    /// The largest of the rounds.
    pub max: f64,
    /// The unit of these three.
    pub unit: &'static str,
    /// CPU-seconds of both gateways for 10^9 octets of payload, the median of the rounds; none
    /// where only pings were sent.
    pub cpu_s_per_gb: Option<f64>,
    /// The links between the namespaces; in the JSON only where they are not veth as it is.
    #[serde(skip_serializing_if = "is_veth", serialize_with = "wire")]
    pub link: Link,
    /// The share of the datagrams that was lost, the median of the rounds; UDP only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// The 99th percentile of the round trip time in ms, the median of the rounds; ping only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// Bits of payload that arrived in a second, the median of the rounds.
    #[serde(skip)]
    pub rate: f64,
}

fn as_text<S: serde::Serializer>(value: &impl std::fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

fn wire<S: serde::Serializer>(_: &Link, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str("wire")
}

fn is_veth(link: &Link) -> bool {
    *link == Link::Veth
}

/// Why a contender has no figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is not on this machine; the command that would bring it.
    Absent(String),
    /// It did not work; what happened.
    Failed(String),
}

/// The samples of a run, and who has none.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    samples: BTreeMap<(Link, Workload, Contender), Vec<Sample>>,
    missing: BTreeMap<(Link, Contender), Missing>,
}

impl Figures {
    /// Adds a sample.
    pub fn add(&mut self, link: Link, workload: Workload, contender: Contender, sample: Sample) {
        self.samples.entry((link, workload, contender)).or_default().push(sample);
    }

    /// Notes why a contender has no figures, or no more of them.
    pub fn miss(&mut self, link: Link, contender: Contender, why: Missing) {
        self.missing.entry((link, contender)).or_insert(why);
    }

    /// Whether somebody who should have worked did not.
    pub fn has_failures(&self) -> bool {
        self.missing.values().any(|why| matches!(why, Missing::Failed(_)))
    }

    /// Who has no figures over these links, and why.
    pub fn missing(&self, link: Link) -> impl Iterator<Item = (Contender, &Missing)> {
        self.missing
            .iter()
            .filter(move |((at, _), _)| *at == link)
            .map(|((_, who), why)| (*who, why))
    }

    /// The rows, by link, workload and contender.
    pub fn rows(&self) -> Vec<Row> {
        self.samples.iter().filter_map(|(key, samples)| row(*key, samples)).collect()
    }
}

fn row(
    (link, workload, contender): (Link, Workload, Contender),
    samples: &[Sample],
) -> Option<Row> {
    let of = |part: fn(&Sample) -> Option<f64>| sorted(samples.iter().filter_map(part));
    let figures = of(|sample| Some(sample.figure));
    Some(Row {
        workload,
        contender,
        median: median(&figures)?,
        min: *figures.first()?,
        max: *figures.last()?,
        unit: workload.unit(),
        cpu_s_per_gb: median(&of(|sample| sample.cpu_s_per_gb)),
        link,
        loss: median(&of(|sample| sample.loss)),
        p99_ms: median(&of(|sample| sample.p99)),
        rate: median(&of(|sample| Some(sample.rate)))?,
    })
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The middle one; of an even number the mean of the two in the middle.
fn median(sorted: &[f64]) -> Option<f64> {
    let (low, high) =
        (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some((low + high) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(figure: f64) -> Sample {
        Sample { figure, rate: figure * 1e9, cpu_s_per_gb: Some(2.0), loss: None, p99: None }
    }

    #[test]
    fn a_row_has_the_median_and_the_spread_of_its_rounds() {
        let mut figures = Figures::default();
        for figure in [5.0, 1.0, 3.0, 2.0] {
            figures.add(Link::Veth, Workload::Tcp1, Contender::Null, sample(figure));
        }
        let rows = figures.rows();
        assert_eq!((rows[0].min, rows[0].median, rows[0].max), (1.0, 2.5, 5.0));
        let json = serde_json::to_value(&rows).unwrap_or_default();
        let expected = serde_json::json!([{
            "workload": "tcp1", "contender": "null", "median": 2.5, "min": 1.0, "max": 5.0,
            "unit": "Gbit/s", "cpu_s_per_gb": 2.0,
        }]);
        assert_eq!(json, expected);
    }

    #[test]
    fn only_wires_pings_and_losses_add_to_the_shape() {
        let mut figures = Figures::default();
        let ping = Sample { p99: Some(4.0), cpu_s_per_gb: None, ..sample(1.0) };
        figures.add(Link::Wire, Workload::PingIdle, Contender::Plain, ping);
        let json = serde_json::to_value(figures.rows()).unwrap_or_default();
        let expected = serde_json::json!([{
            "workload": "ping-idle", "contender": "plain", "median": 1.0, "min": 1.0, "max": 1.0,
            "unit": "ms", "cpu_s_per_gb": null, "link": "wire", "p99_ms": 4.0,
        }]);
        assert_eq!(json, expected);
    }
}
