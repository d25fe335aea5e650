//! Threads for slow work: zeroing, mapping, copies of more than a slice.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// A pool of threads. Jobs run in order of posting, as threads come free.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(crate) fn start(count: usize) -> std::io::Result<Workers> {
        let shared = Arc::new(Shared { queue: Mutex::new(Queue::default()), wake: Condvar::new() });
        let mut workers = Workers { shared, threads: Vec::new() };
        for index in 0..count.max(1) {
            let shared = workers.shared.clone();
            let thread = std::thread::Builder::new().name(format!("dmaplane-work{index}"));
            workers.threads.push(thread.spawn(move || work(&shared))?);
        }
        Ok(workers)
    }

    pub(crate) fn post(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.shared.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        queue.jobs.push_back(Box::new(job));
        drop(queue);
        self.shared.wake.notify_one();
    }
}

fn work(shared: &Shared) {
    loop {
        let mut queue = shared.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let job = loop {
            if let Some(job) = queue.jobs.pop_front() {
                break job;
            }
            if queue.closed {
                return;
            }
            queue = shared.wake.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
        };
        drop(queue);
        job();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).closed = true;
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
