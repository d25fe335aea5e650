//! The task that sees to a plane while nobody else does: it sleeps in the runtime's reactor until the ring's eventfd is
//! rung, or something is dropped.

use super::desk::{Next, Shared};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Visits in a row before other tasks have their turn.
const VISITS_MAX: u32 = 16;

/// Dropping it, which the runtime does when it is shut down, closes the plane.
pub(super) struct Driver {
    shared: Arc<Shared>,
    eventfd: AsyncFd<OwnedFd>,
}

impl Driver {
    /// To be called within a runtime.
    pub(super) fn new(shared: Arc<Shared>, eventfd: OwnedFd) -> std::io::Result<Driver> {
        // SAFETY: an `OwnedFd` is an open descriptor, and always the same, until it is dropped, which is when the
        // `AsyncFd` that owns it drops it: we only ever borrow that.
        let eventfd = unsafe { AsyncFd::register_with_interest(eventfd, Interest::READABLE) }?;
        Ok(Driver { shared, eventfd })
    }

    /// Registers for the next time that the eventfd is rung, forgetting earlier ones: before the visit that arms it, so
    /// that whatever comes after that visit's look wakes us.
    fn poll_rung(&self, context: &mut Context<'_>) -> Poll<std::io::Error> {
        loop {
            match ready!(self.eventfd.poll_read_ready(context)) {
                Ok(mut rung) => rung.clear_ready(),
                Err(error) => return Poll::Ready(error),
            }
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        for _ in 0..VISITS_MAX {
            if self.poll_rung(context).is_ready() {
                // The reactor is gone: nothing can be waited for.
                return Poll::Ready(());
            }
            match self.shared.drive(context.waker()) {
                Next::Sleep => return Poll::Pending,
                Next::LookAgain => {}
                Next::End => return Poll::Ready(()),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.close();
    }
}
