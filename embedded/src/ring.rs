//! A client's ring over the embedded host.

use crate::config::RunMode;
use crate::context::ContextError;
use crate::runner::Shared;
use dmaplane_ring::abi::{Cqe, Sqe};
use dmaplane_ring::queue::{Client, Full, HeapRing, RingMemory, RingWord};
use dmaplane_ring::wait::{self, Sharing};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a wait spins before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// How often a waiting client that has an eventfd looks whether the context is closed.
const LOOK_AT_CLOSED: Duration = Duration::from_millis(100);

/// One thread's submission and completion queues. Dropping it never blocks: operations in flight are cancelled as far
/// as they can be, and end without anybody's seeing.
pub struct Ring {
    client: Client<Arc<HeapRing>>,
    shared: Arc<Shared>,
    index: u32,
    /// What [`Ring::eventfd`] gives; made when first asked for.
    eventfd: Option<Arc<OwnedFd>>,
    /// The engine knows of it.
    attached: bool,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Ring {
    pub(crate) fn new(client: Client<Arc<HeapRing>>, shared: Arc<Shared>, index: u32) -> Ring {
        Ring { client, shared, index, eventfd: None, attached: true }
    }

    /// Writes an SQE; [`Ring::submit`] makes it visible. A full queue hands it back.
    #[inline]
    pub fn push(&mut self, sqe: impl Into<Sqe>) -> Result<(), Full<Sqe>> {
        self.client.submitter.push(&sqe.into())
    }

    /// Room for SQEs.
    pub fn free(&mut self) -> u32 {
        self.client.submitter.free()
    }

    /// Publishes what was pushed, as one batch. In inline mode the engine runs before this returns.
    #[inline]
    pub fn submit(&mut self) {
        match self.shared.config.mode {
            RunMode::Poller { .. } => {
                if self.client.submitter.publish() {
                    self.shared.ring_bell();
                }
            }
            // Whoever runs the engine next is somebody who is awake.
            RunMode::Enter => self.client.submitter.publish_without_doorbell(),
            RunMode::Inline => {
                self.client.submitter.publish_without_doorbell();
                self.shared.kick();
            }
        }
    }

    /// Takes one CQE.
    #[inline]
    pub fn reap_one(&mut self) -> Option<Cqe> {
        let cqe = self.client.completer.reap_one()?;
        self.give_room();
        Some(cqe)
    }

    /// Hands up to `most` CQEs to `each`; returns how many.
    #[inline]
    pub fn reap(&mut self, most: u32, each: impl FnMut(Cqe)) -> u32 {
        let count = self.client.completer.reap(most, each);
        if count > 0 {
            self.give_room();
        }
        count
    }

    #[inline]
    fn give_room(&mut self) {
        // An engine awaits room for what stands at the SQ's head. Where it runs on this thread it has just said how far
        // it has come, which costs less to look at than the fence below.
        if self.shared.config.mode == RunMode::Inline && self.client.submitter.all_taken() {
            return;
        }
        if self.client.completer.engine_awaits_room() {
            self.shared.ring_bell();
        }
    }

    /// Runs the engine on this thread.
    pub fn enter(&mut self) {
        self.shared.kick();
    }

    /// Waits until a CQE is there: `true`; or the time is up, or the context is closed: `false`. Spins first, then
    /// sleeps.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let polled = matches!(self.shared.config.mode, RunMode::Poller { .. });
        loop {
            let Client { submitter, completer } = &mut self.client;
            wait::spin_until(SPIN.min(timeout), || {
                match polled {
                    false => self.shared.kick(),
                    // The poller may have to wait for this very processor, which does nothing but wait for the poller.
                    true if wait::few_cores() => self.shared.assist(),
                    true => {}
                }
                completer.available() > 0 || submitter.closed()
            });
            // CLOSED is looked at first: CQEs from before it are visible to who sees it.
            let closed = submitter.closed();
            if completer.available() > 0 {
                return true;
            }
            let left = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return false,
                _ if closed => return false,
                left => left,
            };
            if let Some(tail) = completer.prepare_sleep()
                && !submitter.closed()
            {
                let word = completer.memory().clone();
                // Whose eventfd is rung is woken once when the context closes, which may be before it sleeps.
                let most = self.eventfd.as_ref().map(|_| LOOK_AT_CLOSED);
                let left = left.into_iter().chain(most).min();
                wait::sleep_while(word.word(RingWord::CqTail), tail, Sharing::Private, left);
            }
            completer.awake();
        }
    }

    /// A descriptor for `poll`, `epoll` or a runtime's reactor: it becomes readable when a CQE comes, or the context
    /// closes, after [`Ring::arm`] has returned `true`. Do not read it: [`Ring::disarm`] does.
    ///
    /// ```
    /// use dmaplane_embedded::{Config, Context};
    /// use dmaplane_ring::build::Timeout;
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let context = Context::open(Config::default())?;
    /// let mut ring = context.ring(16, 16)?;
    /// ring.push(Timeout::after_ns(1_000_000)).map_err(|_| "the SQ is full")?;
    /// ring.submit();
    /// let cqe = loop {
    ///     if let Some(cqe) = ring.reap_one() {
    ///         break cqe;
    ///     }
    ///     if ring.arm() {
    ///         let eventfd = ring.eventfd()?;
    ///         // Beside whatever else the program waits for.
    ///         poll(&mut [PollFd::new(&eventfd, PollFlags::IN)], None)?;
    ///     }
    ///     ring.disarm();
    /// };
    /// assert!(cqe.res < 0, "-ETIME");
    /// # Ok(())
    /// # }
    /// ```
    pub fn eventfd(&mut self) -> Result<BorrowedFd<'_>, ContextError> {
        if self.eventfd.is_none() {
            let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
            let eventfd = Arc::new(rustix::event::eventfd(0, flags).map_err(std::io::Error::from)?);
            let (index, theirs) = (self.index, eventfd.clone());
            self.shared.with_core(|_, core| core.host.set_eventfd(index, theirs));
            self.eventfd = Some(eventfd);
            // A wake-up between an `arm` and this call rang nothing.
            if self.client.completer.available() > 0 || self.closed() {
                self.ring_own();
            }
        }
        match &self.eventfd {
            Some(eventfd) => Ok(eventfd.as_fd()),
            None => Err(ContextError::System(std::io::ErrorKind::Unsupported.into())),
        }
    }

    /// Asks for the eventfd to be rung (clause WAKE-2). `false`: a CQE is there already, or the context is closed: do
    /// not wait. Call [`Ring::disarm`] afterwards either way.
    pub fn arm(&mut self) -> bool {
        self.client.completer.prepare_sleep().is_some() && !self.closed()
    }

    /// Ends an [`Ring::arm`]: CQEs ring nothing any more, and what they rang is taken.
    pub fn disarm(&mut self) {
        self.client.completer.awake();
        if let Some(eventfd) = &self.eventfd {
            // It does not block; nothing in it is as good.
            let _ = rustix::io::read(eventfd, &mut [0; 8]);
        }
    }

    fn ring_own(&self) {
        if let Some(eventfd) = &self.eventfd {
            let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
        }
    }

    /// Waits for one CQE and takes it.
    pub fn wait_one(&mut self, timeout: Duration) -> Option<Cqe> {
        if let Some(cqe) = self.reap_one() {
            return Some(cqe);
        }
        if self.wait(timeout) { self.reap_one() } else { None }
    }

    #[cfg(test)]
    pub(crate) fn memory(&self) -> &Arc<HeapRing> {
        self.client.completer.memory()
    }

    /// Whether the context is closing and takes nothing more.
    pub fn closed(&self) -> bool {
        self.client.submitter.closed()
    }
}

impl Ring {
    /// Ends it as dropping it does, and hands over the CQEs that were posted and never reaped: what those operations
    /// have made is the caller's. Others end without a CQE, and what they would have made is gone (clause TD-7).
    pub fn detach(mut self, mut each: impl FnMut(Cqe)) {
        self.leave();
        while let Some(cqe) = self.client.completer.reap_one() {
            each(cqe);
        }
    }

    fn leave(&mut self) {
        if !std::mem::take(&mut self.attached) {
            return;
        }
        let index = self.index;
        self.shared.with_core(|_, core| {
            core.engine.detach_ring(&mut core.host, index);
            core.inlets[index as usize] = None;
            core.host.drop_ring(index);
        });
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.leave();
    }
}
