//! Datagrams of many sizes around the MTU, echoed: each must come back, whole or in fragments.

use super::Run;
use crate::error::{LabError, Result};
use crate::report::Row;
use crate::traffic::udp;

pub(super) fn mtu(run: &mut Run<'_>) -> Result<()> {
    let outside = usize::from(*run.scenario.internet.mtu.get_ref());
    // Every fifth size from well below what fits to well above, and some far above.
    let sizes: Vec<usize> =
        (outside.saturating_sub(250)..outside + 50).step_by(5).chain([2_900, 8_000]).collect();
    for way in run.ways() {
        run.progress.say(format!("UDP {}: {} sizes around the MTU", way.name, sizes.len()));
        let (client, server) = (way.from.host.clone(), way.to.host.clone());
        let (source, target, list, seed) =
            (way.source, way.target, sizes.clone(), run.scenario.seed);
        let thread = std::thread::spawn(move || {
            let pair = crate::traffic::tcp::Pair {
                client: &client,
                source: Some(source),
                server: &server,
                address: target,
            };
            udp::echo_sizes(pair, &list, seed)
        });
        let echoes = run.stop.join(thread)??;
        let learned =
            echoes.path_mtu.map(|mtu| format!(", path MTU {mtu} learned")).unwrap_or_default();
        let figure = format!("{} of {} sizes echoed{learned}", echoes.passed.len(), sizes.len());
        let passed = echoes.lost.is_empty() && echoes.damaged == 0;
        let figure =
            if passed { figure } else { format!("{figure}, lost: {}", ranges(&echoes.lost)) };
        run.report.add(
            Row::note("mtu", way.name, figure)
                .value(echoes.lost.len() as f64, "sizes lost")
                .expect("all", passed),
        );
    }
    if run.report.rows.iter().all(|row| row.step != "mtu") {
        return Err(LabError::Unexpected("no two hosts to send datagrams between".into()));
    }
    Ok(())
}

/// The first and the last of the lost sizes tell where the hole is.
fn ranges(sizes: &[usize]) -> String {
    match sizes {
        [] => String::new(),
        [one] => one.to_string(),
        [first, .., last] => format!("{} sizes from {first} to {last} octets", sizes.len()),
    }
}
