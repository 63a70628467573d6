//! Echo requests between all hosts of the sites and of the VPC, both ways.

use super::{Run, both_ways};
use crate::error::{LabError, Result};
use crate::report::{Row, milliseconds};
use crate::traffic::ping::{self, Plan};
use std::time::Duration;

pub(super) fn ping(run: &mut Run<'_>) -> Result<()> {
    let test = &run.scenario.test;
    let allowed = test.ping_loss_percent.0;
    let (mut ways, mut dead) = (Vec::new(), Vec::new());
    for site in &run.world.sites {
        for desk in &site.hosts {
            ways.extend(run.world.vpc.hosts.iter().flat_map(|app| both_ways(desk, app)));
        }
    }
    ways.extend(run.ways_through_hub());
    for way in ways {
        run.progress.say(format!("ping {}", way.name));
        let plan = Plan {
            source: Some(way.source),
            count: Some(test.ping_count),
            interval: Duration::from_millis(10),
            patience: Duration::from_secs(2),
            ..Plan::new(way.target)
        };
        let pinging = way.from.host.thread("ping-step", {
            let host = way.from.host.clone();
            move || ping::run(&host, plan)
        })?;
        let answers = run.stop.join(pinging)??;
        let time =
            |share| answers.quantile(share).map(milliseconds).unwrap_or_else(|| "no answer".into());
        let figure = format!(
            "{} of {} answered, {} median, {} at most",
            answers.received,
            answers.sent,
            time(0.5),
            time(1.0)
        );
        let silent = answers.received == 0;
        let passed = answers.loss_percent() <= allowed && !silent && answers.damaged == 0;
        let expected =
            if allowed > 0.0 { format!("at most {allowed} % lost") } else { "none lost".into() };
        if silent {
            dead.push(way.name.clone());
        }
        run.report.add(
            Row::note("ping", way.name, figure)
                .value(answers.loss_percent(), "% lost")
                .expect(expected, passed),
        );
    }
    // Nothing else would pass either, only slowly.
    if dead.is_empty() {
        Ok(())
    } else {
        Err(LabError::Unexpected(format!("no ping passes: {}", dead.join(", "))))
    }
}
