//! A worker as the router sees it: a process, orders to it, and what is heard of it.

use crate::demo::listen_to_words;
use crate::serve::message::{self, Order, Report};
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};

/// What is heard of a worker.
pub enum Heard {
    Said(Report),
    /// It is gone, and these were its last words.
    Gone(String),
}

/// Which worker, in which of its lives, and what.
pub struct FromWorker {
    pub worker: usize,
    pub life: u32,
    pub heard: Heard,
}

/// A worker's process. It ends with this value, and with the router.
pub struct WorkerProcess {
    child: Child,
    orders: Sender<Order>,
}

impl WorkerProcess {
    /// Starts it; what is heard of it goes to `router`.
    pub fn spawn(
        name: &'static str,
        command: &[OsString],
        (worker, life): (usize, u32),
        router: Sender<FromWorker>,
    ) -> Result<WorkerProcess> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut child = Command::new(program)
            .args(command)
            // All cores are busy with workers; the result does not depend on it.
            .env("RAYON_NUM_THREADS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting the worker {name}"))?;
        let mut input = child.stdin.take().context("the worker has no standard input")?;
        let mut output = child.stdout.take().context("the worker has no standard output")?;
        let errors = child.stderr.take().context("the worker has no standard error")?;
        let (orders, to_write) = channel::<Order>();
        // A worker that does not read must not hold up the router: its orders wait here.
        std::thread::spawn(move || to_write.iter().try_for_each(|order| message::write(&mut input, &order)));
        std::thread::spawn(move || {
            let words = std::thread::spawn(move || listen_to_words(name, errors));
            let tell = |heard| router.send(FromWorker { worker, life, heard }).is_ok();
            let broken = loop {
                match message::read(&mut output) {
                    Ok(Some(report)) => {
                        if !tell(Heard::Said(report)) {
                            break String::new();
                        }
                    }
                    Ok(None) => break String::new(),
                    Err(error) => break format!("{error:#}; "),
                }
            };
            tell(Heard::Gone(broken + &words.join().unwrap_or_default()));
        });
        Ok(WorkerProcess { child, orders })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Orders something. A worker that is gone is heard of otherwise.
    pub fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}
