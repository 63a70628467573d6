//! Network namespaces for tests: each one lives on its own thread and dies with it.
#![allow(dead_code, reason = "not every test file needs all of it")]
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::net::IpAddr;
use std::sync::mpsc;
use std::thread;

use netio::netlink::Link;
use netio::tun::{Tun, TunMode};

/// Moves the calling thread into an empty network namespace with loopback up.
pub fn enter_fresh_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap_or_else(|errno| {
        panic!("this test makes a network namespace and needs root (CAP_SYS_ADMIN): {errno}")
    });
    block_on(async { Link::find("lo").unwrap().set_up().await.unwrap() });
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// A device that is up, with `address` on it.
pub fn tun(name: &str, mode: TunMode, address: &str, mtu: u16) -> Tun {
    let tun = Tun::open(name, mode).unwrap();
    block_on(async {
        let link = Link::find(name).unwrap();
        link.set_mtu(mtu).await.unwrap();
        link.set_up().await.unwrap();
        link.add_address(address.parse().unwrap()).await.unwrap();
    });
    tun
}

/// A host of its own: a thread in a fresh namespace that runs what it is given.
pub struct Host {
    jobs: mpsc::Sender<Box<dyn FnOnce() + Send>>,
}

impl Host {
    pub fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        thread::spawn(move || {
            enter_fresh_namespace();
            queue.into_iter().for_each(|job| job());
        });
        Self { jobs }
    }

    /// Runs `job` there and waits for its result.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        self.jobs.send(Box::new(move || drop(done.send(job())))).unwrap();
        result.recv().expect("the host's thread panicked")
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
