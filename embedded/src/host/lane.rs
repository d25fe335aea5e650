//! Copies on workers: each can be stopped, also while it waits for a worker, and no peer keeps all workers busy.

use crate::runner::Shared;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// No worker has begun with it.
const WAITING: u8 = 0;
/// A worker touches the memory, and reports when it does not any more.
const RUNNING: u8 = 1;
/// Stopped before a worker began with it: none will.
const OVER: u8 = 2;

/// A copy, on its way to a worker or on one.
#[derive(Debug, Default)]
pub(crate) struct Job {
    state: AtomicU8,
    stop: AtomicBool,
}

impl Job {
    /// A worker begins with it; `false`: it is over, and has been reported.
    fn begin(&self) -> bool {
        // Acquire: nothing that we do to the memory may move ahead of it. Pairs with `stop`.
        self.state.compare_exchange(WAITING, RUNNING, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// What a copy looks at between its slices.
    pub(super) fn stop_flag(&self) -> &AtomicBool {
        &self.stop
    }

    pub(super) fn is_stopped(&self) -> bool {
        // Acquire: pairs with the release in `stop`.
        self.stop.load(Ordering::Acquire)
    }

    /// Ends it; `true`: it is over, nobody will touch the memory, and the caller is to report that. Else the worker
    /// does, soon.
    #[must_use]
    pub(super) fn stop(&self) -> bool {
        // Release: pairs with the copy's acquire when it looks.
        self.stop.store(true, Ordering::Release);
        // AcqRel: pairs with `begin`. Who reuses the memory after us comes after every copy that began.
        self.state.compare_exchange(WAITING, OVER, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

type Work = Box<dyn FnOnce(&Shared) + Send>;

/// One peer's copies, in order. They take turns with other work: after each one the lane waits in the workers' queue
/// again, so a peer that asks for much waits behind itself.
#[derive(Default)]
pub(crate) struct Lane(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    /// Places in the workers' queue, or workers.
    places: usize,
}

impl Lane {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Adds a copy. `work` is not called when the job is stopped before a worker has time for it.
    pub(super) fn post(
        self: &Arc<Lane>,
        shared: &Arc<Shared>,
        job: Arc<Job>,
        work: impl FnOnce(&Shared, &Arc<Job>) + Send + 'static,
    ) {
        let mut state = self.state();
        state.waiting.push_back(Box::new(move |shared| {
            if job.begin() {
                work(shared, &job);
            }
        }));
        // One worker is left to the others, where there is more than one.
        if state.places < shared.config.workers.saturating_sub(1).max(1) {
            state.places += 1;
            drop(state);
            self.queue_up(shared);
        }
    }

    fn queue_up(self: &Arc<Lane>, shared: &Arc<Shared>) {
        let (lane, weak) = (self.clone(), Arc::downgrade(shared));
        shared.workers.post(move || {
            let Some(shared) = weak.upgrade() else { return };
            let next = lane.state().waiting.pop_front();
            if let Some(work) = next {
                work(&shared);
            }
            let mut state = lane.state();
            if state.waiting.is_empty() {
                state.places -= 1;
                return;
            }
            drop(state);
            lane.queue_up(&shared);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    const WAIT: Duration = Duration::from_secs(10);

    /// HOST-19: a stop does not wait for the workers; what was stopped before it began is over at once.
    #[test]
    fn host_19_a_stop_waits_for_the_workers() {
        let shared = Shared::new(Config::default()).unwrap();
        let lane = Arc::new(Lane::default());
        let (begun, has_begun) = channel();
        let (go_on, may_go_on) = channel::<()>();
        let first = Arc::new(Job::default());
        lane.post(&shared, first.clone(), move |_, job| {
            begun.send(()).unwrap();
            may_go_on.recv().unwrap();
            assert!(job.is_stopped());
        });
        has_begun.recv_timeout(WAIT).unwrap();
        let second = Arc::new(Job::default());
        lane.post(&shared, second.clone(), |_, _| panic!("it was stopped"));
        assert!(second.stop() && !second.stop(), "reported once");
        assert!(!first.stop(), "a worker is at it, and reports");
        go_on.send(()).unwrap();
        let (done, is_done) = channel();
        lane.post(&shared, Arc::default(), move |_, _| done.send(()).unwrap());
        is_done.recv_timeout(WAIT).unwrap();
    }

    /// SEC-5: one peer's copies leave a worker to others.
    #[test]
    fn sec_5_one_peers_copies_keep_all_workers_busy() {
        let shared = Shared::new(Config { workers: 2, ..Config::default() }).unwrap();
        let (greedy, other) = (Arc::new(Lane::default()), Arc::new(Lane::default()));
        let mut ends = Vec::new();
        for _ in 0..8 {
            let (go_on, may_go_on) = channel::<()>();
            greedy.post(&shared, Arc::default(), move |_, _| assert!(may_go_on.recv().is_err()));
            ends.push(go_on);
        }
        let (done, is_done) = channel();
        other.post(&shared, Arc::default(), move |_, _| done.send(()).unwrap());
        is_done.recv_timeout(WAIT).unwrap();
    }
}
