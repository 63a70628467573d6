//! A link that is worse than a veth pair: the lab moves each frame from one TAP device to another
//! and loses, delays, repeats and reorders on the way, from a seed.
//!
//! TAP devices without offloads, not packet sockets on a veth pair: the kernel then cuts its
//! super-packets and completes its checksums before a frame gets here, as on a real wire.

use crate::error::{LabError, Result};
use crate::netns::Host;
use crate::random::SplitMix;
use crate::topology::End;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tun_tap::{Iface, Mode};

/// What the line does to each frame, in both directions.
#[derive(Clone, Debug, PartialEq)]
pub struct Impairment {
    /// How many of 100 frames vanish.
    pub loss_percent: f64,
    /// How many of 100 frames come twice.
    pub duplicate_percent: f64,
    /// How many of 100 frames are held back so that later ones overtake them.
    pub reorder_percent: f64,
    /// How long each frame is under way.
    pub delay: Duration,
    /// Up to how much longer, at random; the order is kept.
    pub jitter: Duration,
    /// Bits a second; none: as fast as the lab can.
    pub rate: Option<u64>,
    /// How long a frame may queue for the rate before it is dropped.
    pub queue: Duration,
}

impl Default for Impairment {
    fn default() -> Impairment {
        Impairment {
            loss_percent: 0.0,
            duplicate_percent: 0.0,
            reorder_percent: 0.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
            queue: Duration::from_millis(100),
        }
    }
}

impl Impairment {
    /// Whether it does nothing, so that a veth pair serves as well.
    pub fn is_none(&self) -> bool {
        *self == Impairment { queue: self.queue, ..Impairment::default() }
    }
}

/// How long a frame is held back at least, so that later frames overtake it.
const HELD_BACK: Duration = Duration::from_millis(2);

/// Frames that wait in one direction; more are dropped.
const QUEUE_FRAMES: usize = 20_000;

/// What happened to the frames of one direction.
#[derive(Debug, Default)]
pub struct Frames {
    /// Frames that arrived at the relay.
    pub seen: AtomicU64,
    /// Frames lost on purpose.
    pub lost: AtomicU64,
    /// Frames repeated on purpose.
    pub repeated: AtomicU64,
    /// Frames held back on purpose.
    pub reordered: AtomicU64,
    /// Frames dropped because the rate or the queue was exceeded.
    pub over_rate: AtomicU64,
}

/// A running relay. Dropping it removes both interfaces.
#[derive(Debug)]
pub struct Relay {
    frames: [Arc<Frames>; 2],
    directions: Vec<Arc<Direction>>,
    threads: Vec<JoinHandle<()>>,
    ends: Vec<Cleanup>,
}

/// Removes an interface, which also wakes the thread that reads it.
#[derive(Debug)]
struct Cleanup(Option<(std::sync::mpsc::Sender<()>, JoinHandle<()>)>);

impl Relay {
    /// Makes an interface at each end and starts to move frames between them.
    pub fn start(
        left: End<'_>,
        right: End<'_>,
        mtu: u16,
        impairment: &Impairment,
        seed: u64,
    ) -> Result<Relay> {
        let devices = [tap(left, mtu)?, tap(right, mtu)?];
        let mut relay = Relay {
            frames: Default::default(),
            directions: Vec::new(),
            threads: Vec::new(),
            ends: Vec::new(),
        };
        for end in [left, right] {
            relay.ends.push(Cleanup::new(end.host, end.interface)?);
        }
        for (index, frames) in relay.frames.iter().enumerate() {
            let direction = Arc::new(Direction::default());
            let (from, to) = (devices[index].clone(), devices[1 - index].clone());
            let line = Line {
                impairment: impairment.clone(),
                random: SplitMix::new(seed ^ ((index as u64 + 1) << 32)),
                free_at: Instant::now(),
                last_due: Instant::now(),
                frames: frames.clone(),
            };
            let queue = direction.clone();
            relay.threads.push(spawn("relay-in", move || {
                read_frames(&from, line, &queue, usize::from(mtu))
            })?);
            let queue = direction.clone();
            relay.threads.push(spawn("relay-out", move || queue.write_frames(&to))?);
            relay.directions.push(direction);
        }
        Ok(relay)
    }

