//! Every kind of mistake in a scenario, with its exact message.

use super::*;

const GOOD: &str = r#"description = "a branch"

[internet]
mtu = 1500

[vpc]
cidrs = ["10.0.0.0/16"]

[[vpc.host]]
name = "app"
addresses = ["10.0.1.10/24"]

[[site]]
name = "branch"
cidrs = ["192.168.0.0/16"]
nat = "source"

[[site.host]]
name = "desk"
addresses = ["192.168.1.10/24"]
"#;

fn refused(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    Scenario::parse(&GOOD.replacen(from, to, 1), "x.toml").unwrap_err().to_string()
}

#[test]
fn defaults_are_the_ones_of_the_documentation() {
    let scenario = Scenario::parse(GOOD, "x.toml").unwrap();
    assert_eq!(scenario.internet.family, Family::Ipv4);
    assert_eq!(scenario.path_mtu(&scenario.sites[0]), 1500);
    assert!(scenario.sites[0].line.impairment().is_none());
    assert_eq!(scenario.test.steps.len(), 6);
}

#[test]
fn each_mistake_is_named_with_its_line_and_key() {
    let table: &[(&str, &str, &str)] = &[
        (
            "nat = \"source\"",
            "nats = \"source\"",
            "x.toml:16: `site.nats`: unknown field `nats`, expected one of `name`, `type`, `cidrs`, `nat`, `host`, `line`, \
             `gateway`, `connection`, `tunnel`",
        ),
        (
            "nat = \"source\"",
            "nat = \"double\"",
            "x.toml:16: `site.nat`: unknown variant `double`, expected `none` or `source`",
        ),
        (
            "[[vpc.host]]",
            "[vpc.host]",
            "x.toml:9: `vpc.host`: invalid type: map, expected a sequence",
        ),
        (
            "mtu = 1500",
            "mtu = 100",
            "x.toml:4: `internet.mtu`: an MTU of 100: with IPv4 it is from 600 to 9000",
        ),
        (
            "mtu = 1500",
            "mtu = 1300\nfamily = \"ipv6\"",
            "x.toml:4: `internet.mtu`: an MTU of 1300: with IPv6 outside it is from 1400 to 9000",
        ),
        (
            "\"10.0.0.0/16\"",
            "\"10.0.1.0/16\"",
            "x.toml:7: `vpc.cidrs`: 10.0.1.0/16 has bits after its prefix: write 10.0.0.0/16",
        ),
        ("\"10.0.0.0/16\"", "\"10.0.0.0/33\"", "x.toml:7: `vpc.cidrs`: invalid IP address syntax"),
        (
            "\"10.0.0.0/16\"",
            "\"10.0.0.0/16\", \"198.18.3.0/24\"",
            "x.toml:7: `vpc.cidrs`: 198.18.3.0/24 overlaps 198.18.0.0/15, which the lab uses itself",
        ),
        (
            "\"192.168.0.0/16\"",
            "\"192.168.0.0/16\", \"10.0.5.0/24\"",
            "x.toml:15: `site.cidrs`: 10.0.5.0/24 overlaps 10.0.0.0/16 of the VPC",
        ),
        (
            "name = \"branch\"",
            "name = \"Branch 1\"",
            "x.toml:14: `site.name`: `Branch 1` is not a name: write 1 to 10 of a-z, 0-9 and -",
        ),
        (
            "name = \"branch\"",
            "name = \"vgw\"",
            "x.toml:14: `site.name`: `vgw` is taken: give the site another name",
        ),
        (
            "name = \"desk\"",
            "name = \"cgw\"",
            "x.toml:19: `site.host.name`: `cgw` is the name of a host that the lab adds",
        ),
        (
            "192.168.1.10/24",
            "192.168.1.10/32",
            "x.toml:20: `site.host.addresses`: 192.168.1.10/32: write the address with the prefix length of its \
             network, such as 192.168.1.10/24",
        ),
        (
            "192.168.1.10/24",
            "192.169.1.10/24",
            "x.toml:20: `site.host.addresses`: 192.169.1.10 is outside of the `cidrs` of its place",
        ),
        (
            "192.168.1.10/24",
            "192.168.1.1/24",
            "x.toml:20: `site.host.addresses`: 192.168.1.1 is the gateway's, or the network's own: use another address \
             of 192.168.1.0/24",
        ),
        (
            "[\"192.168.1.10/24\"]",
            "[\"192.168.1.10/24\"]\n[[site.host]]\nname = \"pc\"\naddresses = [\"192.168.2.10/24\"]",
            "x.toml:23: `site.host.addresses`: 192.168.2.10 is not in 192.168.1.0/24: all hosts of a place are in one \
             network of each family",
        ),
        (
            "[[site.host]]",
            "[site.line]\nloss_percent = 101\n[[site.host]]",
            "x.toml:19: `site.line.loss_percent`: 101 is not a percentage: write a number from 0 to 100",
        ),
        ("description = \"a branch\"", "", "x.toml:1: missing field `description`"),
        (
            "description = \"a branch\"",
            "description = a branch",
            "x.toml:1: `description`: string values must be quoted, expected literal string",
        ),
    ];
    for (from, to, message) in table {
        assert_eq!(refused(from, to), *message, "{from} -> {to}");
    }
}

#[test]
fn a_site_and_the_vpc_need_a_family_in_common() {
    let text =
        GOOD.replace("192.168.0.0/16", "fd12::/32").replace("192.168.1.10/24", "fd12::10/64");
    assert_eq!(
        Scenario::parse(&text, "x.toml").unwrap_err().to_string(),
        "x.toml:14: `site.name`: its hosts share no address family with the hosts of the VPC"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Scenario::load(Path::new("/nowhere/x.toml")).unwrap_err();
    assert_eq!(error.to_string(), "/nowhere/x.toml: No such file or directory (os error 2)");
}
