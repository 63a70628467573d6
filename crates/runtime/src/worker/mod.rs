//! The two threads of the packet path. Each owns one direction of the data plane, runs a batch to
//! completion, and talks to the control thread only by bounded channels.

mod counters;
mod inbound;
mod merging;
mod outbound;
mod pace;

use std::io;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread;

use dataplane::DataEvent;
use netio::priority::become_realtime;
use netio::wait::Waker;
use sa::Path;
use tokio::sync::{mpsc, oneshot};

pub use counters::{IoCounters, IoDrop};
pub use inbound::InboundWorker;
pub use merging::Merging;
pub use outbound::OutboundWorker;

/// Batches of one descriptor before commands are looked at again.
const BATCHES_IN_A_ROW: u32 = 8;

/// An IKE message that a data thread passed on, without its marker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlowDatagram {
    /// Where it came from, and to.
    pub path: Path,
    /// Its octets.
    pub message: Vec<u8>,
}

/// What a data thread tells the control thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The data plane noticed something.
    Data(DataEvent),
    /// A sealed datagram was larger than the MTU of its path.
    TooBig(Path),
}

/// What a data thread is told.
enum Order<C> {
    Apply(C),
    /// Answer when everything before it is applied.
    Sync(oneshot::Sender<()>),
    Stop,
}

/// The control thread's end of a worker. Dropping it stops the thread.
#[derive(Debug)]
pub struct Worker<C> {
    orders: std_mpsc::Sender<Order<C>>,
    waker: Arc<Waker>,
    exit: oneshot::Receiver<io::Result<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// The worker's end.
struct Orders<C> {
    queue: std_mpsc::Receiver<Order<C>>,
    waker: Arc<Waker>,
}

impl<C: Send + 'static> Worker<C> {
    fn spawn(
        name: &str,
        realtime: bool,
        body: impl FnOnce(Orders<C>) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, queue) = std_mpsc::channel();
        let waker = Arc::new(Waker::new()?);
        let (done, exit) = oneshot::channel();
        let theirs = Orders { queue, waker: Arc::clone(&waker) };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            // A panic drops `done`, which the control thread sees as well.
            let ready = if realtime { become_realtime() } else { Ok(()) };
            let _ = done.send(ready.and_then(|()| body(theirs)));
        })?;
        Ok(Self { orders, waker, exit, thread: Some(thread) })
    }

    /// Queues a command. It is applied in order, at once, and before any later batch.
    pub fn apply(&self, command: C) {
        self.queue(command);
        self.wake();
    }

    /// Queues a command that is applied in order, after the next [`Self::wake`] or
    /// [`Self::sync`]: of many commands only the last one needs to wake the worker.
    pub fn queue(&self, command: C) {
        // A worker that is gone is noticed by `failed`.
        let _ = self.orders.send(Order::Apply(command));
    }

    /// Lets the worker carry out what is queued.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Waits until every command queued so far is applied.
    pub async fn sync(&self) {
        let (done, applied) = oneshot::channel();
        let _ = self.orders.send(Order::Sync(done));
        self.waker.wake();
        let _ = applied.await;
    }

    /// Ends only if the thread does: with its error, or with the news that it panicked.
    pub async fn failed(&mut self) -> io::Error {
        match (&mut self.exit).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => io::Error::other("it ended without being told to"),
            Err(_) => io::Error::other("it panicked"),
        }
    }
}

impl<C> Drop for Worker<C> {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<C> Orders<C> {
    /// Carries out what is queued, when the waker is readable. `false` if the thread is to end.
    fn carry_out(&self, mut apply: impl FnMut(C)) -> bool {
        // First the wake, then the queue: whoever queues afterwards wakes again.
        self.waker.clear();
        loop {
            match self.queue.try_recv() {
                Ok(Order::Apply(command)) => apply(command),
                Ok(Order::Sync(done)) => drop(done.send(())),
                Ok(Order::Stop) | Err(std_mpsc::TryRecvError::Disconnected) => return false,
                Err(std_mpsc::TryRecvError::Empty) => return true,
            }
        }
    }
}

/// Lets workers carry out what is queued for them. If messages follow, waits for that: a peer may use an
/// SA as soon as it has our message, and forget one as soon as it has our answer. By then the one is
/// installed, and nothing leaves under the other any more.
pub(crate) async fn carry_out<I, O>(
    inbound: Option<&Worker<I>>,
    outbound: Option<&Worker<O>>,
    messages: bool,
) where
    I: Send + 'static,
    O: Send + 'static,
{
    if messages {
        let inbound = async {
            if let Some(worker) = inbound {
                worker.sync().await
            }
        };
        let outbound = async {
            if let Some(worker) = outbound {
                worker.sync().await
            }
        };
        tokio::join!(inbound, outbound);
    } else {
        inbound.into_iter().for_each(Worker::wake);
        outbound.into_iter().for_each(Worker::wake);
    }
}

/// Passes on what the data plane has to say, as far as there is room; the rest waits in the data
/// plane.
fn pass_events(notices: &mpsc::Sender<Notice>, mut poll: impl FnMut() -> Option<DataEvent>) {
    while let Ok(room) = notices.try_reserve() {
        match poll() {
            Some(event) => room.send(Notice::Data(event)),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::Mutex;
    use std::time::Duration;

    use netio::wait;

    use super::*;

    type Said = Arc<Mutex<Vec<&'static str>>>;

    /// A worker that is busy with packets until it gets leave, which is when the sender is dropped, and
    /// notes what it was told.
    fn busy(name: &'static str, said: &Said) -> (Worker<()>, std_mpsc::Sender<()>) {
        let said = Arc::clone(said);
        let (leave, done) = std_mpsc::channel();
        let body = move |orders: Orders<()>| {
            loop {
                wait::readable(&[orders.waker.as_fd()], None)?;
                let _ = done.recv();
                if !orders.carry_out(|()| said.lock().unwrap().push(name)) {
                    return Ok(());
                }
            }
        };
        (Worker::spawn(name, false, body).unwrap(), leave)
    }

    #[tokio::test]
    async fn messages_wait_for_both_workers_and_nothing_else_does() {
        let said = Said::default();
        let (inbound, leave_in) = busy("in", &said);
        let (outbound, leave_out) = busy("out", &said);
        inbound.queue(());
        outbound.queue(());
        carry_out(Some(&inbound), Some(&outbound), false).await;
        assert!(said.lock().unwrap().is_empty());
        let later = thread::spawn(move || {
            for leave in [leave_in, leave_out] {
                thread::sleep(Duration::from_millis(20));
                drop(leave);
            }
        });
        carry_out(Some(&inbound), Some(&outbound), true).await;
        assert_eq!(*said.lock().unwrap(), ["in", "out"]);
        later.join().unwrap();
    }
}
