//! The service manager: told when we are ready, and fed while we are alive.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Tells the service manager that started us, if one did. One that cannot be told is no reason to
/// stop.
pub(crate) fn notify(state: NotifyState<'_>) {
    let _ = sd_notify::notify(&[state]);
}

/// Tells the service manager that a reload begins, which it wants with the time.
pub(crate) fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => drop(sd_notify::notify(&[NotifyState::Reloading, now])),
        Err(_) => notify(NotifyState::Reloading),
    }
}

/// Feeds the watchdog, if the service manager asks for it.
pub(crate) struct Watchdog {
    every: Option<Duration>,
    next: Instant,
}

impl Watchdog {
    pub(crate) fn new(now: Instant) -> Self {
        // Half of the interval, as sd_watchdog_enabled(3) recommends.
        let every = sd_notify::watchdog_enabled().map(|interval| interval / 2);
        Self { every, next: now }
    }

    /// When to be called again, at the latest.
    pub(crate) fn feed(&mut self, now: Instant) -> Option<Instant> {
        let every = self.every?;
        if now >= self.next {
            notify(NotifyState::Watchdog);
            self.next = now + every;
        }
        Some(self.next)
    }
}
