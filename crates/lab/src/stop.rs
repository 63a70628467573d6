//! Ctrl-c, SIGTERM and SIGHUP: a flag that every wait of the lab looks at.

use crate::error::{LabError, Result};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Set once the user asked the lab to stop. Clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// A flag that nobody sets but [`Stop::set`].
    pub fn new() -> Stop {
        Stop::default()
    }

    /// A flag that SIGINT, SIGTERM and SIGHUP set. A second signal ends the process at once, and
    /// the kernel then removes what the lab built.
    pub fn on_signals() -> Result<Stop> {
        let stop = Stop::new();
        let flag = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(LabError::io("a runtime for signals"))?;
        let (mut interrupt, mut terminate, mut hang_up) = {
            let _inside = runtime.enter();
            let listen = |kind| signal(kind).map_err(LabError::io("listening for signals"));
            (
                listen(SignalKind::interrupt())?,
                listen(SignalKind::terminate())?,
                listen(SignalKind::hangup())?,
            )
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                runtime.block_on(async {
                    loop {
                        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hang_up.recv() => {} }
                        if flag.is_set() {
                            std::process::exit(130);
                        }
                        flag.set();
                    }
                });
            })
            .map_err(LabError::io("a thread for signals"))?;
        Ok(stop)
    }

    /// Asks everything that looks at this flag to stop.
    pub fn set(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Whether a stop was asked for.
    pub fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error when a stop was asked for.
    pub fn check(&self) -> Result<()> {
        if self.is_set() { Err(LabError::Interrupted) } else { Ok(()) }
    }

    /// Sleeps, and wakes with an error when a stop is asked for.
    pub fn sleep(&self, duration: Duration) -> Result<()> {
        let deadline = Instant::now() + duration;
        let mut set = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*set {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            set = self.0.1.wait_timeout(set, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Err(LabError::Interrupted)
    }

    /// Sleeps until a stop is asked for.
    pub fn wait(&self) {
        let mut set = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*set {
            set = self.0.1.wait(set).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Joins a thread, or leaves it behind when a stop is asked for.
    pub fn join<T>(&self, thread: JoinHandle<T>) -> Result<T> {
        while !thread.is_finished() {
            self.sleep(Duration::from_millis(2))?;
        }
        thread.join().map_err(|_| LabError::Unexpected("a thread of the lab panicked".into()))
    }
}
