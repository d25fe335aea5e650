//! The kernel's events by way of an io_uring: a poll that stays armed on each socket, and a completion for each edge.
//!
//! What has happened stands in the completion queue, in memory, so that a thread that polls sees it without a system
//! call; one that waits arms, disarms and waits in a single call. No bytes go this way: they are moved by calls that do
//! not block, so that none is outstanding when a transfer is stopped (clause TCP-7).
//!
//! A ring belongs to the thread that made it. Its work is deferred: it costs that thread nothing until it looks.

use super::events::Event;
use dmaplane_ring::abi::Errno;
use io_uring::{IoUring, cqueue, opcode, types};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Entries handed to the kernel at a time; more are handed over in several calls.
const ENTRIES: u32 = 128;
/// Completions that fit; the kernel keeps what does not.
const COMPLETIONS: u32 = 2048;
/// The name of a removal, of which nobody wants to hear.
const REMOVAL: u64 = u64::MAX;

/// A ring of one thread.
pub(crate) struct Uring(IoUring);

impl Uring {
    /// A ring of the calling thread: no other may use it.
    pub(crate) fn new() -> std::io::Result<Uring> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(COMPLETIONS).setup_clamp();
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        builder.dontfork().build(ENTRIES).map(Uring)
    }

    pub(crate) fn add(&mut self, name: u64, fd: BorrowedFd<'_>) -> std::io::Result<()> {
        let events = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
        let poll = opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), events as u32).multi(true);
        self.push(&poll.build().user_data(name))
    }

    /// The kernel keeps a socket open for as long as it is watched.
    pub(crate) fn remove(&mut self, name: u64) {
        // A removal of the poll would be refused while an event of it waits to be told.
        if let Err(error) = self.push(&opcode::AsyncCancel::new(name).build().user_data(REMOVAL)) {
            tracing::error!(%error, "tcp: the io_uring takes nothing; a socket stays watched that is not needed");
        }
    }

    fn push(&mut self, entry: &io_uring::squeue::Entry) -> std::io::Result<()> {
        // SAFETY: polls and removals name no memory.
        while unsafe { self.0.submission().push(entry) }.is_err() {
            self.0.submit()?;
        }
        Ok(())
    }

    /// Hands over what is queued and waits for events, at most until `deadline`. Returns early for any reason.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let waited = match left {
            Some(Duration::ZERO) => {
                self.look();
                return;
            }
            Some(left) => {
                let left = types::Timespec::from(left);
                self.0.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&left))
            }
            None => self.0.submit_and_wait(1),
        };
        if let Err(error) = waited
            && !matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN))
        {
            tracing::error!(%error, "tcp: the io_uring does not wait");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether there are events, found out without a system call unless there is something to be done.
    pub(crate) fn look(&mut self) -> bool {
        let submission = self.0.submission();
        let has_work = !submission.is_empty() || submission.taskrun() || submission.cq_overflow();
        drop(submission);
        if has_work {
            // What it cannot do now is there at the next look.
            let _ = self.0.submit();
        }
        !self.0.completion().is_empty()
    }

    /// Takes what has happened.
    pub(crate) fn take(&mut self, events: &mut Vec<Event>) {
        for entry in self.0.completion() {
            let (name, flags) = (entry.user_data(), entry.result());
            // Removed, or never armed for a socket that is gone.
            if name == REMOVAL || matches!(-flags, libc::ECANCELED | libc::EBADF | libc::ENOENT) {
                continue;
            }
            let has = |flag: i16| flags > 0 && flags & i32::from(flag) != 0;
            events.push(Event {
                name,
                readable: has(libc::POLLIN),
                writable: has(libc::POLLOUT),
                hung_up: has(libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR),
                again: !cqueue::more(entry.flags()),
                failed: (flags < 0).then(|| Errno::from_raw(-flags)),
            });
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use io_uring::register::Restriction;

    /// A ring whose every poll the kernel refuses, and how it does.
    pub fn failing() -> std::io::Result<(Uring, Errno)> {
        let mut builder = IoUring::builder();
        builder.setup_r_disabled().setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        let ring = builder.dontfork().build(ENTRIES)?;
        ring.submitter().register_restrictions(&mut [Restriction::sqe_op(opcode::Nop::CODE)])?;
        ring.submitter().register_enable_rings()?;
        Ok((Uring(ring), Errno::from_raw(libc::EACCES)))
    }
}
