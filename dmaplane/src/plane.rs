//! A plane: one ring, and a way to wait for each of its operations.

pub(crate) mod connection;
mod lease;
pub(crate) mod placement;
mod staging;
pub(crate) mod started;

use crate::buffer::{Buffer, List};
use crate::error::Error;
use crate::host::{Host, Ring};
use crate::mailbox::{Mailbox, SLOTS};
use crate::objects::{Dropped, Hold, Objects, Unwanted};
use dmaplane_embedded::{Config, Context, Usage};
use dmaplane_ring::abi::{BufferHandle, Cqe, Errno, ListHandle, Run, Sqe};
use dmaplane_ring::build::{Cancel, Free, ListFree, ListPrepare, PagePlacement};
use staging::{Makes, Staging};
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SQ_ENTRIES: u32 = 256;
const CQ_ENTRIES: u32 = 1024;
/// How long an operation that only needs this host may take before something is badly wrong.
const LOCAL_PATIENCE: Duration = Duration::from_secs(120);
/// High bit of a user_data: a receive's. Then 31 bits of mailbox and 32 of slot.
const MAILBOX: u64 = 1 << 63;
/// The next bit: what ends a dropped object.
const BURIAL: u64 = 1 << 62;
/// How many of those are in flight at most: they must not crowd out what somebody waits for.
const BURIALS_MAX: usize = 64;
/// How long a blocking transfer may take unless [`Plane::set_patience`] says otherwise.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long after a receive found no room on the ring it is posted again.
const REPOST_DELAY: Duration = Duration::from_millis(5);

/// One thread's ring over a context, with the bookkeeping that turns CQEs into results.
#[derive(Debug)]
pub struct Plane {
    ring: Ring,
    context: Host,
    /// Shared with the context's other planes and with every object.
    objects: Arc<Objects>,
    patience: Duration,
    next_user_data: u64,
    /// CQEs that came while another was waited for.
    finished: HashMap<u64, Cqe>,
    /// Operations in flight whose results nobody wants.
    unwanted: HashSet<u64>,
    /// Those of them that were dropped since the last call.
    given_up: Arc<Unwanted>,
    /// What is being ended, by user_data.
    burials: HashMap<u64, Dropped>,
    /// What operations in flight make, by user_data: ended where nobody wants it.
    makes: HashMap<u64, Makes>,
    staging: Staging,
    /// CQEs were taken since the last [`Plane::wait`].
    has_news: bool,
    mailboxes: HashMap<u32, Mailbox>,
    next_mailbox: u32,
    /// Receives that the ring had no room for, by mailbox and slot, and when they are tried again.
    unposted: VecDeque<(u32, u64)>,
    repost_at: Instant,
    /// For addresses and tokens on their way in and out.
    scratch: Option<Buffer>,
}

impl Plane {
    /// Opens a context of its own.
    pub fn open(config: Config) -> Result<Plane, Error> {
        Plane::of(&Host::open(config)?)
    }

    /// Opens a context of the kernel driver's, at `/dev/dmaplane` mostly. Of the configuration the run mode and the
    /// limits count, the latter within the driver's bounds; a poller is a kernel thread, which wants CAP_SYS_NICE, and
    /// in the other modes the engine runs in the calls of its clients and on the kernel's work queues. Peers meet at
    /// `local:NAME`.
    pub fn open_device(path: impl AsRef<Path>, config: &Config) -> Result<Plane, Error> {
        Plane::of(&Host::open_device(path.as_ref(), config)?)
    }

    /// Another plane of this one's context, for another thread. Planes of a context share its objects.
    pub fn sibling(&self) -> Result<Plane, Error> {
        Plane::of(&self.context)
    }

