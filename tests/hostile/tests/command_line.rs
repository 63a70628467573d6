//! What a user sees of the running daemons: `status --watch`, which ports are open with
//! `ike_port = "off"`, and how `low_latency` ends with and without the right to it. Needs root.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::thread::sleep;
use std::time::{Duration, Instant};

use hostile::{Net, SCENARIO, Side, wait_until};
use lab::process::Program;
use serde_json::Value;

const SECOND: Duration = Duration::from_secs(1);

fn is_open(net: &mut Net, side: Side, port: u16) -> bool {
    let list = Program::new("ss").args(["-Hlun"]);
    let sockets = net.daemon(side).host().command(list).unwrap().stdout;
    sockets.lines().any(|line| line.contains(&format!(":{port} ")))
}

#[test]
fn a_watched_status_is_printed_each_second_until_the_daemon_or_the_reader_is_gone() {
    let mut net = Net::up(SCENARIO);
    assert!(is_open(&mut net, Side::Agent, 500), "unless it is switched off");
    let host = net.agent.host().clone();
    let begin = Instant::now();
    let mut watch = host.spawn(net.agent.line(&["status", "--watch"])).unwrap();
    let heads = |lines: &[String]| lines.iter().filter(|l| l.starts_with("cgw-agent ")).count();
    let log = watch.log().clone();
    wait_until("it is printed three times", || heads(&log.lines()) >= 3);
    let took = begin.elapsed();
    assert!((2 * SECOND..4 * SECOND).contains(&took), "at once, and once a second: {took:?}");
    let first = log.lines();
    assert!(first.iter().any(|l| l.contains(" tunnel 1: UP active for ")), "{first:?}");
    assert!(!first.iter().any(|l| l.contains('\x1b')), "codes of terminals in a pipe: {first:?}");

    // What changes is seen with the next one.
    let id = net.status(Side::Agent)["connections"][0]["id"].as_str().unwrap().to_owned();
    net.agent.tunnel(&id, 1, "down").unwrap();
    wait_until("the change is printed", || {
        let lines = log.lines();
        let last = lines.iter().rev().find(|l| l.contains(" tunnel 1: ")).unwrap();
        last.contains(" tunnel 1: DOWN standby") && lines.last().is_some()
    });
    assert!(log.contains("why: taken down by us"), "{:?}", log.last(4));

    // For programs: one document a line.
    let json = host.spawn(net.agent.line(&["status", "--watch", "--json"])).unwrap();
    wait_until("two documents", || json.log().lines().len() >= 2);
    for line in json.log().lines() {
        let status: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(status["connections"][0]["tunnels"][1]["state"], "UP");
    }
    drop(json);

    // On a terminal each stands in the place of the one before.
    let line = net.agent.line(&["status", "--watch"]).line();
    let terminal = Program::new("script").args(["-qec", &line, "/dev/null"]);
    let terminal = host.spawn(terminal).unwrap();
    wait_until("the screen is cleared twice", || {
        let clears = |line: &String| line.matches("\x1b[H\x1b[2J").count();
        terminal.log().lines().iter().map(clears).sum::<usize>() >= 2
    });
    drop(terminal);

    // Whoever reads has seen enough: no complaint.
    let shell = format!("{line} | head -n 1; echo \"${{PIPESTATUS[0]}}\"");
    let output = host.command(Program::new("bash").args(["-c", &shell])).unwrap();
    assert!(output.stdout.ends_with("\n0\n"), "{:?}", output.stdout);
    assert_eq!(output.stderr, "");

    // The daemon stops: so does the watch, and says why.
    net.agent.stop().unwrap();
    let status = watch.wait(5 * SECOND).unwrap();
    assert_eq!(status.code(), Some(1));
    sleep(SECOND / 10);
    assert!(log.last(1)[0].ends_with("is the daemon running?"), "{:?}", log.last(2));
}

