//! News of addresses and routes, in namespaces of its own: needs root.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use std::time::Duration;

use common::{block_on, enter_fresh_namespace};
use netio::changes::Changes;
use netio::netlink::Link;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(100);

/// Whether something changed, and nothing more after that.
async fn changed(changes: &mut Changes) -> bool {
    let first = timeout(SOON, changes.next()).await;
    while timeout(QUIET, changes.next()).await.is_ok() {}
    first.is_ok_and(|result| result.is_ok())
}

#[test]
fn addresses_and_routes_of_both_families_are_news_and_nothing_else_is() {
    enter_fresh_namespace();
    block_on(async {
        let link = Link::find("lo").unwrap();
        let mut changes = Changes::new().unwrap();
        assert!(timeout(QUIET, changes.next()).await.is_err(), "nothing happened yet");
        for address in ["192.0.2.7/24", "2001:db8::7/64"] {
            link.add_address(address.parse().unwrap()).await.unwrap();
            assert!(changed(&mut changes).await, "{address}");
        }
        for net in ["198.51.100.0/24", "2001:db8:1::/48"] {
            link.add_route(net.parse().unwrap(), None).await.unwrap();
            assert!(changed(&mut changes).await, "a route to {net}");
            link.remove_route(net.parse().unwrap()).await.unwrap();
            assert!(changed(&mut changes).await, "no route to {net}");
        }
        link.set_mtu(9000).await.unwrap();
        assert!(timeout(QUIET, changes.next()).await.is_err(), "an MTU is no address");
    });
}

/// Whoever does not listen for a while misses nothing: more than the socket holds is news, too.
#[test]
fn a_routing_table_that_is_filled_is_news_at_the_end() {
    enter_fresh_namespace();
    block_on(async {
        let link = Link::find("lo").unwrap();
        let mut changes = Changes::new().unwrap();
        for third in 0..=255_u8 {
            for fourth in 0..16_u8 {
                let net = format!("10.9.{third}.{fourth}/32").parse().unwrap();
                link.add_route(net, None).await.unwrap();
            }
        }
        assert!(changed(&mut changes).await);
        link.add_address("192.0.2.7/24".parse().unwrap()).await.unwrap();
        assert!(changed(&mut changes).await, "it still works");
    });
}
