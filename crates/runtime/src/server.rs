//! The control socket: one JSON line in, one JSON line out, for the owner of the process alone.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::Request;
use control::status::Status;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::RunError;

/// The longest request line, in octets.
const MAX_REQUEST: u64 = 4096;
/// Connections at once; further ones wait in the listen queue.
const MAX_CONNECTIONS: usize = 32;
/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a daemon answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// Done.
    Done,
    /// The status document.
    Status(Box<Status>),
    /// Not done, and why.
    Error(String),
}

/// A request with the way back.
pub(crate) type Asked = (Request, oneshot::Sender<Response>);

/// The listening socket, which disappears with its owner.
pub(crate) struct Server {
    path: PathBuf,
    listening: JoinHandle<()>,
}

impl Server {
    /// Listens at `path`. A socket that nobody answers on is left over from a process that was
    /// killed, and is replaced; anything else at `path` is left alone.
    pub(crate) async fn start(path: &Path, asked: mpsc::Sender<Asked>) -> Result<Self, RunError> {
        let fault = |cause| RunError::ControlSocket { path: path.to_owned(), cause };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(fault)?;
        }
        remove_stale(path).await.map_err(fault)?;
        // Bound under another name and renamed, so that nobody can connect before the mode is set.
        let early = path.with_extension(format!("{}.new", std::process::id()));
        let _ = fs::remove_file(&early);
        let listener = UnixListener::bind(&early).map_err(fault)?;
        fs::set_permissions(&early, fs::Permissions::from_mode(0o600)).map_err(fault)?;
        fs::rename(&early, path).map_err(fault)?;
        let listening = tokio::spawn(listen(listener, asked));
        Ok(Self { path: path.to_owned(), listening })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listening.abort();
        let _ = fs::remove_file(&self.path);
    }
}

async fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(io::Error::other("there is a file of this name that is no socket"))
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => {
            Err(io::Error::other("another daemon answers on it"))
        }
        Ok(_) => fs::remove_file(path),
    }
}

async fn listen(listener: UnixListener, asked: mpsc::Sender<Asked>) {
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    // Out of descriptors: the others must end first.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let asked = asked.clone();
        connections.spawn(async move {
            let _ = tokio::time::timeout(PATIENCE, answer(stream, asked)).await;
        });
    }
}

async fn answer(stream: UnixStream, asked: mpsc::Sender<Asked>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(MAX_REQUEST)).read_line(&mut line).await?;
    let response = match serde_json::from_str::<Request>(&line) {
        Ok(request) => ask(request, &asked).await,
        Err(error) => Response::Error(format!("not a request: {error}")),
    };
    let mut text = serde_json::to_string(&response)?;
    text.push('\n');
    write.write_all(text.as_bytes()).await
}

async fn ask(request: Request, asked: &mpsc::Sender<Asked>) -> Response {
    let (back, response) = oneshot::channel();
    let stopping = || Response::Error("the daemon is stopping".into());
    if asked.send((request, back)).await.is_err() {
        return stopping();
    }
    response.await.unwrap_or_else(|_| stopping())
}