    /// A plane of a context that you have opened.
    ///
    /// # Safety
    /// Neither a ring nor a mapping of the context is used on this plane's buffers in a way that its types do not see:
    /// nothing writes to memory that somebody has a slice of, and nothing reads what somebody has a mutable slice of.
    pub unsafe fn attach(context: &Context) -> Result<Plane, Error> {
        Plane::of(&Host::Embedded(context.clone()))
    }

    fn of(context: &Host) -> Result<Plane, Error> {
        let ring = context.ring(SQ_ENTRIES, CQ_ENTRIES)?;
        let mut plane = Plane {
            ring,
            context: context.clone(),
            objects: Objects::of(context),
            patience: PATIENCE,
            next_user_data: 1,
            finished: HashMap::new(),
            unwanted: HashSet::new(),
            given_up: Arc::default(),
            burials: HashMap::new(),
            makes: HashMap::new(),
            staging: Staging::default(),
            has_news: false,
            mailboxes: HashMap::new(),
            next_mailbox: 0,
            unposted: VecDeque::new(),
            repost_at: Instant::now(),
            scratch: None,
        };
        plane.scratch = Some(plane.alloc(4096)?);
        plane.keep_one_staged()?;
        Ok(plane)
    }

    /// Bounds the blocking transfers and [`Plane::import`]: 60 s unless set. One that takes longer is cancelled by
    /// force, which ends its peer's connection.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn context(&self) -> &Host {
        &self.context
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    pub(crate) fn given_up(&self) -> &Arc<Unwanted> {
        &self.given_up
    }

    pub(crate) fn hold(&self, what: Dropped) -> Hold {
        Hold::new(&self.objects, what)
    }

    /// Refuses another context's object: its handle means something else here.
    pub(crate) fn check(&self, what: &'static str, hold: &Hold) -> Result<(), Error> {
        if hold.is_of(&self.objects) { Ok(()) } else { Err(Error::Foreign { what }) }
    }

    /// Ends what was dropped. What is still in use is tried again with a later call.
    fn bury(&mut self) {
        for user_data in self.given_up.take() {
            match self.finished.remove(&user_data) {
                Some(cqe) => self.discard(&cqe),
                None => {
                    self.unwanted.insert(user_data);
                }
            }
        }
        // Late arrivals find no mailbox; its memory is free when its receives have ended.
        for number in self.given_up.take_mailboxes() {
            self.mailboxes.remove(&number);
        }
        let room = BURIALS_MAX.saturating_sub(self.burials.len());
        for what in self.objects.take(room) {
            let mut sqe = what.sqe();
            sqe.user_data = BURIAL | self.next_user_data;
            self.next_user_data += 1;
            self.burials.insert(sqe.user_data, what);
            self.push(sqe);
        }
    }

    /// What the context has in use.
    pub fn usage(&self) -> Usage {
        self.context.usage()
    }

    /// Pushes an SQE and publishes it; its user_data, which [`Plane::finish`] takes.
    pub(crate) fn begin(&mut self, mut sqe: Sqe) -> u64 {
        self.bury();
        let user_data = self.next_user_data;
        self.next_user_data += 1;
        sqe.user_data = user_data;
        self.push(sqe);
        user_data
    }

    /// Pushes an SQE whose result nobody wants.
    pub(crate) fn begin_unwanted(&mut self, sqe: Sqe) {
        let user_data = self.begin(sqe);
        self.unwanted.insert(user_data);
    }

    fn push(&mut self, sqe: Sqe) {
        let mut sqe = sqe;
        while let Err(full) = self.ring.push(sqe) {
            // The engine is behind: let it work, and make room for its CQEs.
            sqe = full.0;
            self.ring.submit();
            self.ring.enter();
            self.collect();
            std::thread::yield_now();
        }
        self.ring.submit();
    }