    /// What happened so far: left to right, right to left.
    pub fn frames(&self) -> [&Frames; 2] {
        [&self.frames[0], &self.frames[1]]
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        for direction in &self.directions {
            direction.close();
        }
        for end in &mut self.ends {
            end.remove();
        }
        for thread in self.threads.drain(..) {
            // A panic of a relay thread already showed on standard error.
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map_err(LabError::io("a thread of a relay"))
}

fn tap(end: End<'_>, mtu: u16) -> Result<Arc<Iface>> {
    let name = end.interface.to_owned();
    let what =
        format!("{}: making the TAP device {name} (is /dev/net/tun there?)", end.host.name());
    let device = end
        .host
        .run(move || Iface::without_packet_info(&name, Mode::Tap))
        .map_err(LabError::io(what))?;
    end.host.ip(&format!("link set {} mtu {mtu} txqueuelen 1000 up", end.interface))?;
    Ok(Arc::new(device))
}

impl Cleanup {
    /// The thread that will remove the interface starts now, inside the host's namespace, because
    /// the host itself may be gone by then.
    fn new(host: &Host, interface: &str) -> Result<Cleanup> {
        let (sender, waits) = std::sync::mpsc::channel::<()>();
        let (name, host_name) = (interface.to_owned(), host.name().to_owned());
        let thread = host.thread("relay-end", move || {
            if waits.recv().is_ok() {
                // The interface may be gone already, with its namespace.
                let program = crate::process::Program::new("ip").args(["link", "del", &name]);
                let _ = program.output(&host_name);
            }
        })?;
        Ok(Cleanup(Some((sender, thread))))
    }

    fn remove(&mut self) {
        if let Some((sender, thread)) = self.0.take() {
            // It waits for exactly this, and reports nothing.
            let _ = sender.send(());
            let _ = thread.join();
        }
    }
}

/// The line in one direction, as the reading thread sees it.
struct Line {
    impairment: Impairment,
    random: SplitMix,
    /// When the last frame has left at the line's rate.
    free_at: Instant,
    /// When the last frame that keeps its place arrives.
    last_due: Instant,
    frames: Arc<Frames>,
}

impl Line {
    /// When a frame arrives at the other end; none: it does not.
    fn due(&mut self, octets: usize, now: Instant) -> Option<Instant> {
        self.frames.seen.fetch_add(1, Relaxed);
        if self.random.percent(self.impairment.loss_percent) {
            self.frames.lost.fetch_add(1, Relaxed);
            return None;
        }
        let mut sent = now;
        if let Some(rate) = self.impairment.rate {
            let start = self.free_at.max(now);
            if start.duration_since(now) > self.impairment.queue {
                self.frames.over_rate.fetch_add(1, Relaxed);
                return None;
            }
            sent = start + Duration::from_secs_f64(octets as f64 * 8.0 / rate.max(1) as f64);
            self.free_at = sent;
        }
        let due = sent + self.impairment.delay + self.impairment.jitter.mul_f64(self.random.unit());
        if self.random.percent(self.impairment.reorder_percent) {
            self.frames.reordered.fetch_add(1, Relaxed);
            return Some(due + HELD_BACK.max(self.impairment.delay / 2));
        }
        self.last_due = self.last_due.max(due);
        Some(self.last_due)
    }
}

fn read_frames(from: &Iface, mut line: Line, queue: &Direction, mtu: usize) {
    // Room for the Ethernet header and a VLAN tag.
    let mut buffer = vec![0; mtu + 18];
    // Reading fails when the interface is removed, and only then.
    while let Ok(length) = from.recv(&mut buffer) {
        let frame = &buffer[..length];
        let Some(due) = line.due(length, Instant::now()) else { continue };
        if line.random.percent(line.impairment.duplicate_percent) {
            line.frames.repeated.fetch_add(1, Relaxed);
            queue.push(due, frame);
        }
        if !queue.push(due, frame) {
            line.frames.over_rate.fetch_add(1, Relaxed);
        }
    }
}

/// Frames under way, by the time they arrive.
#[derive(Debug, Default)]
struct Direction {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: BinaryHeap<Flying>,
    count: u64,
    closed: bool,
}

/// Ordered so that the one which arrives first is the greatest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    due: std::cmp::Reverse<(Instant, u64)>,
    frame: Vec<u8>,
}

impl Direction {
    /// False when the queue is full.
    fn push(&self, due: Instant, frame: &[u8]) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.frames.len() >= QUEUE_FRAMES {
            return false;
        }
        let number = waiting.count;
        waiting.count += 1;
        waiting
            .frames
            .push(Flying { due: std::cmp::Reverse((due, number)), frame: frame.to_vec() });
        drop(waiting);
        self.changed.notify_one();
        true
    }

    fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_all();
    }

    fn write_frames(&self, to: &Iface) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while !waiting.closed {
            let now = Instant::now();
            match waiting.frames.peek().map(|flying| flying.due.0.0) {
                Some(due) if due <= now => {
                    let Some(flying) = waiting.frames.pop() else { continue };
                    drop(waiting);
                    // A frame for an interface that is down is lost, as on a real line.
                    let _ = to.send(&flying.frame);
                    waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                }
                Some(due) => {
                    let wait = due.saturating_duration_since(now);
                    waiting = self
                        .changed
                        .wait_timeout(waiting, wait)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
                None => {
                    waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(impairment: Impairment) -> Line {
        let now = Instant::now();
        Line {
            impairment,
            random: SplitMix::new(7),
            free_at: now,
            last_due: now,
            frames: Arc::default(),
        }
    }

    #[test]
    fn loses_as_many_as_asked_and_the_same_ones_from_the_same_seed() {
        let run = || {
            let mut line = line(Impairment { loss_percent: 10.0, ..Impairment::default() });
            let now = Instant::now();
            (0..10_000).map(|_| line.due(100, now).is_none()).collect::<Vec<_>>()
        };
        let lost = run().iter().filter(|lost| **lost).count();
        assert!((900..1100).contains(&lost), "{lost}");
        assert_eq!(run(), run());
    }

    #[test]
    fn a_rate_spaces_frames_and_drops_what_would_wait_too_long() {
        let mut line = line(Impairment {
            rate: Some(8_000_000),
            queue: Duration::from_millis(10),
            ..Impairment::default()
        });
        let now = line.free_at;
        // 1000 octets at 8 Mbit/s take one millisecond each.
        let due: Vec<_> = (0..20).map(|_| line.due(1000, now)).collect();
        assert_eq!(due[0], Some(now + Duration::from_millis(1)));
        assert_eq!(due[4], Some(now + Duration::from_millis(5)));
        assert_eq!(due.iter().filter(|due| due.is_none()).count(), 9);
        assert_eq!(line.frames.over_rate.load(Relaxed), 9);
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let mut steady = line(Impairment {
            delay: Duration::from_millis(5),
            jitter: Duration::from_millis(5),
            ..Impairment::default()
        });
        let now = Instant::now();
        let due: Vec<_> = (0..1000).filter_map(|_| steady.due(100, now)).collect();
        assert!(due.is_sorted());
        let mut mixed = line(Impairment { reorder_percent: 20.0, ..Impairment::default() });
        let due: Vec<_> = (0..1000).filter_map(|_| mixed.due(100, now)).collect();
        assert!(!due.is_sorted());
        assert_eq!(due.len(), 1000);
    }
}
