//! Running a model within printed bounds.

use std::io::Write;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Preemptions in one execution, unless `LOOM_MAX_PREEMPTIONS` says otherwise.
pub const PREEMPTIONS_MAX: usize = 3;

/// Runs a model through every execution within the bounds and prints how many there were.
#[track_caller]
pub fn check(model: impl Fn() + Send + Sync + 'static) {
    check_within(usize::MAX, model);
}

/// As [`check`], for a model that is too large for as many preemptions as that.
#[track_caller]
pub fn check_within(preemptions_max: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    let preemptions_max = preemptions_max.min(builder.preemption_bound.unwrap_or(PREEMPTIONS_MAX));
    builder.preemption_bound = Some(preemptions_max);
    let executions = Arc::new(AtomicU64::new(0));
    let counter = executions.clone();
    let start = Instant::now();
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let thread = std::thread::current();
    let place = Location::caller();
    let line = format!(
        "{} ({}): {} executions, all with at most {preemptions_max} preemptions, {:.1} s\n",
        thread.name().unwrap_or("model"),
        place.file(),
        executions.load(Ordering::Relaxed),
        start.elapsed().as_secs_f64()
    );
    // Not `println!`, which libtest would swallow: the bounds belong to the result.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
