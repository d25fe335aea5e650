//! Threads for slow work: zeroing, mapping, copies of more than a slice.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

type Job = Box<dyn FnOnce() + Send>;

/// Work that a thread is at and others may join in.
pub(crate) trait Help: Send + Sync {
    /// Helps until there is nothing left to help with, or `is_wanted`: there is work that nobody is at. It is looked at
    /// often enough that nobody has to wait for a helper.
    fn help(&self, is_wanted: &dyn Fn() -> bool);
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// What a thread that finds no job may help with, while it lasts.
    invitations: Vec<Weak<dyn Help>>,
    /// Jobs taken and not done, and threads that help.
    running: usize,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Nothing waits or runs.
    idle: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Counts a job as done, also one that has panicked.
struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.running -= 1;
        if queue.running == 0 && queue.jobs.is_empty() {
            self.0.idle.notify_all();
        }
    }
}

/// A pool of threads. Jobs run in order of posting, as threads come free.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(crate) fn start(count: usize) -> std::io::Result<Workers> {
        let (queue, wake, idle) = (Mutex::new(Queue::default()), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { queue, wake, idle });
        let mut workers = Workers { shared, threads: Vec::new() };
        for index in 0..count.max(1) {
            let shared = workers.shared.clone();
            let thread = std::thread::Builder::new().name(format!("dmaplane-work{index}"));
            workers.threads.push(thread.spawn(move || work(&shared))?);
        }
        Ok(workers)
    }

    pub(crate) fn post(&self, job: impl FnOnce() + Send + 'static) {
        self.shared.queue().jobs.push_back(Box::new(job));
        self.shared.wake.notify_one();
    }

    /// Asks a thread that has nothing to do to help. Where all have, it does nothing.
    pub(crate) fn invite(&self, help: Weak<dyn Help>) {
        let mut queue = self.shared.queue();
        queue.invitations.retain(|other| other.strong_count() > 0);
        if queue.jobs.is_empty() && queue.running < self.threads.len() {
            queue.invitations.push(help);
            drop(queue);
            self.shared.wake.notify_one();
        }
    }

    /// Waits until all jobs are done, not beyond the deadline. A job that asks does not wait for itself.
    pub(crate) fn wait_idle(&self, deadline: Instant) {
        let own = std::thread::current().id();
        if self.threads.iter().any(|thread| thread.thread().id() == own) {
            return;
        }
        let mut queue = self.shared.queue();
        while queue.running > 0 || !queue.jobs.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.shared.idle.wait_timeout(queue, left);
            queue = woken.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }
}

fn work(shared: &Shared) {
    loop {
        let mut queue = shared.queue();
        let work = loop {
            if let Some(job) = queue.jobs.pop_front() {
                break Work::Job(job);
            }
            if let Some(help) = queue.invitations.pop() {
                break Work::Help(help);
            }
            if queue.closed {
                return;
            }
            queue = shared.wake.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
        };
        queue.running += 1;
        drop(queue);
        let _running = Running(shared);
        match work {
            Work::Job(job) => job(),
            Work::Help(help) => {
                if let Some(help) = help.upgrade() {
                    help.help(&|| !shared.queue().jobs.is_empty());
                }
            }
        }
    }
}

/// What a thread does next.
enum Work {
    Job(Job),
    Help(Weak<dyn Help>),
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.wake.notify_all();
        let own = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // The last reference may be dropped by a job itself.
            if thread.thread().id() != own {
                let _ = thread.join();
            }
        }
    }
}
