//! The capture on the internet, over the whole run but for the measurements of throughput.

use crate::capture::{Capture, Seen};
use crate::error::Result;
use crate::layout::PLAIN;
use crate::netns::Host;
use crate::report::{Report, Row};
use crate::steps::Way;
use crate::traffic::ping::{self, Plan};
use ipnet::IpNet;

/// The only port that may be seen between the sites.
const PORT: u16 = 4500;

/// Captures in pieces, and adds them up.
#[derive(Debug, Default)]
pub struct Wan {
    running: Option<Capture>,
    seen: Seen,
}

impl Wan {
    /// Starts to capture.
    pub fn resume(&mut self, internet: &Host) -> Result<()> {
        let plain: Vec<IpNet> = PLAIN.iter().filter_map(|net| net.parse().ok()).collect();
        self.running = Some(Capture::start(internet, &[PORT], &plain)?);
        Ok(())
    }

    /// Sends the hosts' octets past the tunnel, so that the capture proves that it would see them.
    pub fn control(way: &Way) -> Result<()> {
        let plain = way.plain();
        let plan = Plan { source: Some(plain.source), ..Plan::new(plain.target) };
        ping::run(&plain.from.host, plan).map(drop)
    }

    /// Stops for a while.
    pub fn pause(&mut self) -> Result<()> {
        if let Some(capture) = self.running.take() {
            self.seen.add(&capture.stop()?);
        }
        Ok(())
    }

    /// Stops and judges.
    pub fn finish(&mut self, report: &mut Report) -> Result<()> {
        self.pause()?;
        let seen = &self.seen;
        let tunnel = seen.kinds.get(&format!("UDP {PORT}")).copied().unwrap_or(0);
        let others = seen.others(&[PORT]);
        let figure = if others.is_empty() {
            format!("{tunnel} frames of UDP {PORT}, none else")
        } else {
            let list: Vec<String> =
                others.iter().map(|(kind, count)| format!("{count} of {kind}")).collect();
            format!("{tunnel} frames of UDP {PORT}, and {}", list.join(", "))
        };
        report.add(
            Row::note("wan", "what passed between the sites", figure)
                .value(tunnel as f64, "frames")
                .expect(format!("UDP {PORT} only"), others.is_empty() && tunnel > 0),
        );
        let figure = match &seen.first_marked {
            None => format!("in none of {} frames", seen.frames),
            Some(first) => format!("in {} frames, first: {first}", seen.marked),
        };
        report.add(
            Row::note("wan", "the hosts' octets in clear", figure)
                .value(seen.marked as f64, "frames")
                .expect("never", seen.marked == 0),
        );
        report.add(
            Row::note(
                "wan",
                "the same octets sent past the tunnel",
                format!("seen in {} frames", seen.exempt_marked),
            )
            .value(seen.exempt_marked as f64, "frames")
            .expect("seen: the capture works", seen.exempt_marked > 0),
        );
        Ok(())
    }
}
