//! Every type of identity that both sides know, on both sides at once.

use anyhow::{Context, Result, ensure};
use interop::pair::{Begins, Pair, Plan};
use lab::daemon::Kind;

/// In charon's spelling and in ours.
const IDENTITIES: [(&str, &str); 5] = [
    ("203.0.113.77", "203.0.113.77"),
    ("2001:db8:77::1", "2001:db8:77::1"),
    ("branch.example", "branch.example"),
    ("office@branch.example", "office@branch.example"),
    ("@#0badc0de", "keyid:0badc0de"),
];

#[test]
fn every_type_of_identity_whoever_begins() -> Result<()> {
    for (i, charons) in IDENTITIES.into_iter().enumerate() {
        // The other side has another type of identity each time.
        let ours = IDENTITIES[(i + 2) % IDENTITIES.len()];
        for (kind, begins) in [(Kind::Vgw, Begins::Charon), (Kind::Agent, Begins::Ours)] {
            let mut plan = Plan::new(kind, begins);
            (plan.charon.peer_id, plan.charon.our_id) = (charons.0.into(), ours.0.into());
            (plan.ours.peer_id, plan.ours.our_id) = (charons.1.into(), ours.1.into());
            let pair = Pair::up(&plan).with_context(|| format!("{charons:?} and {ours:?}"))?;
            let (_, tunnel) = pair.await_agreed()?;
            ensure!(tunnel.text("peer_identity") == charons.1, "{tunnel:?}");
            pair.traffic()?;
        }
    }
    Ok(())
}
