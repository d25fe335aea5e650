//! What the kernel has to say about sockets, as edges. Each thread that listens has its own.

use super::backend::{TcpBackend, tcp_backend};
use super::uring::Uring;
use dmaplane_ring::abi::Errno;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

/// Events that epoll tells at a time.
const EPOLL_EVENTS: usize = 64;

/// Something has happened to what was added under this name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub name: u64,
    pub readable: bool,
    pub writable: bool,
    pub hung_up: bool,
    /// It is watched no longer, and is to be added again.
    pub again: bool,
    /// And this is why: the kernel has not watched it at all.
    pub failed: Option<Errno>,
}

/// One thread's events.
pub(crate) enum Events {
    Uring(Box<Uring>),
    Epoll(Epoll),
}

impl Events {
    /// Events of the calling thread: no other may use them.
    pub(crate) fn new() -> std::io::Result<Events> {
        if tcp_backend() == TcpBackend::IoUring {
            match Uring::new() {
                Ok(ring) => return Ok(Events::Uring(Box::new(ring))),
                Err(error) => tracing::warn!(%error, "tcp: no further io_uring; this thread uses epoll"),
            }
        }
        Ok(Events::Epoll(Epoll::new()?))
    }

    pub(crate) fn add(&mut self, name: u64, fd: BorrowedFd<'_>) -> std::io::Result<()> {
        match self {
            Events::Uring(ring) => ring.add(name, fd),
            Events::Epoll(epoll) => epoll.add(name, fd),
        }
    }

    /// Before what was added is closed, or after: names are not used twice.
    pub(crate) fn remove(&mut self, name: u64) {
        match self {
            Events::Uring(ring) => ring.remove(name),
            // Closing it is enough.
            Events::Epoll(_) => {}
        }
    }

    /// Waits for events, at most until `deadline`; not at all when it has passed. May return early.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) {
        match self {
            Events::Uring(ring) => ring.wait(deadline),
            Events::Epoll(epoll) => epoll.wait(deadline),
        }
    }

    /// Whether there are events. Does not wait.
    pub(crate) fn look(&mut self) -> bool {
        match self {
            Events::Uring(ring) => ring.look(),
            Events::Epoll(epoll) => epoll.look(),
        }
    }

    /// Takes what has happened.
    pub(crate) fn take(&mut self, events: &mut Vec<Event>) {
        match self {
            Events::Uring(ring) => ring.take(events),
            Events::Epoll(epoll) => epoll.take(events),
        }
    }
}

/// The kernel's older way.
pub(crate) struct Epoll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Epoll {
    fn new() -> std::io::Result<Epoll> {
        Ok(Epoll { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(EPOLL_EVENTS) })
    }

    fn add(&self, name: u64, fd: BorrowedFd<'_>) -> std::io::Result<()> {
        let edges = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(name), edges)?)
    }

    fn wait(&mut self, deadline: Option<Instant>) {
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
        });
        let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; EPOLL_EVENTS];
        let happened = match epoll::wait(&self.epoll, &mut room[..], timeout.as_ref()) {
            Ok((happened, _)) => happened,
            Err(_) => return,
        };
        self.events.extend(happened.iter().map(|event| {
            let flags = event.flags;
            Event {
                name: event.data.u64(),
                readable: flags.contains(EventFlags::IN),
                writable: flags.contains(EventFlags::OUT),
                hung_up: flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR),
                again: false,
                failed: None,
            }
        }));
    }

    fn look(&mut self) -> bool {
        self.wait(Some(Instant::now()));
        !self.events.is_empty()
    }

    fn take(&mut self, events: &mut Vec<Event>) {
        events.append(&mut self.events);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::uring::tests::failing;
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    fn both() -> Vec<Events> {
        let mut both = vec![epoll()];
        match Uring::new() {
            Ok(ring) => both.push(Events::Uring(Box::new(ring))),
            Err(error) => assert!(crate::io_uring_support().is_err(), "there is an io_uring, but: {error}"),
        }
        both
    }

    pub fn epoll() -> Events {
        Events::Epoll(Epoll::new().unwrap())
    }

    /// Where the kernel refuses each poll, and how. Nothing where there is no io_uring: `test` is skipped then.
    pub fn that_fail(test: &str) -> Option<(Events, Errno)> {
        match failing() {
            Ok((ring, errno)) => Some((Events::Uring(Box::new(ring)), errno)),
            Err(error) => {
                assert!(crate::io_uring_support().is_err(), "there is an io_uring, but: {error}");
                dmaplane_sandbox::skip(test, "only an io_uring can be had to refuse a poll, and there is none");
                None
            }
        }
    }

    fn named(events: &mut Events, name: u64) -> Vec<Event> {
        let mut all = Vec::new();
        events.take(&mut all);
        all.retain(|event| event.name == name);
        all
    }

    /// Both backends say the same: the state at first, each new edge once, the peer's end, and nothing after a removal.
    #[test]
    fn an_edge_goes_unseen_or_is_seen_after_the_removal() {
        for mut events in both() {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            events.add(7, ours.as_fd()).unwrap();
            let soon = || Some(Instant::now() + Duration::from_secs(5));
            events.wait(soon());
            let first = named(&mut events, 7);
            assert!(first.iter().any(|event| event.writable) && !first.iter().any(|event| event.readable));
            assert!(!events.look(), "nothing has happened since");
            for _ in 0..3 {
                theirs.write_all(b"x").unwrap();
                events.wait(soon());
                assert!(named(&mut events, 7).iter().any(|event| event.readable && !event.again));
            }
            assert!(!events.look(), "an edge is told once");
            let before = Instant::now();
            events.wait(Some(before + Duration::from_millis(20)));
            assert!(before.elapsed() >= Duration::from_millis(19), "it waits until the deadline");
            drop(theirs);
            events.wait(soon());
            assert!(named(&mut events, 7).iter().any(|event| event.hung_up));
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            events.add(9, ours.as_fd()).unwrap();
            events.look();
            named(&mut events, 9);
            events.remove(9);
            drop(ours);
            events.look();
            named(&mut events, 9);
            // Neither keeps the closed socket open.
            let end = Instant::now() + Duration::from_secs(5);
            while theirs.write_all(b"x").is_ok() {
                assert!(Instant::now() < end, "what was removed is still open");
                events.look();
            }
            assert!(named(&mut events, 9).is_empty());
        }
    }
}
