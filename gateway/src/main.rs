//! `vgw`: the cloud side of a site-to-site VPN.
#![forbid(unsafe_code)]

mod command;
mod wireguard;

use std::process::ExitCode;

use clap::Parser;
use control::config::Role;

#[derive(Parser)]
#[command(
    name = "vgw",
    version,
    about = "A virtual private gateway: IKEv2 with ESP in UDP, and WireGuard, for the cloud side of a site-to-site VPN",
    after_help = "Examples:
  vgw check --config /etc/vgw/vgw.toml
  vgw run --config /etc/vgw/vgw.toml
  vgw status --config /etc/vgw/vgw.toml --watch
  vgw tunnel vpn-branch 1 down --config /etc/vgw/vgw.toml
  vgw genkey > wg.key; vgw pubkey < wg.key
  vgw import-wg wg0.conf --id wg-branch --keys /etc/vgw

Exit codes: 0 fine, 1 failed at run time, 2 configuration or command line refused."
)]
struct Line {
    #[command(subcommand)]
    command: command::Command,
}

fn main() -> ExitCode {
    command::execute(Role::Vgw, Line::parse().command)
}
