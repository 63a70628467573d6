//! `cgw-agent`: the customer side of a site-to-site VPN.
#![forbid(unsafe_code)]

// One command line for both sides; a package of its own would hold nothing else.
#[path = "../../gateway/src/command.rs"]
mod command;
#[path = "../../gateway/src/wireguard.rs"]
mod wireguard;

use std::process::ExitCode;

use clap::Parser;
use control::config::Role;

#[derive(Parser)]
#[command(
    name = "cgw-agent",
    version,
    about = "A customer gateway: IKEv2 with ESP in UDP, or WireGuard, from a site to its cloud VPC",
    after_help = "Examples:
  cgw-agent check --config /etc/cgw-agent/cgw-agent.toml
  cgw-agent run --config /etc/cgw-agent/cgw-agent.toml
  cgw-agent status --config /etc/cgw-agent/cgw-agent.toml --json
  cgw-agent tunnel vpn-branch 2 rekey-child --config /etc/cgw-agent/cgw-agent.toml

Exit codes: 0 fine, 1 failed at run time, 2 configuration or command line refused."
)]
struct Line {
    #[command(subcommand)]
    command: command::Command,
}

fn main() -> ExitCode {
    command::execute(Role::Agent, Line::parse().command)
}
