//! What the typed objects of one context share: whose they are, and what was dropped and is still to be ended.
//!
//! Nothing is lost by dropping an object early, on an error path say: the next call to a plane of its context ends it.

use crate::host::Host;
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
    /// Who ends what is dropped without being called: each with a number of its own.
    #[cfg(feature = "tokio")]
    watchers: Mutex<Vec<(u64, Arc<std::task::Waker>)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Objects {
    /// The one of a context, for each of its planes. It lives as long as the context does, so that nothing is forgotten
    /// while it has no plane.
    pub(crate) fn of(context: &Host) -> Arc<Objects> {
        let objects = context.attachment(|| Arc::new(Objects::default()));
        objects.downcast().unwrap_or_default()
    }

    pub(crate) fn bury(&self, what: Dropped) {
        lock(&self.dropped).push(what);
        #[cfg(feature = "tokio")]
        self.wake_watchers();
    }

    /// Has `waker` woken whenever something is dropped from now on.
    #[cfg(feature = "tokio")]
    pub(crate) fn watch(&self, number: u64, waker: &std::task::Waker) {
        // Cloned, woken and dropped without the lock: a waker is others' code, which may call us back.
        let mut waker = Arc::new(waker.clone());
        let mut watchers = lock(&self.watchers);
        match watchers.iter_mut().find(|(watcher, _)| *watcher == number) {
            Some((_, known)) => std::mem::swap(known, &mut waker),
            None => watchers.push((number, waker.clone())),
        }
        drop(watchers);
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn watch_no_more(&self, number: u64) {
        let gone: Vec<_> = lock(&self.watchers).extract_if(.., |(watcher, _)| *watcher == number).collect();
        drop(gone);
    }

    #[cfg(feature = "tokio")]
    fn wake_watchers(&self) {
        let watchers: Vec<_> = lock(&self.watchers).iter().map(|(_, waker)| waker.clone()).collect();
        watchers.iter().for_each(|waker| waker.wake_by_ref());
    }

    /// At most `most` of what was dropped, oldest first.
    pub(crate) fn take(&self, most: usize) -> Vec<Dropped> {
        let mut dropped = lock(&self.dropped);
        let count = dropped.len().min(most);
        dropped.drain(..count).collect()
    }
}

/// A hold on an engine's object: when the last share of it is dropped, the object is ended.
#[derive(Debug)]
pub struct Hold(Arc<Held>);

#[derive(Debug)]
struct Held {
    objects: Arc<Objects>,
    what: Mutex<Option<Dropped>>,
}

impl Hold {
    pub(crate) fn new(objects: &Arc<Objects>, what: Dropped) -> Hold {
        Hold(Arc::new(Held { objects: objects.clone(), what: Mutex::new(Some(what)) }))
    }

    /// Another hold on the same object, for an operation that uses it.
    #[cfg(feature = "tokio")]
    pub(crate) fn share(&self) -> Hold {
        Hold(self.0.clone())
    }

    /// It has ended already.
    pub(crate) fn ended(&mut self) {
        *lock(&self.0.what) = None;
    }

    /// Has it ended now, whoever else has a share.
    pub(crate) fn end(&self) {
        self.0.end();
    }

    pub(crate) fn is_of(&self, objects: &Arc<Objects>) -> bool {
        Arc::ptr_eq(&self.0.objects, objects)
    }
}

impl Held {
    fn end(&self) {
        // A statement of its own: the lock is not held while others are told.
        let what = lock(&self.what).take();
        if let Some(what) = what {
            self.objects.bury(what);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end();
    }
}

/// What of one plane nobody wants any more.
#[derive(Debug, Default)]
pub(crate) struct Unwanted {
    /// Operations whose results are given up.
    results: Mutex<Vec<u64>>,
    /// Mailboxes of peers that were dropped.
    mailboxes: Mutex<Vec<u32>>,
}

impl Unwanted {
    pub(crate) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut lock(&self.results))
    }

    pub(crate) fn give_up_mailbox(&self, number: u32) {
        lock(&self.mailboxes).push(number);
    }

    pub(crate) fn take_mailboxes(&self) -> Vec<u32> {
        std::mem::take(&mut lock(&self.mailboxes))
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
            lock(&self.unwanted.results).push(user_data);
        }
    }
}
