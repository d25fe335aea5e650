//! What an asynchronous plane's lock guards: the operations in flight with who waits for them, what is being ended, and
//! the mailboxes. Whoever comes by serves all of it; the driver comes when the eventfd was rung.

use super::line::{Line, PEERS_MAX, Purpose, decode};
use crate::mailbox::{Arrival, Mailbox, SLOTS};
use crate::objects::{Dropped, Objects};
use dmaplane_ring::abi::{Cqe, Errno, Sqe};
use dmaplane_ring::build::{Cancel, Timeout};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// How many dropped objects are being ended at a time.
const BURIALS_MAX: usize = 64;
/// Rounds of pushing and reaping that one visit makes: inline, what was pushed has often ended at once.
const ROUNDS_MAX: u32 = 4;
/// After how long what was busy is tried again, at first and at most.
const RETRY_NS: u64 = 200_000;
const RETRY_NS_MAX: u64 = 50_000_000;

/// What an operation uses, kept until its terminal CQE although nobody waits for it any more.
pub(super) trait Resources: Send + 'static {
    /// The operation has ended.
    fn ended(self: Box<Self>, _cqe: &Cqe, _objects: &Arc<Objects>) {}
}

impl Resources for () {}

enum Progress {
    /// For its turn.
    Waits,
    Posted,
    Ended(Cqe),
}

struct Entry {
    progress: Progress,
    waker: Option<Waker>,
    /// It was asked to end; once is enough.
    is_cancelled: bool,
    /// The future is gone.
    left: Option<Box<dyn Resources>>,
}

struct Inbox {
    mailbox: Mailbox,
    /// Who waits for an arrival, by a number of their own. All are woken: whoever is dropped then costs nobody an
    /// arrival.
    waiters: Vec<(u64, Waker)>,
}

/// What is done once the lock is free again: it may take other locks, or run others' code.
#[derive(Default)]
struct Afterwards {
    wakers: Vec<Waker>,
    /// Wakers that nobody waits by any more: dropping one may run others' code as well.
    stale: Vec<Waker>,
    ended: Vec<(Box<dyn Resources>, Cqe)>,
    dropped: Vec<Box<dyn Resources>>,
    mailboxes: Vec<Mailbox>,
    /// For another plane of the context to end.
    buried: Vec<Dropped>,
}

struct Desk {
    /// `None`: the plane is closed.
    line: Option<Line>,
    /// Also those that have ended and whose futures have not looked yet; these outlive the line.
    entries: HashMap<u64, Entry>,
    /// By number: what is being ended.
    burials: HashMap<u64, Dropped>,
    /// What was busy.
    busy: Vec<Dropped>,
    retry_ns: u64,
    retrying: bool,
    inboxes: HashMap<u64, Inbox>,
    driver: Option<Waker>,
    /// For CQEs on their way.
    reaped: Vec<Cqe>,
}

/// The desk and what can be done at it.
pub(super) struct Shared {
    desk: Mutex<Desk>,
    pub(super) objects: Arc<Objects>,
}

/// What the driver does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Sleep,
    LookAgain,
    End,
}

impl Desk {
    fn serve(&mut self, objects: &Objects, after: &mut Afterwards) {
        for _ in 0..ROUNDS_MAX {
            self.collect(after);
            self.bury(objects);
            let Desk { line: Some(line), entries, .. } = self else { return };
            let pushed = line.push_waiting(|user_data| match entries.get_mut(&user_data) {
                Some(entry) => {
                    entry.progress = Progress::Posted;
                    true
                }
                None => decode(user_data).0 != Purpose::Operation,
            });
            if !pushed {
                return;
            }
        }
        // The rest is the driver's, so that this visit ends.
        after.wakers.extend(self.driver.clone());
    }

    fn collect(&mut self, after: &mut Afterwards) {
        let Some(line) = &mut self.line else { return };
        let mut reaped = std::mem::take(&mut self.reaped);
        line.reap(&mut reaped);
        for cqe in reaped.drain(..) {
            self.take(cqe, after);
        }
        self.reaped = reaped;
    }