    /// Takes CQEs that are there: as many as the CQ holds, so that it ends whatever peers do.
    fn collect(&mut self) {
        for _ in 0..CQ_ENTRIES {
            let Some(cqe) = self.ring.reap_one() else { return };
            self.has_news = true;
            if cqe.user_data & MAILBOX != 0 {
                let (number, slot) = ((cqe.user_data & !MAILBOX) >> 32, cqe.user_data & 0xffff_ffff);
                let mailbox = self.mailboxes.get_mut(&(number as u32));
                if mailbox.is_some_and(|mailbox| !mailbox.take(slot, &cqe)) {
                    self.unposted.push_back((number as u32, slot));
                }
            } else if let Some(what) = self.burials.remove(&cqe.user_data) {
                if cqe.res == Errno::EBUSY.as_result() {
                    self.objects.bury(what);
                }
            } else {
                self.unstage(cqe.user_data);
                if self.unwanted.remove(&cqe.user_data) {
                    self.discard(&cqe);
                } else {
                    self.finished.insert(cqe.user_data, cqe);
                }
            }
        }
    }

    /// The CQE of an operation, if it has ended.
    pub(crate) fn poll(&mut self, user_data: u64) -> Option<Cqe> {
        self.collect();
        self.finished.remove(&user_data)
    }

