//! Writes the first inputs of each target into `corpus/`: what fuzzing begins with.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

fn write(target: &str, name: &str, octets: &[u8]) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), octets)
}

fn with_length(octets: &[u8]) -> Vec<u8> {
    [&(octets.len() as u16).to_be_bytes(), octets].concat()
}

fn toml_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    Ok(files)
}

fn main() -> io::Result<()> {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    for (target, folder) in [("config", config.clone()), ("scenario", config.join("lab"))] {
        for path in toml_files(&folder)? {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            write(target, &format!("seed-{name}"), &fs::read(&path)?)?;
        }
    }
    for (target, name, octets) in fuzz::seeds() {
        write(target, &format!("seed-{name}"), &octets)?;
    }
    write("demux", "seed-keepalive", &[&[0, 1][..], &with_length(&[0xff; 3])].concat())?;
    write("demux", "seed-ike", &[&[0, 60][..], &with_length(&[0; 61])].concat())
}