    fn take(&mut self, cqe: Cqe, after: &mut Afterwards) {
        let (purpose, number) = decode(cqe.user_data);
        match purpose {
            Purpose::Operation => {
                let Some(entry) = self.entries.get_mut(&cqe.user_data) else { return };
                match entry.left.take() {
                    Some(left) => {
                        after.ended.push((left, cqe));
                        self.entries.remove(&cqe.user_data);
                    }
                    None => {
                        entry.progress = Progress::Ended(cqe);
                        after.wakers.extend(entry.waker.take());
                    }
                }
            }
            Purpose::Receive => {
                if let Some(inbox) = self.inboxes.get_mut(&(number / SLOTS)) {
                    if !inbox.mailbox.take(number % SLOTS, &cqe) {
                        // The line pushes no more than the ring has room for: this one is broken.
                        inbox.mailbox.closed = Some(Errno::ENOBUFS);
                    }
                    after.wakers.extend(inbox.waiters.drain(..).map(|(_, waker)| waker));
                }
            }
            Purpose::Burial => match self.burials.remove(&number) {
                Some(what) if cqe.res == Errno::EBUSY.as_result() => self.retry_later(what),
                _ => self.retry_ns = RETRY_NS,
            },
            Purpose::Retry => {
                self.retrying = false;
                for what in std::mem::take(&mut self.busy) {
                    self.begin_burial(what);
                }
            }
            Purpose::Cancel | Purpose::Probe => {}
        }
    }

    /// Ends what was dropped.
    fn bury(&mut self, objects: &Objects) {
        let room = BURIALS_MAX.saturating_sub(self.burials.len());
        if room > 0 && self.line.is_some() {
            objects.take(room).into_iter().for_each(|what| self.begin_burial(what));
        }
    }

    fn begin_burial(&mut self, what: Dropped) {
        let Some(line) = &mut self.line else {
            // For another plane of the context.
            return self.busy.push(what);
        };
        let number = line.number();
        line.enqueue(what.sqe(), Purpose::Burial, number);
        self.burials.insert(number, what);
    }

    /// Something uses it still, which may be another ring's and end without our hearing of it.
    fn retry_later(&mut self, what: Dropped) {
        self.busy.push(what);
        let Some(line) = self.line.as_mut().filter(|_| !self.retrying) else { return };
        line.enqueue(Timeout::after_ns(self.retry_ns).sqe(), Purpose::Retry, 0);
        self.retrying = true;
        self.retry_ns = (self.retry_ns * 2).min(RETRY_NS_MAX);
    }

    fn post_receive(&mut self, number: u64, slot: u64) {
        let Desk { line: Some(line), inboxes, .. } = self else { return };
        if let Some(sqe) = inboxes.get(&number).and_then(|inbox| inbox.mailbox.receive(slot)) {
            line.enqueue(sqe, Purpose::Receive, number * SLOTS + slot);
        }
    }

    /// What has become of an operation. `None`: the plane was closed meanwhile.
    fn poll(&mut self, user_data: u64, waker: Waker, after: &mut Afterwards) -> Poll<Option<Cqe>> {
        let Some(entry) = self.entries.get_mut(&user_data) else {
            after.stale.push(waker);
            return Poll::Ready(None);
        };
        if let Progress::Ended(cqe) = entry.progress {
            after.stale.extend(entry.waker.take().into_iter().chain([waker]));
            self.entries.remove(&user_data);
            return Poll::Ready(Some(cqe));
        }
        after.stale.extend(entry.waker.replace(waker));
        Poll::Pending
    }

    fn cancel(&mut self, user_data: u64) {
        let Desk { line: Some(line), entries, .. } = self else { return };
        let Some(entry) = entries.get_mut(&user_data) else { return };
        if std::mem::replace(&mut entry.is_cancelled, true) {
            return;
        }
        let number = line.number();
        line.enqueue(Cancel::by_user_data(user_data).sqe(), Purpose::Cancel, number);
    }
}

