//! One charon and one of our daemons with one connection between them.

use crate::charon::{Charon, Sa};
use crate::connection::Connection;
use crate::ours::{Ours, Settings, Tunnel};
use crate::traffic::{both_ways, plan};
use crate::wait::{self, LIMIT};
use crate::world::{OURS, OURS_INSIDE, SWAN, SWAN_INSIDE, World};
use anyhow::{Context, Result, ensure};
use lab::daemon::Kind;
use lab::traffic::ping::{self, Answers, Pinging};

/// The name of the connection.
pub const NAME: &str = "vpn";

/// The networks behind us, which charon's host routes into its TUN device.
const INNER: [&str; 2] = ["10.0.0.0/16", "fd02::/64"];

/// Who sends the first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// We do.
    Ours,
    /// charon does.
    Charon,
}

/// What a test changes before anything starts.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which of our daemons.
    pub kind: Kind,
    /// Who begins.
    pub begins: Begins,
    /// What charon is told.
    pub charon: Connection,
    /// What we are told.
    pub ours: Connection,
    /// More of charon's settings.
    pub charon_settings: String,
    /// More of our daemon's settings.
    pub our_settings: String,
    /// The addresses that we listen on; empty ones: on all.
    pub listen: [String; 2],
}

impl Plan {
    /// A connection that works.
    pub fn new(kind: Kind, begins: Begins) -> Plan {
        let connection = Connection::new(NAME, SWAN, OURS[0]);
        Plan {
            kind,
            begins,
            charon: connection.clone(),
            ours: connection,
            charon_settings: String::new(),
            our_settings: String::new(),
            listen: OURS.map(str::to_owned),
        }
    }

    /// The same change on both sides.
    pub fn both(mut self, change: impl Fn(&mut Connection)) -> Plan {
        change(&mut self.charon);
        change(&mut self.ours);
        self
    }
}

/// Both in a world. Dropping it ends them.
#[derive(Debug)]
pub struct Pair {
    /// charon.
    pub charon: Charon,
    /// Ours.
    pub ours: Ours,
    /// Where they are.
    pub world: World,
    begins: Begins,
}

impl Pair {
    /// Starts both; nothing has begun yet, unless we are to begin.
    pub fn start(world: World, plan: &Plan) -> Result<Pair> {
        let charon =
            Charon::with(&world.swan, &plan.charon_settings, std::slice::from_ref(&plan.charon))?;
        charon.route(&INNER)?;
        let settings = Settings {
            kind: plan.kind,
            listen: plan.listen.to_vec(),
            networks: vec!["10.0.0.0/16".into()],
            extra: plan.our_settings.clone(),
        };
        let startup = match plan.begins {
            Begins::Ours => "start",
            Begins::Charon => "add",
        };
        let mut connection = plan.ours.clone();
        connection.tunnel += &format!("\nstartup_action = \"{startup}\"");
        let ours = Ours::start(&world.ours, &settings, &[connection])?;
        Ok(Pair { charon, ours, world, begins: plan.begins })
    }

    /// charon loses its power, and is there again with the same configuration.
    pub fn restart_charon(&mut self, plan: &Plan) -> Result<()> {
        self.charon.kill();
        self.charon = Charon::with(
            &self.world.swan,
            &plan.charon_settings,
            std::slice::from_ref(&plan.charon),
        )?;
        self.charon.route(&INNER)
    }

    /// Both in a world of their own, and the tunnel UP.
    pub fn up(plan: &Plan) -> Result<Pair> {
        Pair::start(World::new()?, plan)?.connect()
    }

    /// Begins if charon is to, and waits until both sides say that the tunnel is up.
    pub fn connect(self) -> Result<Pair> {
        if self.begins == Begins::Charon {
            self.charon.initiate(NAME).with_context(|| self.logs())?;
        }
        self.await_agreed().with_context(|| self.logs())?;
        Ok(self)
    }

    /// Waits until both sides have one IKE SA and one Child SA, and the same ones.
    pub fn await_agreed(&self) -> Result<(Sa, Tunnel)> {
        wait::until("both sides agree", LIMIT, || {
            let (sas, tunnel) = (self.charon.sas_of(NAME)?, self.ours.tunnel(NAME)?);
            let agreed = match sas.as_slice() {
                [sa] => {
                    sa.ike.text("state") == "ESTABLISHED" && {
                        let child = sa.installed();
                        child.is_some_and(|c| {
                            c.text("spi-out") == tunnel.text("spi_in")
                                && c.text("spi-in") == tunnel.text("spi_out")
                        })
                    }
                }
                _ => false,
            };
            Ok(match sas.into_iter().next() {
                Some(sa) if agreed && tunnel.is_up() => Ok((sa, tunnel)),
                sa => Err(format!("charon {sa:?}, ours {tunnel:?}")),
            })
        })
    }

    /// Traffic both ways between the inner hosts.
    pub fn traffic(&self) -> Result<()> {
        let (swan, ours) = (self.world.swan_inner(SWAN_INSIDE), self.world.our_inner(OURS_INSIDE));
        both_ways(swan, ours, 200_000).with_context(|| self.logs())
    }

    /// Pings every 10 ms from each inner host to the other, until stopped.
    pub fn ping(&self) -> Result<BothWays> {
        let (swan, ours) = (self.world.swan_inner(SWAN_INSIDE), self.world.our_inner(OURS_INSIDE));
        let to_us = ping::start(swan.host, plan(swan, ours, None, 10))?;
        let to_charon = ping::start(ours.host, plan(ours, swan, None, 10))?;
        Ok(BothWays { to_us, to_charon })
    }

    /// Both logs, for what went wrong.
    pub fn logs(&self) -> String {
        format!("our log:\n{}\ncharon's:\n{}", self.ours.last_lines(40), self.charon.last_lines(60))
    }
}

/// Pings both ways.
#[derive(Debug)]
pub struct BothWays {
    to_us: Pinging,
    to_charon: Pinging,
}

impl BothWays {
    /// Waits until so many more were answered, both ways.
    pub fn more(&self, count: u64) -> Result<()> {
        let goal = |pinging: &Pinging| pinging.answered() + count;
        let goals = (goal(&self.to_us), goal(&self.to_charon));
        wait::until("more answers", LIMIT, || {
            let now = (self.to_us.answered(), self.to_charon.answered());
            let there = now.0 >= goals.0 && now.1 >= goals.1;
            Ok(if there { Ok(()) } else { Err(format!("{now:?} of {goals:?}")) })
        })
    }

    /// Stops, and fails if a single request was not answered exactly once and undamaged.
    pub fn none_lost(self) -> Result<u32> {
        let (to_us, to_charon) = (self.to_us.stop()?, self.to_charon.stop()?);
        for (way, answers) in [("to us", &to_us), ("to charon", &to_charon)] {
            ensure!(
                answers.lost() == 0 && answers.duplicates == 0 && answers.damaged == 0,
                "pings {way}: {}",
                summary(answers)
            );
        }
        Ok(to_us.sent + to_charon.sent)
    }
}

impl BothWays {
    /// Stops, and says in one line what was lost.
    pub fn summary(self) -> Result<String> {
        let (to_us, to_charon) = (self.to_us.stop()?, self.to_charon.stop()?);
        Ok(format!("to us: {}; to charon: {}", summary(&to_us), summary(&to_charon)))
    }
}

/// One line of what came back.
pub fn summary(answers: &Answers) -> String {
    format!(
        "{} sent, {} lost, {} twice, {} damaged, longest outage {} ms",
        answers.sent,
        answers.lost(),
        answers.duplicates,
        answers.damaged,
        answers.longest_outage.as_millis()
    )
}
