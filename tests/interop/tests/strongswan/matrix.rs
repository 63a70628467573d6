//! Every suite in both roles: 189 IKE suites, each with one of 9 ESP suites and one of 8 choices
//! for the group of a rekey, so that all of these come at least twice.
//!
//! charon offers and accepts one suite in each row; our side has its defaults, which are
//! everything. What was chosen is read from both sides, and traffic runs before and after a rekey.

use anyhow::{Context, Result, ensure};
use interop::charon::{Charon, Sa, esp_suite};
use interop::connection::Connection;
use interop::ours::{Ours, Settings, Tunnel};
use interop::suites::{EspSuite, Group, IkeSuite, esp_suites, ike_suites, pfs_groups};
use interop::traffic::both_ways;
use interop::wait;
use interop::world::{OURS, OURS_INSIDE, World};
use lab::daemon::Kind;
use lab::topology::{address, end};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// All rows come up at the same time, and a busy machine takes a while for those with MODP.
const ALL: Duration = Duration::from_secs(120);

struct Row {
    name: String,
    ike: IkeSuite,
    esp: EspSuite,
    group: Option<Group>,
}

impl Row {
    fn all() -> Vec<Row> {
        let (esp, groups) = (esp_suites(), pfs_groups());
        let rows = ike_suites().into_iter().enumerate().map(|(i, ike)| Row {
            name: format!("row-{i}"),
            ike,
            esp: esp[i % esp.len()].clone(),
            group: groups[(i / esp.len()) % groups.len()],
        });
        rows.collect()
    }

    /// charon's address in row `i`, by which each side tells the rows apart.
    fn outside(i: usize) -> String {
        format!("192.0.2.{}", 10 + i)
    }

    /// The inner host behind charon in row `i`.
    fn inside(i: usize) -> String {
        format!("192.168.{i}.20")
    }

    fn connection(&self, i: usize, we_begin: bool) -> Connection {
        let group = self.group.map_or(String::new(), |group| format!("-{}", group.swan));
        let mut connection = Connection::new(&self.name, &Row::outside(i), OURS[0]);
        connection.peer_id = format!("{}.example", self.name);
        connection.ike = self.ike.swan.clone();
        connection.esp = format!("{}{group}", self.esp.swan);
        connection.peer_networks = format!("192.168.{i}.0/24");
        let (startup, pfs) = (if we_begin { "start" } else { "add" }, self.group.is_some());
        connection.tunnel = format!("startup_action = \"{startup}\"\nphase2_pfs = {pfs}");
        connection
    }

    /// What both sides say was chosen; `rekeyed` from these inbound SPIs of ours.
    fn check(&self, sa: &Sa, ours: &Tunnel, rekeyed: Option<&str>) -> Result<(), String> {
        let child = sa.installed().ok_or_else(|| format!("{}: {sa:?}", self.name))?;
        let group = rekeyed.and(self.group);
        let expected = [
            ("charon's IKE SA", sa.ike_suite(), self.ike.shown.as_str()),
            ("our IKE SA", ours.text("ike_suite").into(), &self.ike.shown),
            ("charon's Child SA", esp_suite(child), &self.esp.shown),
            ("our Child SA", ours.text("esp_suite").into(), &self.esp.ours),
            ("charon's group", child.text("dh-group").into(), group.map_or("", |g| g.shown)),
            ("our group", ours.text("pfs_group").into(), group.map_or("", |g| g.ours)),
            ("charon's extended sequence numbers", child.text("esn").into(), ""),
            ("SPIs to us", child.text("spi-out").into(), ours.text("spi_in")),
            ("SPIs to charon", child.text("spi-in").into(), ours.text("spi_out")),
        ];
        for (what, seen, wanted) in expected {
            if seen != wanted {
                return Err(format!("{}: {what}: `{seen}` and not `{wanted}`", self.name));
            }
        }
        match rekeyed {
            Some(before) if before == ours.text("spi_in") => {
                Err(format!("{}: no rekey", self.name))
            }
            _ => Ok(()),
        }
    }
}

struct Matrix {
    kind: Kind,
    we_begin: bool,
    rows: Vec<Row>,
    world: World,
    charon: Charon,
    ours: Ours,
}

impl Matrix {
    fn start(kind: Kind, we_begin: bool) -> Result<Matrix> {
        let (rows, world) = (Row::all(), World::new()?);
        for i in 0..rows.len() {
            address(end(&world.swan, "wan"), format!("{}/24", Row::outside(i)))?;
            address(end(&world.swan, "lo"), Row::inside(i))?;
        }
        let connections: Vec<Connection> =
            rows.iter().enumerate().map(|(i, row)| row.connection(i, we_begin)).collect();
        let charon = Charon::with(&world.swan, "", &connections)?;
        charon.route(&["10.0.0.0/16"])?;
        let settings = Settings {
            kind,
            listen: OURS.map(str::to_owned).to_vec(),
            networks: vec!["10.0.0.0/16".into()],
            extra: String::new(),
        };
        let ours = Ours::start(&world.ours, &settings, &connections)?;
        Ok(Matrix { kind, we_begin, rows, world, charon, ours })
    }

