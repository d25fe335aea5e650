//! One operation as a future that owns what it uses.

use super::AsyncPlane;
use super::desk::Resources;
use crate::error::Error;
use crate::objects::{Dropped, Hold, Objects};
use dmaplane_ring::abi::{Cqe, Sqe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// An operation: nothing before its first poll; from then on in flight until its terminal CQE, whoever waits for it.
pub(super) struct Operation<R: Resources> {
    plane: AsyncPlane,
    what: &'static str,
    sqe: Sqe,
    user_data: Option<u64>,
    /// `None`: it has ended.
    resources: Option<R>,
}

// Nothing is pinned: what it uses is moved out of it, here or into the desk.
impl<R: Resources> Unpin for Operation<R> {}

impl<R: Resources> Operation<R> {
    pub(super) fn new(plane: &AsyncPlane, what: &'static str, sqe: Sqe, resources: R) -> Operation<R> {
        Operation { plane: plane.clone(), what, sqe, user_data: None, resources: Some(resources) }
    }

    /// Asks for its end, unless it has not begun.
    pub(super) fn cancel(&self) {
        if let (Some(user_data), true) = (self.user_data, self.resources.is_some()) {
            self.plane.shared().cancel(user_data);
        }
    }
}

impl<R: Resources> Future for Operation<R> {
    /// The CQE of a success, and what was used: not where the plane was closed under an operation in flight, since the
    /// engine may use it still.
    type Output = (Result<Cqe, Error>, Option<R>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let what = this.what;
        let ended = match this.user_data {
            Some(user_data) => this.plane.shared().poll(user_data, context.waker()),
            None => match this.plane.shared().begin(this.sqe, context.waker()) {
                Some((user_data, ended)) => {
                    this.user_data = Some(user_data);
                    ended
                }
                None => return Poll::Ready((Err(Error::Closed { what }), this.resources.take())),
            },
        };
        ended.map(|cqe| {
            let resources = this.resources.take();
            match cqe {
                None => (Err(Error::Closed { what }), None),
                Some(cqe) => (cqe.result().map(|_| cqe).map_err(|errno| Error::Operation { what, errno }), resources),
            }
        })
    }
}

impl<R: Resources> Drop for Operation<R> {
    fn drop(&mut self) {
        if let (Some(user_data), Some(resources)) = (self.user_data, self.resources.take()) {
            self.plane.shared().give_up(user_data, Box::new(resources));
        }
    }
}

/// An operation that makes an object: where nobody takes it, it is ended.
pub(super) struct Makes<R> {
    /// What a success has made, by its CQE's `word0`.
    pub(super) made: fn(u64) -> Option<Dropped>,
    pub(super) from: R,
}

impl<R: Send + 'static> Resources for Makes<R> {
    fn ended(self: Box<Self>, cqe: &Cqe, objects: &Arc<Objects>) {
        if cqe.res >= 0
            && let Some(what) = (self.made)(cqe.word0)
        {
            objects.bury(what);
        }
        // Only now what it was made of: a lease ends before its buffer.
        drop(self.from);
    }
}

/// An operation that ends an object; what that was on is free afterwards.
pub(super) struct Ends<R> {
    pub(super) hold: Hold,
    pub(super) target: R,
}

impl<R: Send + 'static> Resources for Ends<R> {
    fn ended(mut self: Box<Self>, cqe: &Cqe, _objects: &Arc<Objects>) {
        if cqe.res >= 0 {
            self.hold.ended();
        }
    }
}

/// An operation that uses objects, which nobody can end meanwhile.
pub(super) struct Uses<R>(pub(super) R);

impl<R: Send + 'static> Resources for Uses<R> {}
