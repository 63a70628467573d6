//! The command line's side of the control socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use control::Request;

use crate::RunError;
pub use crate::server::Response;

/// How long a daemon may take: a reload reads files.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the daemon whose control socket is at `path`.
///
/// # Errors
/// Nobody answers there, or the daemon refuses ([`RunError::Refused`], with its reason).
pub fn ask(path: &Path, request: &Request) -> Result<Response, RunError> {
    let fault = |cause| RunError::ControlSocket { path: path.to_owned(), cause };
    let mut stream = UnixStream::connect(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            RunError::NotRunning { path: path.to_owned(), cause }
        }
        _ => fault(cause),
    })?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(fault)?;
    let mut line = serde_json::to_string(request).map_err(|e| fault(e.into()))?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(fault)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(fault)?;
    match serde_json::from_str(&answer).map_err(|e| fault(e.into()))? {
        Response::Error(why) => Err(RunError::Refused(why)),
        response => Ok(response),
    }
}
