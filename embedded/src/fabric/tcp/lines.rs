//! All connections of a context, and who among them has something to do.
//!
//! Whoever has locked them moves bytes: the I/O thread, and for small things the thread that runs the engine. What is
//! more than a little is left to the I/O thread, so that the engine never waits for it.

use super::command::Command;
use super::connection::Connection;
use super::events::{Event, Events};
use super::io_thread::Tell;
use super::report::Told;
use super::wire::Lane;
use dmaplane_ring::abi::{Errno, Handle};
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

/// Connections that a brief round sees to: its cost must not grow with those that are busy. The next one goes on where
/// it has stopped.
const BRIEF_CONNECTIONS: usize = 8;
/// Steps that a brief round makes for each of them at most: enough for a small write or two. Who needs more is left to
/// the I/O thread.
const BRIEF_STEPS: usize = 4;

/// How much a step may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Records, and bodies of at most [`BRIEF_BYTES_MAX`](super::connection::BRIEF_BYTES_MAX).
    Brief,
    /// Anything.
    Full,
}

/// A connection has come or gone, as a thread's events are to learn.
#[derive(Clone, Copy, Debug)]
enum Change {
    Add(u64),
    Remove(u64),
}

/// The connections of a context.
pub(crate) struct Lines {
    connections: HashMap<u64, Connection>,
    /// Those that may have something to do, next first.
    active: VecDeque<u64>,
    /// Those that have something to do that is the I/O thread's: more than a little.
    for_the_thread: Vec<u64>,
    /// Those that have a deadline.
    ending: Vec<u64>,
    /// There are new ones among them.
    ends_anew: bool,
    /// Those that move more than a little.
    bulk: HashSet<u64>,
    /// What the I/O thread's events have not been told.
    changes: Vec<Change>,
    /// What the engine's poller looks at while it is awake, and what that has not been told.
    poller: Option<Events>,
    poller_changes: Vec<Change>,
    /// Its events could not be made.
    has_no_poller: bool,
    events: Vec<Event>,
    told: Vec<(Handle, Told)>,
    tell: Tell,
}

impl Lines {
    pub(crate) fn new(tell: Tell) -> Lines {
        Lines {
            connections: HashMap::new(),
            active: VecDeque::new(),
            for_the_thread: Vec::new(),
            ending: Vec::new(),
            ends_anew: false,
            bulk: HashSet::new(),
            changes: Vec::new(),
            poller: None,
            poller_changes: Vec::new(),
            has_no_poller: false,
            events: Vec::new(),
            told: Vec::new(),
            tell,
        }
    }

    /// Whether any moves more than a little.
    pub(crate) fn has_bulk(&self) -> bool {
        !self.bulk.is_empty()
    }

    /// Whether events are the I/O thread's alone: bulk is being moved, or a connection ends.
    pub(crate) fn are_the_threads(&self) -> bool {
        self.has_bulk() || !self.ending.is_empty()
    }

    /// Whether the I/O thread has something to do, or to wait for, that it does not know of, and that is nobody else's.
    pub(crate) fn has_work_for_the_thread(&self) -> bool {
        !self.for_the_thread.is_empty() || self.ends_anew
    }

    /// Whether a brief round has left connections for the next one.
    pub(crate) fn has_brief_work(&self) -> bool {
        !self.active.is_empty()
    }

    pub(crate) fn take(&mut self, command: Command) {
        let number = command.connection();
        if let Command::Open { peer, load, sockets, .. } = command {
            self.connections.insert(number, Connection::new(number, peer, load, *sockets));
            self.change(Change::Add(number));
        } else if let Some(connection) = self.connections.get_mut(&number) {
            connection.take(command);
        }
        self.activate(number);
    }

    fn change(&mut self, change: Change) {
        self.changes.push(change);
        if self.poller.is_some() {
            self.poller_changes.push(change);
        }
    }

    fn activate(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if !std::mem::replace(&mut connection.is_active, true) {
            self.active.push_back(number);
        }
        count(&mut self.bulk, number, connection);
    }

    /// Leaves those to themselves that have much to move and do not move it: nobody waits for their bytes any more, and
    /// what the others say is the poller's to hear.
    pub(crate) fn leave_what_stands(&mut self) {
        if self.has_bulk() {
            let (now, connections) = (Instant::now(), &mut self.connections);
            self.bulk.retain(|number| connections.get_mut(number).is_some_and(|line| line.pace.goes_on(now)));
        }
    }