    /// Waits until both sides say of all rows what they should, and returns our SPIs.
    fn await_all(
        &self,
        before: Option<&BTreeMap<String, String>>,
    ) -> Result<BTreeMap<String, String>> {
        wait::until("all rows", ALL, || {
            let ours: BTreeMap<String, Tunnel> = self.ours.tunnels()?.into_iter().collect();
            let sas = self.charon.sas()?;
            let mut missing = Vec::new();
            for row in &self.rows {
                let rekeyed = before.and_then(|spis| spis.get(&row.name)).map(String::as_str);
                let mut of_row = sas.iter().filter(|sa| sa.name == row.name);
                let verdict = match (of_row.next(), of_row.next(), ours.get(&row.name)) {
                    (Some(sa), None, Some(tunnel)) => row.check(sa, tunnel, rekeyed),
                    (sa, _, tunnel) => Err(format!("{}: charon {sa:?}, ours {tunnel:?}", row.name)),
                };
                missing.extend(verdict.err());
            }
            if missing.is_empty() {
                let spis = ours.into_iter().map(|(name, t)| (name, t.text("spi_in").to_owned()));
                return Ok(Ok(spis.collect()));
            }
            Ok(Err(format!("{} rows are not right: {}", missing.len(), missing.join("\n"))))
        })
    }

    /// Traffic through every row, in two halves side by side.
    fn traffic(&self) -> Result<()> {
        let half = |parity: usize| -> Result<()> {
            for (i, row) in self.rows.iter().enumerate().filter(|(i, _)| i % 2 == parity) {
                let swan = self.world.swan_inner(&Row::inside(i));
                both_ways(swan, self.world.our_inner(OURS_INSIDE), 20_000).with_context(|| {
                    format!("{} ({}, {})", row.name, row.ike.swan, row.esp.swan)
                })?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| half(1));
            half(0)?;
            other.join().map_err(|_| anyhow::anyhow!("the other half panicked"))?
        })
    }

    fn run(&mut self) -> Result<()> {
        if !self.we_begin {
            for row in &self.rows {
                self.charon.initiate(&row.name)?;
            }
        }
        let before = self.await_all(None)?;
        self.traffic()?;
        for row in &self.rows {
            if self.we_begin {
                self.ours.verb(&row.name, "rekey-child")?;
            } else {
                self.charon.rekey("child", &row.name)?;
            }
        }
        self.await_all(Some(&before))?;
        self.traffic()?;
        let tunnels = self.ours.tunnels()?;
        let quiet = tunnels.iter().filter(|(_, t)| t.number("packets_in") < 40).count();
        ensure!(quiet == 0, "{quiet} tunnels carried less than was sent");
        self.report()
    }

    /// What was checked above, as a table: a cell for each suite and group.
    fn report(&self) -> Result<()> {
        let (ours, charon) = (self.kind.name(), "charon 5.9.8");
        let (from, to) = if self.we_begin { (ours, charon) } else { (charon, ours) };
        let title = format!("{from} to {to}");
        let (mut ike, mut esp) = (Table::default(), Table::default());
        for row in &self.rows {
            let (suite, group) = row.ike.shown.rsplit_once('/').unwrap_or_default();
            ike.count(suite, group);
            esp.count(&row.esp.ours, row.group.map_or("no group", |group| group.shown));
        }
        let text = format!(
            "{title}: {} rows, each with traffic before and after a Child rekey\n\nIKE SA\n{}\n\
             Child SA, by the group of its rekey\n{}",
            self.rows.len(),
            ike.text(),
            esp.text()
        );
        let file =
            format!("{}/matrix-{}.txt", env!("CARGO_TARGET_TMPDIR"), title.replace(' ', "-"));
        std::fs::write(&file, &text).with_context(|| file.clone())?;
        println!("{text}\n({file})");
        Ok(())
    }
}

/// How many rows passed with each suite and group.
#[derive(Default)]
struct Table {
    groups: Vec<String>,
    suites: Vec<(String, BTreeMap<String, usize>)>,
}

impl Table {
    fn count(&mut self, suite: &str, group: &str) {
        if !self.groups.iter().any(|known| known == group) {
            self.groups.push(group.into());
        }
        if !self.suites.iter().any(|(known, _)| known == suite) {
            self.suites.push((suite.into(), BTreeMap::new()));
        }
        let row = self.suites.iter_mut().find(|(known, _)| known == suite);
        if let Some((_, cells)) = row {
            *cells.entry(group.into()).or_default() += 1;
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{:<55}", "");
        for group in &self.groups {
            let _ = write!(text, "{group:>12}");
        }
        for (suite, cells) in &self.suites {
            let _ = write!(text, "\n{suite:<55}");
            for group in &self.groups {
                let passed = cells.get(group).map_or("-".to_owned(), |n| format!("{n} ok"));
                let _ = write!(text, "{passed:>12}");
            }
        }
        text + "\n"
    }
}

#[test]
fn charon_begins_with_vgw_and_every_suite() -> Result<()> {
    Matrix::start(Kind::Vgw, false)?.run()
}

#[test]
fn charon_begins_with_the_agent_and_every_suite() -> Result<()> {
    Matrix::start(Kind::Agent, false)?.run()
}

#[test]
fn vgw_begins_with_charon_and_every_suite() -> Result<()> {
    Matrix::start(Kind::Vgw, true)?.run()
}

#[test]
fn the_agent_begins_with_charon_and_every_suite() -> Result<()> {
    Matrix::start(Kind::Agent, true)?.run()
}
