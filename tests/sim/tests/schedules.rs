//! What continuous integration runs of the simulation: ten thousand schedules, the schedules that
//! once failed, and proof that each invariant objects when it should.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use sim::{Fault, Kind, Options, Outcome, run_many, run_one};

fn lines(outcome: &Outcome) -> String {
    let texts: Vec<String> = outcome.violations.iter().map(ToString::to_string).collect();
    format!("seed {}: {}", outcome.seed, texts.join("; "))
}

#[test]
fn ten_thousand_schedules_break_nothing() {
    let options = Options { threads: 2, ..Options::default() };
    let totals = run_many(10_000, &options, |_| {}, |_| {});
    let failed: Vec<String> = totals.failed.iter().map(lines).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(totals.schedules, 10_000);
    // The schedules did what they are for.
    assert!(totals.claimed > 2_000_000, "{} packets had to arrive", totals.claimed);
    assert!(totals.lost > 1_000_000, "links lost {} datagrams", totals.lost);
}

#[test]
fn a_seed_replays_to_the_last_packet() {
    for seed in 1..=12 {
        let options = Options::default();
        assert_eq!(run_one(seed, &options), run_one(seed, &options));
    }
}

#[test]
fn threads_change_nothing_but_the_time() {
    let run = |threads| {
        run_many(24, &Options { seed: 77, threads, ..Options::default() }, |_| {}, |_| {})
    };
    assert_eq!(run(1), run(3));
}

/// Seeds of schedules that failed, with the steps that mattered and what was wrong.
const ONCE_FAILED: &[(&str, u64, &[usize])] = &[
    ("the old Child SA received nothing from the moment a reload replaced its IKE SA", 18, &[1]),
    ("the same, towards the other side", 19, &[1]),
    (
        "an IKE rekey that crossed a reload took the tunnel back from the new IKE SA",
        417,
        &[0, 1, 2, 3],
    ),
    ("the same with the VGW reloading", 412, &[0, 1, 2, 3]),
    ("the same with both sides rekeying", 454, &[0, 4, 6, 7, 8]),
    ("an IKE rekey in flight outlived the removal of its connection", 133, &[2, 3]),
    ("Child SAs of two crossing IKE rekeys were forgotten when the peer stopped", 657, &[0, 1]),
    ("a Child SA was sent to the address that its peer had when it was negotiated", 377, &[0, 2]),
    ("a path that healed during the last wait for an answer", 1719, &[0, 1, 2, 3, 4]),
    ("the same, a request of the agent's", 3666, &[0, 1, 2, 3]),
    ("the same, and later packets", 4474, &[0, 1, 2, 3, 4]),
    (
        "an address update came between the rekey of a Child SA and its DELETE",
        1_001_922,
        &[0, 1, 2],
    ),
    (
        "the peer gave up an IKE SA for one under negotiation, and what it had sent was not taken",
        505_192,
        &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    ),
    ("a third rekey was used for sending before the peer had it", 920, &[0, 1, 2, 3]),
    (
        "a Child SA ended under a living IKE SA, and nobody made a new one",
        3_006_548,
        &[0, 1, 2, 3, 4, 5, 6, 7, 8],
    ),
    (
        "a rekey in the new IKE SA was used when the old one went, before the peer had it",
        10_041_412,
        &[0, 1, 2],
    ),
    (
        "a Child SA whose DELETE was unanswered hid that the next one had to take over",
        20_058_652,
        &[0, 1, 2, 3, 4],
    ),
    ("the same after a NAT rebound", 20_060_420, &[0, 1, 2, 3, 4, 5, 6, 7]),
    (
        "an IKE SA of a rekey under way was deleted before its peer had the one of a reload",
        20_126_231,
        &[0, 1, 2],
    ),
    ("the same with two rekeys crossing", 20_053_633, &[0, 1, 2]),
    ("the same with two agents", 20_027_578, &[0, 1, 2, 3, 4, 5]),
    (
        "what the peer sent under an IKE SA that went before its Child SAs had moved was not taken",
        40_001_498,
        &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    ),
    (
        "of two crossing rekeys the wrong one stayed, because the peer had rekeyed the other by then",
        60_038_167,
        &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    ),
    (
        "the Child SA that stayed had sent before and was not used again",
        60_043_647,
        &[0, 1, 2, 3, 4],
    ),
    (
        "a late first packet of a Child SA that was rekeyed by then took the sending back to it",
        100_103_351,
        &[0, 1, 2, 3, 4],
    ),
    ("the same, and the tunnel stayed without one", 100_348_502, &[0, 1, 2, 3, 4]),
    (
        "one side saw two IKE SAs cross, the other did not, and each gave up the other's",
        100_317_895,
        &[0, 1, 2, 4],
    ),
    (
        "the same, and the one that was left had sent before and was never used again",
        100_524_591,
        &[0, 1, 2, 3, 4, 5, 6, 8, 9],
    ),
    (
        "a Child SA whose answer was lost for long was rekeyed, and its successor deleted unheard",
        200_034_516,
        &[0, 1, 2, 3, 4, 5, 6, 7],
    ),
    (
        "of two IKE rekeys that crossed a reload the successor ended first, and nothing was sent until \
         the reload's own Child SA was seen",
        400_107_098,
        &[0, 1],
    ),
    (
        "the peer's rekey of an IKE SA whose lifetime ended was taken for a tunnel that is still there",
        700_068_864,
        &[0, 1, 2, 3, 4, 5, 6, 8],
    ),
];

#[test]
fn what_once_failed_does_not_fail_again() {
    for (what, seed, steps) in ONCE_FAILED {
        for keep in [Some(steps.to_vec()), None] {
            let outcome = run_one(*seed, &Options { keep, ..Options::default() });
            assert!(outcome.violations.is_empty(), "{what}: {}", lines(&outcome));
        }
    }
}

/// Every fault put in on purpose, and the invariants of which at least one must object.
#[test]
fn every_fault_put_in_on_purpose_is_reported() {
    let faults: &[(Fault, &[Kind])] = &[
        (Fault::DeliverTwice, &[Kind::DeliveredTwice]),
        (Fault::Corrupt, &[Kind::NeverSent]),
        (Fault::Swallow, &[Kind::Lost]),
        (Fault::RepeatSequence, &[Kind::Reuse]),
        (Fault::KeepInbound, &[Kind::NotAtRest, Kind::Unbounded]),
        (Fault::NoGrace, &[Kind::Lost]),
        (Fault::Uncounted, &[Kind::Counters]),
        (Fault::Panic, &[Kind::Panic]),
        (Fault::KeepHalfOpen, &[Kind::NotAtRest]),
    ];
    for (fault, kinds) in faults {
        let reported = (1..=40).any(|seed| {
            let outcome = run_one(seed, &Options { fault: *fault, ..Options::default() });
            outcome.violations.iter().any(|v| kinds.contains(&v.kind))
        });
        assert!(reported, "{fault:?} goes unnoticed");
    }
}

#[test]
fn a_failing_schedule_is_cut_down_to_steps_that_still_fail() {
    let options = Options { fault: Fault::NoGrace, ..Options::default() };
    let failing = (1..=40).map(|seed| run_one(seed, &options)).find(|o| !o.violations.is_empty());
    let failing = failing.unwrap();
    let kept: Vec<usize> = sim::shrink(&failing, &options).into_iter().map(|(n, _)| n).collect();
    assert!(kept.len() as u64 <= failing.steps);
    let again = run_one(failing.seed, &Options { keep: Some(kept), ..options });
    assert_eq!(again.violations[0].kind, failing.violations[0].kind);
}