#[test]
fn without_an_ike_port_everything_runs_over_4500_and_500_is_closed() {
    let gateway = "gateway = { relaxed_limits = true";
    assert_eq!(SCENARIO.matches(gateway).count(), 2, "both sides");
    let mut net = Net::up(&SCENARIO.replace(gateway, &format!("{gateway}, ike_port = \"off\"")));
    for side in [Side::Vgw, Side::Agent] {
        assert_eq!(
            [500, 4500].map(|port| is_open(&mut net, side, port)),
            [false, true],
            "{side:?}"
        );
        for tunnel in net.tunnels(side) {
            assert_eq!(tunnel["state"], "UP");
            let ends =
                [&tunnel["local"], &tunnel["peer"]].map(|end| end.as_str().unwrap().to_owned());
            assert!(ends.iter().any(|end| end.ends_with(":4500")), "{ends:?}");
        }
    }
    let ping = net.ping(Duration::from_millis(10));
    let id = net.status(Side::Agent)["connections"][0]["id"].as_str().unwrap().to_owned();
    for verb in ["rekey-ike", "rekey-child"] {
        net.agent.tunnel(&id, 1, verb).unwrap();
        sleep(SECOND / 2);
    }
    let answers = ping.stop().unwrap();
    assert!(answers.sent >= 90, "{}", answers.sent);
    assert_eq!((answers.lost(), answers.duplicates, answers.damaged), (0, 0, 0));
    for (counter, least) in [("sent", 4), ("received", 4)] {
        assert!(net.ike(Side::Agent, counter) >= least, "{counter}");
    }
    // An agent that begins again, too.
    net.agent.stop().unwrap();
    net.agent.start().unwrap();
    net.await_up();
}

/// Octets of the buffer of a socket on port 4500, as the kernel counts them: `skmem:(r0,rb…,…)`.
fn receive_buffer(net: &mut Net, side: Side) -> u64 {
    let list = Program::new("ss").args(["-HluanmO", "sport", "=", ":4500"]);
    let sockets = net.daemon(side).host().command(list).unwrap().stdout;
    let (_, rest) = sockets.split_once(",rb").unwrap();
    rest.split_once(',').unwrap().0.parse().unwrap()
}

/// The scheduling policies of a process's packet threads, by their names (`proc_pid_stat(5)`).
fn policies(pid: u32) -> Vec<(String, u32)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stats =
        tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap());
    let mut found: Vec<(String, u32)> = stats
        .filter_map(|stat| {
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
            let policy = rest.split_whitespace().nth(38)?.parse().unwrap();
            name.starts_with("packets-").then(|| (name.to_owned(), policy))
        })
        .collect();
    found.sort();
    found
}

#[test]
fn low_latency_is_real_time_priority_where_that_is_permitted_and_said_to_be_off_elsewhere() {
    let gateway = "gateway = { relaxed_limits = true";
    let scenario = SCENARIO.replace(gateway, &format!("{gateway}, low_latency = true"));
    let mut net = Net::build(&scenario);
    net.vgw = net.vgw.with_realtime();
    net.vgw.start().unwrap();
    net.agent.start().unwrap();
    net.await_up();
    let refused = "low_latency needs CAP_SYS_NICE or an RLIMIT_RTPRIO of 10; it is off";
    for (side, priority, policy) in [
        (Side::Vgw, "real-time", nix::libc::SCHED_FIFO),
        (Side::Agent, "normal", nix::libc::SCHED_OTHER),
    ] {
        assert_eq!(net.status(side)["engine"]["priority"], priority, "{side:?}");
        let process = net.daemon(side).process().unwrap();
        assert_eq!(process.log().contains(refused), side == Side::Agent, "{side:?}");
        let policy = u32::try_from(policy).unwrap();
        let both = ["packets-in", "packets-out"].map(|name| (name.to_owned(), policy));
        assert_eq!(policies(process.pid()), both, "{side:?}");
        let short = receive_buffer(&mut net, side) == 2 * 256 * 1024;
        assert_eq!(short, side == Side::Vgw, "{side:?}");
    }
    let answers = net.ping(Duration::from_millis(10));
    sleep(SECOND);
    let answers = answers.stop().unwrap();
    assert_eq!((answers.lost(), answers.duplicates, answers.damaged), (0, 0, 0));
}