impl Shared {
    pub(super) fn new(line: Line, objects: Arc<Objects>) -> Shared {
        let desk = Desk {
            line: Some(line),
            entries: HashMap::new(),
            burials: HashMap::new(),
            busy: Vec::new(),
            retry_ns: RETRY_NS,
            retrying: false,
            inboxes: HashMap::new(),
            driver: None,
            reaped: Vec::new(),
        };
        Shared { desk: Mutex::new(desk), objects }
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<R>(&self, visit: impl FnOnce(&mut Desk, &mut Afterwards) -> R) -> R {
        let mut after = Afterwards::default();
        let result = visit(&mut self.lock(), &mut after);
        let Afterwards { wakers, stale, ended, dropped, mailboxes, buried } = after;
        drop(stale);
        wakers.into_iter().for_each(Waker::wake);
        buried.into_iter().for_each(|what| self.objects.bury(what));
        ended.into_iter().for_each(|(left, cqe)| left.ended(&cqe, &self.objects));
        drop((dropped, mailboxes));
        result
    }

    /// Begins an operation: its user_data, and what has become of it. `None`: the plane is closed.
    pub(super) fn begin(&self, sqe: Sqe, waker: &Waker) -> Option<(u64, Poll<Option<Cqe>>)> {
        // Cloned without the lock, as everything that is others' code.
        let waker = waker.clone();
        self.with(|desk, after| {
            let Some(line) = desk.line.as_mut() else {
                after.stale.push(waker);
                return None;
            };
            let number = line.number();
            let user_data = line.enqueue(sqe, Purpose::Operation, number);
            let entry = Entry { progress: Progress::Waits, waker: None, is_cancelled: false, left: None };
            desk.entries.insert(user_data, entry);
            desk.serve(&self.objects, after);
            Some((user_data, desk.poll(user_data, waker, after)))
        })
    }

    pub(super) fn poll(&self, user_data: u64, waker: &Waker) -> Poll<Option<Cqe>> {
        let waker = waker.clone();
        self.with(|desk, after| desk.poll(user_data, waker, after))
    }

    /// Asks for an operation to end. It goes on where the spec says -EALREADY: its peer's connection is not the price.
    pub(super) fn cancel(&self, user_data: u64) {
        self.with(|desk, after| {
            let Desk { line: Some(line), entries, .. } = desk else { return };
            let Some(entry) = entries.get_mut(&user_data) else { return };
            match entry.progress {
                Progress::Posted => {
                    desk.cancel(user_data);
                    desk.serve(&self.objects, after);
                }
                Progress::Waits => {
                    // As the engine would say it, which has never seen it.
                    line.remove(user_data);
                    let res = Errno::ECANCELED.as_result();
                    entry.progress = Progress::Ended(Cqe { user_data, res, ..Cqe::default() });
                    after.wakers.extend(entry.waker.take());
                }
                Progress::Ended(_) => {}
            }
        });
    }

    /// The future is gone: cancels the operation, and keeps what it uses until its terminal CQE.
    pub(super) fn give_up(&self, user_data: u64, left: Box<dyn Resources>) {
        self.with(|desk, after| {
            let Some(entry) = desk.entries.get_mut(&user_data) else {
                after.dropped.push(left);
                return;
            };
            match entry.progress {
                Progress::Waits => {
                    after.dropped.push(left);
                    after.stale.extend(entry.waker.take());
                    desk.entries.remove(&user_data);
                    let Desk { line: Some(line), entries, .. } = desk else { return };
                    line.forget_one(|user_data| {
                        decode(user_data).0 != Purpose::Operation || entries.contains_key(&user_data)
                    });
                }
                Progress::Posted => {
                    entry.left = Some(left);
                    after.stale.extend(entry.waker.take());
                    desk.cancel(user_data);
                    desk.serve(&self.objects, after);
                }
                Progress::Ended(cqe) => {
                    after.ended.push((left, cqe));
                    after.stale.extend(entry.waker.take());
                    desk.entries.remove(&user_data);
                }
            }
        });
    }

    /// A number that counts what has been asked of the ring.
    #[cfg(test)]
    pub(super) fn next_number(&self) -> u64 {
        self.lock().line.as_mut().map_or(0, Line::number)
    }

    /// Adds a mailbox and posts its receives. `None`: it is not needed, or there is no room for its receives.
    pub(super) fn add_mailbox(&self, mailbox: Mailbox) -> Option<u64> {
        self.with(|desk, after| {
            let Some(line) = desk.line.as_mut().filter(|_| desk.inboxes.len() < PEERS_MAX) else {
                after.mailboxes.push(mailbox);
                return None;
            };
            let number = line.number();
            desk.inboxes.insert(number, Inbox { mailbox, waiters: Vec::new() });
            (0..SLOTS).for_each(|slot| desk.post_receive(number, slot));
            desk.serve(&self.objects, after);
            Some(number)
        })
    }

    /// Forgets a mailbox. Its memory is busy until its receives have ended, so its peer is ended first.
    pub(super) fn remove_mailbox(&self, number: u64) {
        let inbox = self.lock().inboxes.remove(&number);
        for (_, waker) in inbox.into_iter().flat_map(|inbox| inbox.waiters) {
            waker.wake();
        }
    }

    /// Takes what has arrived. `None`: the mailbox is gone, and the plane closed.
    pub(super) fn poll_arrival(
        &self,
        number: u64,
        waiter: &mut Option<u64>,
        waker: &Waker,
    ) -> Poll<Option<Result<Arrival, Errno>>> {
        let mut waker = Some(waker.clone());
        let arrival = self.with(|desk, after| {
            desk.serve(&self.objects, after);
            let Some(inbox) = desk.inboxes.get_mut(&number) else { return Poll::Ready(None) };
            if let Some((slot, arrival)) = inbox.mailbox.arrived.pop_front() {
                if inbox.mailbox.closed.is_none() {
                    desk.post_receive(number, slot);
                }
                desk.serve(&self.objects, after);
                return Poll::Ready(Some(Ok(arrival)));
            }
            if let Some(errno) = inbox.mailbox.closed {
                return Poll::Ready(Some(Err(errno)));
            }
            let Some(line) = &mut desk.line else { return Poll::Ready(None) };
            let own = *waiter.get_or_insert_with(|| line.number());
            match inbox.waiters.iter_mut().find(|(waiter, _)| *waiter == own) {
                Some((_, known)) => after.stale.extend(waker.take().map(|new| std::mem::replace(known, new))),
                None => inbox.waiters.extend(waker.take().map(|waker| (own, waker))),
            }
            Poll::Pending
        });
        drop(waker);
        arrival
    }

    pub(super) fn wait_no_more(&self, number: u64, waiter: u64) {
        self.with(|desk, after| {
            let Some(inbox) = desk.inboxes.get_mut(&number) else { return };
            let gone = inbox.waiters.extract_if(.., |(other, _)| *other == waiter);
            after.stale.extend(gone.map(|(_, waker)| waker));
        });
    }

    /// The driver's visit.
    pub(super) fn drive(self: &Arc<Self>, waker: &Waker) -> Next {
        // Before the visit, so that what is dropped after its look wakes us.
        self.objects.watch(Arc::as_ptr(self) as u64, waker);
        let waker = waker.clone();
        let next = self.with(|desk, after| {
            after.stale.extend(desk.driver.replace(waker));
            match &mut desk.line {
                Some(line) => line.disarm(),
                None => return Next::End,
            }
            desk.serve(&self.objects, after);
            let Some(line) = &mut desk.line else { return Next::End };
            if line.arm() {
                Next::Sleep
            } else if line.closed() {
                Next::End
            } else {
                Next::LookAgain
            }
        });
        if next == Next::End {
            self.close();
        }
        next
    }

    /// Ends the plane: its ring is detached, whoever waits is told. What operations in flight use is let go of by the
    /// engine when they end; their buffers are freed by whoever serves the context next, or with it, and so is what was
    /// made and nobody has heard of.
    pub(super) fn close(self: &Arc<Self>) {
        self.with(|desk, after| {
            for cqe in desk.line.take().map(Line::end).unwrap_or_default() {
                desk.take(cqe, after);
            }
            desk.entries.retain(|_, entry| {
                after.wakers.extend(entry.waker.take());
                after.dropped.extend(entry.left.take());
                matches!(entry.progress, Progress::Ended(_))
            });
            for (_, inbox) in desk.inboxes.drain() {
                after.wakers.extend(inbox.waiters.into_iter().map(|(_, waker)| waker));
                after.mailboxes.push(inbox.mailbox);
            }
            after.wakers.extend(desk.driver.take());
            for what in desk.busy.drain(..).chain(desk.burials.drain().map(|(_, what)| what)) {
                after.buried.push(what);
            }
        });
        self.objects.watch_no_more(Arc::as_ptr(self) as u64);
    }
}