    /// A step of each connection that may have something to do, or, where it is to be brief, a few steps of some;
    /// `false`: none got anywhere.
    pub(crate) fn round(&mut self, effort: Effort) -> bool {
        let (most, steps) = match effort {
            Effort::Brief => (BRIEF_CONNECTIONS, BRIEF_STEPS),
            Effort::Full => {
                self.active.extend(self.for_the_thread.drain(..));
                (usize::MAX, 1)
            }
        };
        let mut worked = false;
        for _ in 0..self.active.len().min(most) {
            let Some(number) = self.active.pop_front() else { break };
            let Some(connection) = self.connections.get_mut(&number) else { continue };
            worked |= (0..steps).take_while(|_| connection.step(effort)).count() > 0;
            self.told.append(&mut connection.reports.told);
            count(&mut self.bulk, number, connection);
            if connection.is_over() {
                self.connections.remove(&number);
                self.change(Change::Remove(number));
                continue;
            }
            if connection.deadline().is_some() && !std::mem::replace(&mut connection.is_ending, true) {
                self.ending.push(number);
                self.ends_anew = true;
            }
            connection.is_active = connection.may_step();
            match (connection.is_active, effort) {
                (false, _) => {}
                (true, Effort::Brief) => self.for_the_thread.push(number),
                (true, Effort::Full) => self.active.push_back(number),
            }
        }
        worked
    }

    /// Tells the host what there is to tell; `false`: it is no more.
    pub(crate) fn report(&mut self) -> bool {
        self.told.is_empty() || (self.tell)(std::mem::take(&mut self.told))
    }

    /// When to look at connections even if nothing happens.
    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        self.ends_anew = false;
        let connections = &self.connections;
        self.ending.retain(|number| connections.contains_key(number));
        let ends = self.ending.iter().filter_map(|number| connections.get(number)?.deadline());
        let rests = self.bulk.iter().filter_map(|number| Some(connections.get(number)?.pace.due()));
        ends.chain(rests).min()
    }

    /// Looks at those whose deadline has passed.
    pub(crate) fn expire(&mut self) {
        let now = Instant::now();
        for place in 0..self.ending.len() {
            let number = self.ending[place];
            let passed = |connection: &Connection| connection.deadline().is_some_and(|deadline| deadline <= now);
            if self.connections.get(&number).is_some_and(passed) {
                self.activate(number);
            }
        }
    }

    /// Takes the I/O thread's events in. `bell`: what is not a connection's.
    pub(crate) fn hear(&mut self, from: &mut Events, mut bell: impl FnMut(&mut Events, Event)) {
        let mut events = std::mem::take(&mut self.events);
        from.take(&mut events);
        for event in events.drain(..) {
            if !self.ready(from, event) {
                bell(from, event);
            }
        }
        self.events = events;
    }

    /// Brings the I/O thread's events up to date.
    pub(crate) fn watch(&mut self, events: &mut Events) {
        let mut changes = std::mem::take(&mut self.changes);
        for change in changes.drain(..) {
            self.apply(events, change);
        }
        self.changes = changes;
    }

    /// Looks at what has happened, for a poller that is awake; `true`: something has. `None`: it has nothing to hear
    /// with, and never will.
    pub(crate) fn poll(&mut self) -> Option<bool> {
        if self.has_no_poller {
            return None;
        }
        let mut poller = match self.poller.take() {
            Some(poller) => poller,
            None => match Events::new() {
                Ok(poller) => {
                    self.poller_changes = self.connections.keys().map(|number| Change::Add(*number)).collect();
                    poller
                }
                Err(error) => {
                    tracing::error!(%error, "tcp: the poller hears nothing");
                    self.has_no_poller = true;
                    return None;
                }
            },
        };
        let mut changes = std::mem::take(&mut self.poller_changes);
        for change in changes.drain(..) {
            self.apply(&mut poller, change);
        }
        self.poller_changes = changes;
        let happened = poller.look();
        if happened {
            self.hear(&mut poller, |_, _| {});
        }
        self.poller = Some(poller);
        Some(happened)
    }

    fn apply(&mut self, events: &mut Events, change: Change) {
        for lane in [Lane::Control, Lane::Data] {
            match change {
                Change::Add(number) => self.add(events, number, lane),
                Change::Remove(number) => events.remove(name(number, lane)),
            }
        }
    }

    fn add(&mut self, events: &mut Events, number: u64, lane: Lane) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if let Err(error) = events.add(name(number, lane), connection.socket(lane).fd()) {
            tracing::error!(peer = connection.peer().index(), %error, "tcp: a connection cannot be watched");
            connection.lost(Errno::from_raw(error.raw_os_error().unwrap_or(libc::ENOMEM)));
            self.activate(number);
        }
    }

    /// `false`: it is no connection's.
    fn ready(&mut self, from: &mut Events, event: Event) -> bool {
        let lane = if event.name & 1 == 0 { Lane::Control } else { Lane::Data };
        let number = event.name >> 1;
        if number == NO_CONNECTION {
            return false;
        }
        if let Some(connection) = self.connections.get_mut(&number) {
            let goes_on = match event.failed {
                Some(errno) => connection.is_unwatched(errno),
                None => {
                    connection.ready(lane, event.readable, event.writable, event.hung_up);
                    true
                }
            };
            self.activate(number);
            if event.again && goes_on {
                self.add(from, number, lane);
            }
        }
        true
    }

    /// The context has ended, and its engine has seen to its transfers: last words, as far as they can be said at once.
    pub(crate) fn finish(&mut self) {
        for connection in self.connections.values_mut() {
            connection.finish();
        }
        self.connections.clear();
        self.active.clear();
        self.for_the_thread.clear();
        self.ending.clear();
        self.bulk.clear();
        self.poller = None;
    }
}

