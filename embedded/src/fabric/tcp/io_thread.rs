//! The thread that moves a context's bytes over tcp: one for all peers, started with the first.
//!
//! It sleeps in epoll. The kernel's events are edges, kept as flags at each socket; commands come through a queue, with
//! an eventfd for when it sleeps; what it has to tell goes to the host as notes, and the engine runs right here unless
//! somebody else runs it. (An io_uring would take the place of `Poll` and of the calls in `socket`.)

use super::connection::{Connection, Sockets};
use super::receive::Landing;
use super::report::{Load, Told};
use super::send::OutFrame;
use super::wire::Lane;
use dmaplane_ring::abi::Handle;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

/// The bell's name among epoll's; connections are named by their number and lane.
const BELL: u64 = u64::MAX;
/// Rounds over all connections between two looks at epoll while there is work.
const ROUNDS: u32 = 8;

/// What the host asks for. All but `Open` are for connections that may have ended meanwhile, and are of no effect then.
#[derive(Debug)]
pub(crate) enum Command {
    /// Takes a connection over.
    Open { connection: u64, peer: Handle, load: Arc<Load>, sockets: Box<Sockets> },
    /// Sends records on the control lane.
    Say { connection: u64, bytes: Vec<u8> },
    /// Sends a record on the data lane.
    Frame { connection: u64, frame: OutFrame },
    /// A READ is about to be asked for.
    Expect { connection: u64, op: u64, landing: Landing },
    /// A body that waits may land.
    Admit { connection: u64, body: u64, landing: Landing },
    /// Nobody wants a body that waits.
    Refuse { connection: u64, body: u64 },
    /// The host has taken messages, or stopped a transfer: look again.
    Look { connection: u64 },
    /// Ends a connection.
    Close { connection: u64 },
}

impl Command {
    fn connection(&self) -> u64 {
        match *self {
            Command::Open { connection, .. }
            | Command::Say { connection, .. }
            | Command::Frame { connection, .. }
            | Command::Expect { connection, .. }
            | Command::Admit { connection, .. }
            | Command::Refuse { connection, .. }
            | Command::Look { connection }
            | Command::Close { connection } => connection,
        }
    }
}

/// The way to the I/O thread.
#[derive(Debug)]
pub(crate) struct Commands {
    queue: Mutex<Vec<Command>>,
    /// The thread sleeps, or is about to: ring. Set under the queue's lock, so that whoever adds a command after that
    /// sees it.
    sleeping: AtomicBool,
    stopping: AtomicBool,
    bell: OwnedFd,
}

impl Commands {
    /// Adds commands, in order, and wakes the thread if it sleeps.
    pub(crate) fn push(&self, commands: impl IntoIterator<Item = Command>) {
        let mut queue = self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        queue.extend(commands);
        let sleeping = self.sleeping.swap(false, Ordering::Relaxed);
        drop(queue);
        if sleeping {
            self.ring();
        }
    }

    fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    fn take(&self, into: &mut Vec<Command>) {
        std::mem::swap(&mut *self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()), into);
    }

    /// `false`: there are commands.
    fn prepare_sleep(&self) -> bool {
        let queue = self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.sleeping.store(queue.is_empty(), Ordering::Relaxed);
        queue.is_empty()
    }
}

/// What the thread tells, and whether anybody is left to hear it.
pub(crate) type Tell = Box<dyn FnMut(Vec<(Handle, Told)>) -> bool + Send>;

/// The host's hold on the thread. Dropping it ends the thread and every connection.
#[derive(Debug)]
pub(crate) struct IoThread {
    pub commands: Arc<Commands>,
    thread: Option<JoinHandle<()>>,
    next_connection: u64,
}

