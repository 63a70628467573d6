//! A daemon from start to stop.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use control::config::Role;
use control::gateway::Gateway;
use dataplane::Counters;
use ike::EndpointConfig;
use netio::priority::try_realtime;
use rand_core::OsRng;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::device::Device;
use crate::driver::Driver;
use crate::planes::Planes;
use crate::server::Server;
use crate::sockets::{IkeReceiver, Sockets, name_local_addresses};
use crate::{RunError, load, log};

/// Requests on the control socket that wait.
const REQUESTS: usize = 16;

/// Runs the daemon until SIGTERM or SIGINT, in the network namespace of the calling thread. SIGHUP
/// reads the configuration again.
///
/// # Errors
/// [`RunError`], in one line: what is missing, and what would be right.
pub fn run(role: Role, file: &Path) -> Result<(), RunError> {
    let (mut config, secrets) = load(role, file)?;
    log::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::system("start the event loop"))?;
    runtime.block_on(async {
        let realtime = config.low_latency && may_be_realtime();
        let sockets = Sockets::bind(&config, realtime)?;
        name_local_addresses(&mut config);
        let device = Device::open(&config, &Gateway::interface(&config)).await?;
        let counters = (Arc::<Counters>::default(), Arc::<Counters>::default());
        let (planes, inbox) = Planes::start(&config, &sockets, &device.tun, &counters, realtime)?;
        let ike_receivers: Vec<IkeReceiver> =
            sockets.ike.iter().map(IkeReceiver::new).collect::<Result<_, _>>()?;
        let (asked, requests) = mpsc::channel(REQUESTS);
        let server = Server::start(Path::new(&config.control_socket), asked).await?;
        info!(
            id = config.id,
            tun = device.tun.name(),
            offloads = ?device.tun.offloads(),
            ike_port = config.ike_port,
            nat_t_port = sockets.nat_t_port(),
            aead = %dataplane::aead_backend(),
            control_socket = config.control_socket,
            "{} {} runs",
            role.name(),
            env!("CARGO_PKG_VERSION"),
        );
        let endpoint = EndpointConfig {
            // 0 is no socket's port: nothing leaves without marker.
            ike_port: config.ike_port.unwrap_or(0),
            nat_t_port: sockets.nat_t_port(),
            ..EndpointConfig::default()
        };
        let rng = Box::new(OsRng);
        // What is configured does not move.
        let roams = role == Role::Agent && config.listen.is_empty();
        let gateway = Gateway::new(config, secrets, endpoint, rng, counters, Instant::now());
        let mut driver = Driver::new(role, file, gateway, planes, sockets, device, roams);
        let result = driver.drive(inbox, ike_receivers, requests).await;
        drop(server);
        driver.take_down().await;
        result
    })
}

/// Short queues without the priority would only lose packets, so both are left out then.
fn may_be_realtime() -> bool {
    let result = try_realtime();
    if let Err(error) = &result {
        warn!(%error, "low_latency needs CAP_SYS_NICE or an RLIMIT_RTPRIO of 10; it is off");
    }
    result.is_ok()
}
