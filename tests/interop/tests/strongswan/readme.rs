//! The `swanctl.conf` of the README, as it stands there, against `vgw`.

use anyhow::{Context, Result, ensure};
use interop::charon::Charon;
use interop::connection::Connection;
use interop::ours::{Ours, Settings};
use interop::traffic::both_ways;
use interop::world::{OURS_INSIDE, World};
use lab::daemon::Kind;
use lab::topology::{address, end};

const README: &str = include_str!("../../../../README.md");
const KEY: &str = "the.key_of_the_recipe";
/// The README's addresses: the gateway's two, and a host in the branch.
const GATEWAY: [&str; 2] = ["198.51.100.10", "198.51.100.11"];
const BRANCH: &str = "192.168.16.10";

#[test]
fn the_recipe_of_the_readme_works() -> Result<()> {
    let chapter = README.split_once("## Connect strongSwan").context("the chapter")?.1;
    let recipe = chapter.split("```").nth(1).context("the recipe")?;
    ensure!(recipe.contains("secret = \"…\""), "no place for the key:\n{recipe}");
    let world = World::new()?;
    for gateway in GATEWAY {
        address(end(&world.ours, "wan"), format!("{gateway}/24"))?;
    }
    address(end(&world.swan, "lo"), BRANCH)?;
    let mut connection = Connection::new("vpn-branch", "", GATEWAY[0]);
    connection.peer_id = "branch.example".into();
    connection.our_id = GATEWAY[0].into();
    connection.psk = KEY.into();
    connection.peer_networks = "192.168.16.0/20".into();
    let settings = Settings {
        kind: Kind::Vgw,
        listen: GATEWAY.map(str::to_owned).to_vec(),
        networks: vec!["10.0.0.0/16".into()],
        extra: String::new(),
    };
    let ours = Ours::start(&world.ours, &settings, &[connection])?;
    let charon = Charon::start(&world.swan, "")?;
    charon.route(&["10.0.0.0/16"])?;
    // `start_action = start` begins at once.
    charon.load_text(&recipe.replace('…', KEY))?;
    let tunnel = ours.await_up("vpn-branch").with_context(|| charon.last_lines(40))?;
    ensure!(
        tunnel.text("ike_suite") == "AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519",
        "{tunnel:?}"
    );
    both_ways(world.swan_inner(BRANCH), world.our_inner(OURS_INSIDE), 100_000)
}