    /// Waits for an operation's CQE. `None`: the time is up, and the operation is still in flight.
    pub(crate) fn finish(&mut self, user_data: u64, patience: Duration) -> Option<Cqe> {
        let deadline = Instant::now().checked_add(patience);
        loop {
            if let Some(cqe) = self.poll(user_data) {
                return Some(cqe);
            }
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return None;
            }
            self.ring.wait(left.min(Duration::from_secs(3600)));
        }
    }

    /// Does one operation and waits for its end. Past its patience it is cancelled by force, so that its memory is ours
    /// again either way.
    pub(crate) fn call(&mut self, what: &'static str, sqe: Sqe, patience: Duration) -> Result<Cqe, Error> {
        let user_data = self.begin(sqe);
        self.end_of(what, user_data, patience)
    }

    fn end_of(&mut self, what: &'static str, user_data: u64, patience: Duration) -> Result<Cqe, Error> {
        let cqe = match self.finish(user_data, patience) {
            Some(cqe) => cqe,
            None => {
                self.begin_unwanted(Cancel::by_user_data(user_data).force().sqe());
                let cqe = self.finish(user_data, LOCAL_PATIENCE);
                match cqe {
                    Some(cqe) if cqe.res >= 0 => cqe,
                    late => {
                        if late.is_none() {
                            self.unwanted.insert(user_data);
                        }
                        return Err(Error::TimedOut { what, waited: patience });
                    }
                }
            }
        };
        match cqe.result() {
            Ok(_) => Ok(cqe),
            Err(errno) => Err(Error::Operation { what, errno }),
        }
    }

    /// Waits until something may have come for one of this plane's operations or peers: `false` when nothing has.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        // What came while a call waited for something else is not in the ring any more.
        if std::mem::take(&mut self.has_news) {
            return true;
        }
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let left = deadline.map_or(timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
            if self.ring.wait(left.min(self.until_repost())) {
                return true;
            }
            if self.unposted.is_empty() || left.is_zero() {
                return false;
            }
            self.repost();
        }
    }

    /// How long a wait is at most: room for a receive makes no sound.
    fn until_repost(&self) -> Duration {
        if self.unposted.is_empty() { Duration::MAX } else { REPOST_DELAY }
    }

    /// Posts receives again that the ring had no room for: a few, and not sooner than there may be some.
    fn repost(&mut self) {
        if self.unposted.is_empty() || Instant::now() < self.repost_at {
            return;
        }
        self.repost_at = Instant::now() + REPOST_DELAY;
        let few = self.unposted.len().min(SLOTS as usize);
        for (number, slot) in self.unposted.drain(..few).collect::<Vec<_>>() {
            self.post_receive(number, slot);
        }
    }

    fn local(&mut self, what: &'static str, sqe: Sqe) -> Result<Cqe, Error> {
        self.call(what, sqe, LOCAL_PATIENCE)
    }

    /// Allocates zeroed memory anywhere; its length is rounded up to pages.
    pub fn alloc(&mut self, length_bytes: u64) -> Result<Buffer, Error> {
        self.alloc_placed(length_bytes, PagePlacement::Any)
    }

    fn buffer_of(&self, what: &'static str, bits: u64) -> Result<Buffer, Error> {
        let handle = BufferHandle::from_bits(bits).ok_or(Error::Operation { what, errno: Errno::EIO })?;
        let hold = self.hold(Dropped::Buffer(handle));
        Ok(Buffer { handle, mapping: self.context.map(handle)?, hold })
    }

    /// Frees a buffer now; one that is dropped is freed by a later call.
    pub fn free(&mut self, buffer: Buffer) -> Result<(), Error> {
        let what = "freeing a buffer";
        let Buffer { handle, mapping, mut hold } = buffer;
        self.check(what, &hold)?;
        // What somebody still looks at is not recycled.
        drop(mapping);
        self.local(what, Free::new(handle).sqe())?;
        hold.ended();
        Ok(())
    }

    /// Makes a list of segments over buffers, which it takes. Each run names its buffer by its position in `buffers`.
    pub fn prepare_list(&mut self, buffers: Vec<Buffer>, runs: &[(usize, Run)]) -> Result<List, Error> {
        let (handle, segments) = self.list_of(&buffers, runs)?;
        Ok(List { handle, segments, hold: self.hold(Dropped::List(handle)), buffers })
    }

    /// Makes a list of some of another list's memory, which the other keeps. For one request's blocks of a pool: lease
    /// this one, not the pool.
    ///
    /// # Safety
    /// While a lease on the new list is live, or an operation uses it, nobody has a slice of the memory that it names,
    /// save that what is only read may be read: the types tie such slices to `of` alone.
    pub unsafe fn sublist(&mut self, of: &List, runs: &[(usize, Run)]) -> Result<List, Error> {
        let (handle, segments) = self.list_of(&of.buffers, runs)?;
        Ok(List { handle, segments, hold: self.hold(Dropped::List(handle)), buffers: Vec::new() })
    }

    fn list_of(&mut self, buffers: &[Buffer], runs: &[(usize, Run)]) -> Result<(ListHandle, u64), Error> {
        let what = "preparing a list";
        buffers.iter().try_for_each(|buffer| self.check(what, &buffer.hold))?;
        let mut table = self.stage(runs.len() as u64 * Run::BYTES)?;
        for (place, (buffer, run)) in table.as_mut_slice().chunks_exact_mut(Run::BYTES as usize).zip(runs) {
            let buffer = buffers.get(*buffer).ok_or(Error::Operation { what, errno: Errno::EBADF })?;
            let run = Run { buffer: buffer.handle.handle().bits(), ..*run };
            for (bytes, word) in place.chunks_exact_mut(8).zip(run.to_words()) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
        let prepare = ListPrepare::new(table.handle, 0, runs.len() as u64);
        let sqe = prepare.map_err(|source| Error::Value { what, source })?.sqe();
        let cqe = self.call_staged(what, sqe, table, LOCAL_PATIENCE)?;
        let handle = ListHandle::from_bits(cqe.word0).ok_or(Error::Operation { what, errno: Errno::EIO })?;
        Ok((handle, cqe.word1))
    }

    /// Drops a list; its buffers come back.
    pub fn free_list(&mut self, mut list: List) -> Result<Vec<Buffer>, Error> {
        let what = "freeing a list";
        self.check(what, &list.hold)?;
        self.local(what, ListFree::new(list.handle).sqe())?;
        list.hold.ended();
        Ok(list.buffers)
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // What has not been seen to end is for another plane of the context; one that has ended meanwhile is stale
        // then.
        for (_, what) in self.burials.drain() {
            self.objects.bury(what);
        }
    }
}