/// Counts a connection among those that move more than a little, or not any more.
fn count(bulk: &mut HashSet<u64>, number: u64, connection: &mut Connection) {
    if connection.is_bulk() {
        bulk.insert(number);
    } else if !bulk.is_empty() {
        bulk.remove(&number);
    }
}

/// No connection has this number: names that are nobody's lane begin with it.
pub(crate) const NO_CONNECTION: u64 = u64::MAX >> 1;

/// What a connection's lane is called among events.
fn name(number: u64, lane: Lane) -> u64 {
    number << 1 | u64::from(lane == Lane::Data)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::connection::{Shaken, Sockets};
    use super::super::guard::Guard;
    use super::super::receive::Landing;
    use super::super::report::{Ending, Load};
    use super::super::send::{OutBody, OutFrame};
    use super::super::span::Span;
    use super::*;
    use crate::memory::Region;
    use dmaplane_engine::{AllocRequest, OpId};
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};

    /// A connection, and its peer's ends of both lanes.
    pub fn open(connection: u64, peer: Handle) -> (Command, UnixStream, UnixStream) {
        let pair = || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            theirs.set_nonblocking(true).unwrap();
            (Shaken { fd: ours.into(), cipher: None }, theirs)
        };
        let ((control, their_control), (data, their_data)) = (pair(), pair());
        let sockets = Box::new(Sockets { control, data });
        (Command::Open { connection, peer, load: Arc::new(Load::default()), sockets }, their_control, their_data)
    }

    pub fn lines() -> (Lines, UnixStream, UnixStream, Receiver<Told>) {
        let (sender, told) = channel();
        let tell = move |all: Vec<(Handle, Told)>| all.into_iter().all(|(_, told)| sender.send(told).is_ok());
        let mut lines = Lines::new(Box::new(tell));
        let (open, their_control, their_data) = open(1, Handle::from_bits(0));
        lines.take(open);
        while lines.round(Effort::Full) {}
        (lines, their_control, their_data, told)
    }

    pub fn frame(body_bytes: usize) -> Command {
        let request = AllocRequest::plain(1 << 20);
        let region = Arc::new(Region::allocate(&request).unwrap());
        let span = Span::range(region, 0, body_bytes as u64).unwrap();
        let body = OutBody { span, guard: Arc::new(Guard::default()), ending: Ending::Operation(OpId::from_bits(3)) };
        Command::Frame { connection: 1, frame: OutFrame { head: vec![0; 80], body: Some(body) } }
    }

    pub fn landing(bytes: u64) -> Landing {
        let request = AllocRequest::plain(bytes);
        let span = Span::range(Arc::new(Region::allocate(&request).unwrap()), 0, bytes).unwrap();
        Landing { span, guard: Arc::new(Guard::default()), ending: Ending::Transfer(OpId::from_bits(3)) }
    }

    impl Lines {
        /// Whether anything is left to be done before something happens.
        pub fn has_work(&self) -> bool {
            self.has_brief_work() || self.has_work_for_the_thread()
        }
    }

    fn received(mut from: &UnixStream) -> usize {
        let mut bytes = vec![0; 1 << 20];
        std::iter::from_fn(|| from.read(&mut bytes).ok().filter(|read| *read > 0)).sum()
    }

    /// HOST-1: what is more than a little is not moved by who runs the engine; the thread is told of it.
    #[test]
    fn host_1_the_engine_moves_large_bodies() {
        let (mut lines, _control, data, told) = lines();
        assert!(!lines.has_work() && !lines.are_the_threads());
        lines.take(frame(4096));
        while lines.round(Effort::Brief) {}
        assert_eq!(received(&data), 80 + 4 + 4096 + 4);
        assert!(!lines.has_work() && lines.report());
        assert!(matches!(told.try_recv().unwrap(), Told::LocalEnded { outcome: Ok(_), .. }));
        lines.take(frame(1 << 20));
        assert!(!lines.round(Effort::Brief));
        assert_eq!(received(&data), 0);
        assert!(lines.has_work() && lines.are_the_threads());
        let mut arrived = 0;
        while arrived < 80 + 4 + (1 << 20) + 4 {
            assert!(lines.round(Effort::Full) || arrived > 0);
            arrived += received(&data);
            lines.connections.get_mut(&1).unwrap().ready(Lane::Data, false, true, false);
            lines.activate(1);
        }
        while lines.round(Effort::Full) {}
        assert!(!lines.has_work() && !lines.are_the_threads());
    }

    /// TCP-10: a poll that the kernel refused was made again for ever: its thread was kept busy, and the connection
    /// heard nothing.
    #[test]
    fn tcp_10_a_poll_that_fails_is_made_again_for_ever() {
        let Some((mut events, errno)) =
            super::super::events::tests::that_fail("tcp_10_a_poll_that_fails_is_made_again_for_ever")
        else {
            return;
        };
        let (mut lines, _control, _data, told) = lines();
        lines.watch(&mut events);
        let mut looks = 0;
        while events.look() {
            lines.hear(&mut events, |_, _| {});
            while lines.round(Effort::Full) {}
            lines.watch(&mut events);
            looks += 1;
            assert!(looks < 50, "it is made again and again");
        }
        assert!(lines.report());
        assert_eq!(told.try_recv().unwrap(), Told::Lost { errno });
        assert!(told.try_recv().is_err() && lines.connections.is_empty());
    }

    /// TCP-10: one that fails now and then, for want of memory, say, ends nothing.
    #[test]
    fn tcp_10_a_poll_that_fails_now_and_then_ends_the_connection() {
        let (mut lines, _control, _data, told) = lines();
        let mut events = Events::new().unwrap();
        let event = Event {
            name: name(1, Lane::Data),
            readable: false,
            writable: true,
            hung_up: false,
            again: false,
            failed: None,
        };
        let failed = Event { writable: false, failed: Some(Errno::ENOMEM), ..event };
        for _ in 0..20 {
            for event in [failed, failed, event] {
                assert!(lines.ready(&mut events, event));
            }
        }
        while lines.round(Effort::Full) {}
        assert!(lines.report() && told.try_recv().is_err(), "it has ended");
        for _ in 0..3 {
            assert!(lines.ready(&mut events, failed));
        }
        while lines.round(Effort::Full) {}
        assert!(lines.report());
        assert_eq!(told.try_recv().unwrap(), Told::Lost { errno: Errno::ENOMEM });
    }

    /// TCP-10: a registration that epoll refuses ended the connection with -ENOMEM, whatever the kernel had said.
    #[test]
    fn tcp_10_a_registration_that_fails_is_said_to_have_lacked_memory() {
        let (mut lines, _control, _data, told) = lines();
        let file = || Shaken { fd: tempfile::tempfile().unwrap().into(), cipher: None };
        let sockets = Box::new(Sockets { control: file(), data: file() });
        let (peer, load) = (Handle::from_bits(0), Arc::new(Load::default()));
        lines.take(Command::Open { connection: 2, peer, load, sockets });
        // A file is always ready: epoll says that it cannot be watched.
        lines.watch(&mut super::super::events::tests::epoll());
        while lines.round(Effort::Full) {}
        assert!(lines.report());
        assert_eq!(told.try_recv().unwrap(), Told::Lost { errno: Errno::from_raw(libc::EPERM) });
    }

    /// TCP-10: a connection whose end is found by who runs the engine has a deadline, and the thread is to keep it.
    #[test]
    fn tcp_10_nobody_keeps_the_deadline_of_a_data_lane_that_has_ended() {
        let (mut lines, _control, data, told) = lines();
        drop(data);
        lines.connections.get_mut(&1).unwrap().ready(Lane::Data, false, false, true);
        lines.activate(1);
        while lines.round(Effort::Brief) {}
        assert!(lines.has_work() && lines.are_the_threads());
        let deadline = lines.deadline().unwrap();
        assert!(!lines.has_work());
        std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
        lines.expire();
        while lines.round(Effort::Full) {}
        assert!(lines.report());
        assert_eq!(told.try_recv().unwrap(), Told::Lost { errno: Errno::ECONNRESET });
        assert!(lines.deadline().is_none() && !lines.are_the_threads());
    }
}
