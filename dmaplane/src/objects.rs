//! What the typed objects of one context share: whose they are, and what was dropped and is still to be ended.
//!
//! Nothing is lost by dropping an object early, on an error path say: the next call to a plane of its context ends it.

use dmaplane_embedded::Context;
use dmaplane_ring::abi::{BufferHandle, ImportHandle, LeaseHandle, ListHandle, PeerHandle, Sqe};
use dmaplane_ring::build::{Disconnect, Free, ImportRelease, LeaseRevoke, ListFree};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something that was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    Lease(LeaseHandle),
    Import(ImportHandle),
    List(ListHandle),
    Buffer(BufferHandle),
    Peer(PeerHandle),
}

impl Dropped {
    /// What ends it.
    pub(crate) fn sqe(self) -> Sqe {
        match self {
            Dropped::Lease(lease) => LeaseRevoke::now(lease).sqe(),
            Dropped::Import(import) => ImportRelease::new(import).sqe(),
            Dropped::List(list) => ListFree::new(list).sqe(),
            Dropped::Buffer(buffer) => Free::new(buffer).sqe(),
            Dropped::Peer(peer) => Disconnect::new(peer).sqe(),
        }
    }
}

/// One context's.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    /// In the order in which they were dropped: a lease before what it was on.
    dropped: Mutex<Vec<Dropped>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Objects {
    /// The one of a context, for each of its planes. It lives as long as the context does, so that nothing is forgotten
    /// while it has no plane.
    pub(crate) fn of(context: &Context) -> Arc<Objects> {
        let objects = context.attachment(|| Arc::new(Objects::default()));
        objects.downcast().unwrap_or_default()
    }

    pub(crate) fn bury(&self, what: Dropped) {
        lock(&self.dropped).push(what);
    }

    /// At most `most` of what was dropped, oldest first.
    pub(crate) fn take(&self, most: usize) -> Vec<Dropped> {
        let mut dropped = lock(&self.dropped);
        let count = dropped.len().min(most);
        dropped.drain(..count).collect()
    }
}

/// A hold on an engine's object: dropping it has the object ended.
#[derive(Debug)]
pub struct Hold {
    objects: Arc<Objects>,
    what: Option<Dropped>,
}

impl Hold {
    pub(crate) fn new(objects: &Arc<Objects>, what: Dropped) -> Hold {
        Hold { objects: objects.clone(), what: Some(what) }
    }

    /// It has ended already.
    pub(crate) fn ended(&mut self) {
        self.what = None;
    }

    pub(crate) fn is_of(&self, objects: &Arc<Objects>) -> bool {
        Arc::ptr_eq(&self.objects, objects)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(what) = self.what.take() {
            self.objects.bury(what);
        }
    }
}

/// Operations of one plane whose results nobody wants any more.
#[derive(Debug, Default)]
pub(crate) struct Unwanted(Mutex<Vec<u64>>);

impl Unwanted {
    pub(crate) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut lock(&self.0))
    }
}

/// The wish for an operation's result: dropping it gives the result up.
#[derive(Debug)]
pub(crate) struct Wish {
    unwanted: Arc<Unwanted>,
    user_data: Option<u64>,
}

impl Wish {
    pub(crate) fn new(unwanted: &Arc<Unwanted>, user_data: u64) -> Wish {
        Wish { unwanted: unwanted.clone(), user_data: Some(user_data) }
    }

    /// The result is there.
    pub(crate) fn fulfilled(&mut self) {
        self.user_data = None;
    }

    pub(crate) fn is_of(&self, unwanted: &Arc<Unwanted>) -> bool {
        Arc::ptr_eq(&self.unwanted, unwanted)
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        if let Some(user_data) = self.user_data.take() {
            lock(&self.unwanted.0).push(user_data);
        }
    }
}
