//! Keys and files of WireGuard on the command line: `wg genkey`, `wg pubkey` and `wg genpsk`, and
//! files of `wg-quick` in and out.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Subcommand;
use control::config::Role;
use control::config::key::{parse_secret, print_secret, public_key};
use runtime::{RunError, keys};

use crate::command::File;

#[derive(Subcommand)]
pub(crate) enum WireGuardCommand {
    /// Print a new WireGuard private key
    Genkey,
    /// Read a WireGuard private key from standard input, and print its public key
    Pubkey,
    /// Print a new WireGuard pre-shared key
    Genpsk,
    /// Turn a file of wg-quick into tables of this configuration, and its keys into files
    ImportWg {
        /// The file of wg-quick
        file: PathBuf,
        /// Name of the connection; with more than one peer, -1, -2 and so on are added
        #[arg(long, default_value = "wg")]
        id: String,
        /// Where key files are written: the folder of the configuration
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        keys: PathBuf,
    },
    /// Print a WireGuard connection as a file of wg-quick, with its keys
    ExportWg {
        /// The connection's id
        connection: String,
        /// The file for the peer instead of ours, without the private key that only the peer has
        #[arg(long)]
        for_peer: bool,
        #[command(flatten)]
        file: File,
    },
}

pub(crate) fn dispatch(role: Role, command: WireGuardCommand) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match command {
        WireGuardCommand::Genkey => print(&mut out, &print_secret(&keys::private()))?,
        WireGuardCommand::Genpsk => print(&mut out, &print_secret(&keys::preshared()))?,
        WireGuardCommand::Pubkey => {
            let mut text = keys::buffer();
            io::stdin().lock().take(4096).read_to_string(&mut text)?;
            let private = parse_secret(text.trim()).map_err(|why| anyhow!(why))?;
            let public = public_key(&private).map_err(|why| anyhow!(why))?;
            print(&mut out, &public.to_string())?;
        }
        WireGuardCommand::ImportWg { file, id, keys } => import(&mut out, role, &file, &id, &keys)?,
        WireGuardCommand::ExportWg { connection, for_peer, file } => {
            let text = keys::export(role, &file.config, &connection, for_peer)?;
            write!(out, "{}", *text)?;
        }
    }
    Ok(())
}

fn print(out: &mut impl Write, line: &str) -> io::Result<()> {
    writeln!(out, "{line}")
}

fn import(
    out: &mut impl Write,
    role: Role,
    file: &Path,
    id: &str,
    folder: &Path,
) -> anyhow::Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if id.is_empty() || !id.chars().all(fine) {
        let text = format!("--id {id}: must be letters, digits, `-`, `_` and `.`");
        return Err(RunError::Config(text).into());
    }
    let quick = keys::read_wg_quick(file)?;
    let (text, files) = quick.connections(role, id);
    for (name, key) in files {
        let path = folder.join(name);
        keys::write(&path, &key).with_context(|| format!("{} is not written", path.display()))?;
        eprintln!("{}: written", path.display());
    }
    for (line, key) in &quick.ignored {
        eprintln!("{}:{line}: {key} is not taken over", file.display());
    }
    if let Some(port) = quick.listen_port {
        eprintln!(
            "{}: ListenPort {port}: set nat_t_port = {port}, or tell the peers the port that you have",
            file.display()
        );
    }
    write!(out, "{text}")?;
    Ok(())
}
