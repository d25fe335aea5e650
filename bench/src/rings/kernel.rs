//! No-ops through io_uring, at its best: a batch is published once and handed over by one call.

use super::ours::sum_below;
use super::{CQ_ENTRIES, Pace, SQ_ENTRIES, spread};
use crate::sample::Measurement;
use anyhow::{Context as _, Result, bail, ensure};
use io_uring::{IoUring, SubmissionQueue, opcode, squeue};
use std::time::{Duration, Instant};

/// Looks at a full queue: seconds, in which the kernel's thread has run.
const LOOKS_MAX: u32 = 1 << 28;

/// A way to run io_uring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As it comes: a call hands a batch over.
    Enter,
    /// The same with what is said to make it faster: one thread, work done only in its calls, the ring registered, no
    /// index array.
    DeferTaskrun,
    /// A thread of the kernel polls.
    Sqpoll,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Enter => "enter",
            Mode::DeferTaskrun => "enter with DEFER_TASKRUN",
            Mode::Sqpoll => "SQPOLL",
        }
    }
}

pub struct Kernel(IoUring);

impl Kernel {
    /// A ring of the same sizes as ours, whose poller sleeps after as long.
    pub fn open(mode: Mode, idle: Duration) -> Result<Kernel> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(CQ_ENTRIES);
        match mode {
            Mode::Enter => {}
            Mode::DeferTaskrun => {
                builder.setup_single_issuer().setup_defer_taskrun().setup_no_sqarray();
            }
            Mode::Sqpoll => {
                builder.setup_sqpoll(idle.as_millis() as u32);
            }
        }
        let ring = builder.build(SQ_ENTRIES).context("io_uring_setup")?;
        if mode == Mode::DeferTaskrun {
            ring.submitter().register_ring_fd().context("registering the ring")?;
        }
        Ok(Kernel(ring))
    }

    /// Millions of operations a second.
    pub fn turns(&mut self, pace: Pace, operations: u64) -> Result<Measurement> {
        spread(|| self.some(pace, pace.depth))?;
        let start = Instant::now();
        self.some(pace, operations)?;
        Ok(Measurement::rate(operations, start))
    }

    fn some(&mut self, pace: Pace, operations: u64) -> Result<()> {
        let (submitter, mut sq, mut cq) = self.0.split();
        let Pace { batch, depth, .. } = pace;
        let (mut pushed, mut reaped, mut names, mut failed) = (0, 0, 0u64, 0u64);
        while reaped < operations {
            while pushed < operations && pushed - reaped + batch <= depth {
                for _ in 0..batch {
                    let entry = opcode::Nop::new().build().user_data(pushed);
                    push(&mut sq, &entry)?;
                    pushed += 1;
                }
                sq.sync();
                submitter.submit()?;
            }
            cq.sync();
            for cqe in &mut cq {
                reaped += 1;
                names = names.wrapping_add(cqe.user_data());
                failed += u64::from(cqe.result() < 0);
            }
            cq.sync();
        }
        ensure!(failed == 0, "{failed} of {operations} no-ops failed");
        ensure!(names == sum_below(operations), "completions carry other names than the operations had");
        Ok(())
    }
}

/// A polling thread of the kernel gives slots back after it has completed what was in them, so a full queue is looked
/// at again.
fn push(sq: &mut SubmissionQueue<'_>, entry: &squeue::Entry) -> Result<()> {
    for _ in 0..LOOKS_MAX {
        // SAFETY: a no-op refers to no memory.
        if unsafe { sq.push(entry) }.is_ok() {
            return Ok(());
        }
        sq.sync();
        std::hint::spin_loop();
    }
    bail!("the submission queue stays full")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rings::{BATCHED, ONE};

    #[test]
    fn each_mode_that_this_kernel_has_completes_all_operations() {
        let mut there = 0;
        for mode in [Mode::Enter, Mode::DeferTaskrun, Mode::Sqpoll] {
            match Kernel::open(mode, Duration::from_millis(1)) {
                Ok(mut kernel) => {
                    there += 1;
                    assert!(kernel.turns(BATCHED, 1 << 10).unwrap().value > 0.0, "{mode:?}");
                    assert!(kernel.turns(ONE, 1 << 6).unwrap().value > 0.0, "{mode:?}");
                }
                Err(error) => eprintln!("{mode:?}: {error:#}"),
            }
        }
        // Where io_uring is forbidden altogether there is nothing to test, and the bench says so by a failure.
        assert!(there > 0 || IoUring::new(8).is_err());
    }
}
