//! Load that goes on until it is stopped, and counts what arrives while it runs.

use crate::error::{LabError, Result};
use crate::traffic::tcp::{CHUNK, Pair, accept, connect, listen};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a load did until now. Its parts are read one after the other, while it goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progressed {
    /// Octets of payload that arrived.
    pub octets: u64,
    /// Datagrams that arrived; 0 for TCP.
    pub packets: u64,
    /// Datagrams that were handed to the sender's kernel; 0 for TCP.
    pub sent: u64,
}

/// The counters of a load.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) octets: AtomicU64,
    pub(super) packets: AtomicU64,
    pub(super) sent: AtomicU64,
}

/// A running load. Dropping it ends it.
#[derive(Debug)]
pub struct Load {
    pub(super) counters: Arc<Counters>,
    pub(super) stop: Arc<AtomicBool>,
    /// Both ends of each connection, to wake whoever waits for the other end.
    streams: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub(super) fn new() -> Load {
        Load {
            counters: Arc::default(),
            stop: Arc::default(),
            streams: Vec::new(),
            threads: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, thread: JoinHandle<()>) {
        self.threads.push(thread);
    }

    /// What it did until now.
    pub fn progressed(&self) -> Progressed {
        let Counters { octets, packets, sent } = &*self.counters;
        Progressed {
            octets: octets.load(Relaxed),
            packets: packets.load(Relaxed),
            sent: sent.load(Relaxed),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for stream in &self.streams {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            // A panic of the thread already showed on standard error.
            let _ = thread.join();
        }
    }
}

/// TCP as fast as it goes over `flows` connections, or at `rate` bits a second over all of them.
pub fn tcp(pair: Pair<'_>, flows: usize, rate: Option<f64>) -> Result<Load> {
    let mut load = Load::new();
    let (listener, target) = listen(pair)?;
    for _ in 0..flows {
        let source = pair.source;
        let client = pair.client.run(move || connect(source, target))?;
        // The handshake is done by the kernels, so the connection is already there to accept.
        let server = accept(&listener)?;
        for stream in [&client, &server] {
            load.streams.push(stream.try_clone().map_err(LabError::io("a TCP stream"))?);
        }
        let (stop, counters) = (load.stop.clone(), load.counters.clone());
        let rate = rate.map(|rate| rate / flows as f64);
        load.add(pair.client.thread("tcp-load", move || send(client, rate, &stop))?);
        load.add(pair.server.thread("tcp-count", move || count(server, &counters))?);
    }
    Ok(load)
}

fn send(mut stream: TcpStream, rate: Option<f64>, stop: &AtomicBool) {
    let buffer = vec![0x5a; CHUNK];
    let interval = rate.map(|rate| Duration::from_secs_f64(CHUNK as f64 * 8.0 / rate));
    let mut next = Instant::now();
    while !stop.load(Relaxed) {
        if let Some(interval) = interval {
            // Sleeping, not spinning: the sender must not cost more than what it measures. What was
            // missed by a late wake-up is made up for, up to a tenth of a second.
            let now = Instant::now();
            std::thread::sleep(next.saturating_duration_since(now));
            next =
                (next + interval).max(now.checked_sub(Duration::from_millis(100)).unwrap_or(now));
        }
        if stream.write_all(&buffer).is_err() {
            return;
        }
    }
}

fn count(mut stream: TcpStream, counters: &Counters) {
    let mut buffer = vec![0; 2 * CHUNK];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        counters.octets.fetch_add(length as u64, Relaxed);
    }
}