impl IoThread {
    pub(crate) fn start(tell: Tell) -> std::io::Result<IoThread> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let commands = Arc::new(Commands {
            queue: Mutex::new(Vec::new()),
            sleeping: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            bell,
        });
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &commands.bell, EventData::new_u64(BELL), EventFlags::IN | EventFlags::ET)?;
        let hearing = commands.clone();
        let thread = std::thread::Builder::new().name("dmaplane-tcp".into()).spawn(move || {
            let poll = Poll { epoll, events: Vec::with_capacity(64) };
            Running { commands: hearing, poll, connections: HashMap::new(), taken: Vec::new(), tell }.run();
        })?;
        Ok(IoThread { commands, thread: Some(thread), next_connection: 1 })
    }

    /// A number for a new connection.
    pub(crate) fn number(&mut self) -> u64 {
        self.next_connection += 1;
        self.next_connection - 1
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        self.commands.stopping.store(true, Ordering::Release);
        self.commands.ring();
        if let Some(thread) = self.thread.take()
            // The last hold on the context may have been the thread's own.
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// The kernel's events.
struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poll {
    fn add(&self, number: u64, connection: &Connection) -> std::io::Result<()> {
        let all = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, connection.control.fd(), EventData::new_u64(number << 1), all)?;
        epoll::add(&self.epoll, connection.data.fd(), EventData::new_u64(number << 1 | 1), all)?;
        Ok(())
    }

    /// Waits for events, at most until `deadline`; not at all when it has passed.
    fn wait(&mut self, deadline: Option<Instant>) {
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
        });
        self.events.clear();
        let room = rustix::buffer::spare_capacity(&mut self.events);
        let _ = epoll::wait(&self.epoll, room, timeout.as_ref());
    }
}

struct Running {
    commands: Arc<Commands>,
    poll: Poll,
    connections: HashMap<u64, Connection>,
    taken: Vec<Command>,
    tell: Tell,
}

impl Running {
    fn run(&mut self) {
        loop {
            let mut worked = false;
            for _ in 0..ROUNDS {
                self.take_commands();
                let round = self.round();
                worked |= round;
                if !self.report() || self.commands.stopping.load(Ordering::Acquire) {
                    return self.finish();
                }
                if !round {
                    break;
                }
            }
            let deadline = if worked {
                Some(Instant::now())
            } else if self.commands.prepare_sleep() {
                self.connections.values().filter_map(Connection::deadline).min()
            } else {
                continue;
            };
            self.poll.wait(deadline);
            if !worked {
                self.commands.sleeping.store(false, Ordering::Relaxed);
            }
            self.take_events();
        }
    }

    fn take_commands(&mut self) {
        let mut taken = std::mem::take(&mut self.taken);
        self.commands.take(&mut taken);
        for command in taken.drain(..) {
            let number = command.connection();
            if let Command::Open { peer, load, sockets, .. } = command {
                let connection = Connection::new(number, peer, load, *sockets);
                match self.poll.add(number, &connection) {
                    Ok(()) => drop(self.connections.insert(number, connection)),
                    Err(error) => {
                        tracing::error!(%error, "tcp: a connection cannot be watched");
                        let errno = dmaplane_ring::abi::Errno::ENOMEM;
                        (self.tell)(vec![(peer, Told::Lost { errno })]);
                    }
                }
            } else if let Some(connection) = self.connections.get_mut(&number) {
                connection.take(command);
            }
        }
        self.taken = taken;
    }

    /// A step of each connection; `false`: none got anywhere.
    fn round(&mut self) -> bool {
        let mut worked = false;
        for connection in self.connections.values_mut() {
            worked |= connection.step();
        }
        worked
    }

    /// Tells the host; `false`: it is no more.
    fn report(&mut self) -> bool {
        let mut all = Vec::new();
        self.connections.retain(|_, connection| {
            all.append(&mut connection.reports.told);
            !connection.is_over()
        });
        all.is_empty() || (self.tell)(all)
    }

    fn take_events(&mut self) {
        for event in self.poll.events.drain(..) {
            let name = event.data.u64();
            if name == BELL {
                let mut count = [0; 8];
                let _ = rustix::io::read(&self.commands.bell, &mut count);
                continue;
            }
            let Some(connection) = self.connections.get_mut(&(name >> 1)) else { continue };
            let lane = if name & 1 == 0 { Lane::Control } else { Lane::Data };
            let flags = event.flags;
            let hung_up = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            connection.ready(lane, flags.contains(EventFlags::IN), flags.contains(EventFlags::OUT), hung_up);
        }
    }

    /// The context has ended, and its engine has seen to its transfers: last words, as far as they can be said at once.
    fn finish(&mut self) {
        self.take_commands();
        for connection in self.connections.values_mut() {
            connection.finish();
        }
        self.connections.clear();
    }
}
