//! Cutting a failing schedule down to the steps that matter.

use crate::plan::Plan;
use crate::run::{Options, Outcome, run_one};

/// The steps that are left when no further one can be left out without losing the first violation
/// of `outcome`, with their numbers in the plan.
#[must_use]
pub fn shrink(outcome: &Outcome, options: &Options) -> Vec<(usize, String)> {
    let plan = Plan::draw(outcome.seed);
    let Some(kind) = outcome.violations.first().map(|v| v.kind) else { return Vec::new() };
    let mut kept =
        options.keep.clone().unwrap_or_else(|| (0..plan.steps.len()).collect::<Vec<_>>());
    let fails = |keep: &[usize]| {
        let options = Options { keep: Some(keep.to_vec()), trace: false, ..options.clone() };
        run_one(outcome.seed, &options).violations.iter().any(|v| v.kind == kind)
    };
    let mut at = kept.len();
    while at > 0 {
        at -= 1;
        let mut fewer = kept.clone();
        fewer.remove(at);
        if fails(&fewer) {
            kept = fewer;
        }
    }
    kept.into_iter().filter_map(|n| Some((n, format!("{:?}", plan.steps.get(n)?)))).collect()
}
