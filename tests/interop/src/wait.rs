//! Waiting for something that another process does.

use anyhow::{Result, anyhow};
use std::time::{Duration, Instant};

/// Longer than anything here takes, also on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Asks again and again until the answer is there. The error says what was seen last.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match ask()? {
            Ok(answer) => return Ok(answer),
            Err(last) if start.elapsed() > limit => {
                let seconds = limit.as_secs();
                return Err(anyhow!(
                    "{what}: not within {seconds} s; the last that was seen: {last}"
                ));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(25)),
        }
    }
}
