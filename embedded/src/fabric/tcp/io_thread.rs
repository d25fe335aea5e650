//! The thread that moves a context's bytes over tcp: one for all peers, started with the first.
//!
//! It sleeps until the kernel has an event, or its bell rings because there are commands. What it has to tell goes to
//! the host as notes, and the engine runs right here unless somebody else runs it.
//!
//! Small things need no thread of their own: while it sleeps, whoever runs the engine carries out its own commands, and
//! a poller that is awake looks at the sockets itself; then the thread sleeps with nothing but its bell to wake it. A
//! small message so costs no thread's waking. Bodies of more than a little are this thread's alone: while one moves it
//! listens to all sockets itself, and is woken for one that merely could.

use super::command::Command;
use super::events::{Event, Events};
use super::lines::{Effort, Lines, NO_CONNECTION};
use super::report::Told;
use dmaplane_ring::abi::Handle;
use dmaplane_ring::wait::spin_until;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The bell's name among events.
const BELL: u64 = NO_CONNECTION << 1;
/// Rounds over all connections between two looks at events while there is work.
const ROUNDS: u32 = 8;
/// How long it looks again and again for a body's next bytes. They are seldom far, and to be woken for them costs the
/// peer more than this costs us.
const SPIN: Duration = Duration::from_micros(20);
/// Times in a row that its bell may fail to be watched; from then on it looks at it now and then.
const BELL_FAILURES_MAX: u32 = 3;
/// How long it sleeps at most when it cannot hear its bell.
const DEAF_SLEEP: Duration = Duration::from_millis(1);

/// What the host has said, and how the thread sleeps.
#[derive(Debug, Default)]
struct Queue {
    commands: Vec<Command>,
    /// The thread sleeps, or is about to: ring.
    sleeps: bool,
    /// It hears its bell only.
    hears_bell_only: bool,
    /// A poller looks at the sockets, until it says otherwise.
    polled: bool,
    /// It has seen to some connections, and is to go on with others.
    poller_goes_on: bool,
}

/// The way to the I/O thread. Locks are taken in the order of `lines` and `queue`; `lines` is waited for by the thread
/// alone, which may run the engine while it has it: everybody else only tries.
pub(crate) struct Commands {
    queue: Mutex<Queue>,
    lines: Mutex<Lines>,
    stopping: AtomicBool,
    bell: OwnedFd,
}

impl std::fmt::Debug for Commands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commands").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl Commands {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Adds commands, in order, and wakes the thread if it sleeps.
    pub(crate) fn push(&self, commands: impl IntoIterator<Item = Command>) {
        let mut queue = self.queue();
        queue.commands.extend(commands);
        self.wake(queue);
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let sleeps = std::mem::take(&mut queue.sleeps);
        drop(queue);
        if sleeps {
            self.ring();
        }
    }

    fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Adds commands, in order. Where the thread sleeps and they are small, they are carried out at once. For whoever
    /// runs the engine.
    pub(crate) fn carry_out(&self, commands: impl IntoIterator<Item = Command>) {
        let mut queue = self.queue();
        queue.commands.extend(commands);
        if !queue.sleeps {
            return;
        }
        if !queue.commands.iter().any(Command::is_for_the_thread)
            && let Ok(mut lines) = self.lines.try_lock()
        {
            // Taken under both locks: so they are carried out in order.
            let commands = std::mem::take(&mut queue.commands);
            drop(queue);
            commands.into_iter().for_each(|command| lines.take(command));
            return self.move_a_little(&mut lines);
        }
        self.wake(queue);
    }

    /// Small steps for some connections. What is more is left to the thread; other connections to the poller's next
    /// look, or to the thread where there is no poller.
    fn move_a_little(&self, lines: &mut Lines) {
        lines.round(Effort::Brief);
        // Where nobody is left to hear it, the thread finds out, too.
        let _ = lines.report();
        let mut queue = self.queue();
        let poller_looks = queue.polled && !lines.are_the_threads();
        queue.poller_goes_on = poller_looks && lines.has_brief_work();
        let nobody_goes_on = !poller_looks && lines.has_brief_work();
        // What has become the thread's alone to look at, it must look at: also when nothing of it can move yet.
        if lines.has_work_for_the_thread() || nobody_goes_on || (queue.hears_bell_only && lines.are_the_threads()) {
            self.wake(queue);
        }
    }

    /// Looks at the sockets in the thread's place: for the context's poller, again and again until it sleeps and says
    /// so. `begins`: it is the first time since. `true`: it has not seen to all that it has found, and is to go on
    /// soon.
    pub(crate) fn poll(&self, begins: bool) -> bool {
        if begins {
            self.queue().polled = true;
        }
        let Ok(mut lines) = self.lines.try_lock() else { return false };
        if lines.are_the_threads() {
            return false;
        }
        match lines.poll() {
            Some(happened) if happened || lines.has_brief_work() => self.move_a_little(&mut lines),
            Some(_) => {}
            // It hears nothing: the thread hears for itself.
            None => self.stop_polling(),
        }
        lines.has_brief_work()
    }

    /// The poller is about to sleep.
    pub(crate) fn stop_polling(&self) {
        let mut queue = self.queue();
        queue.polled = false;
        if std::mem::take(&mut queue.poller_goes_on) || queue.hears_bell_only {
            self.wake(queue);
        }
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
            queue: Mutex::default(),
            lines: Mutex::new(Lines::new(tell)),
            stopping: AtomicBool::new(false),
            bell,
        });
        let hearing = commands.clone();
        // The thread's events are its own: it makes them itself, and says how that went.
        let (made, how) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("dmaplane-tcp".into()).spawn(move || {
            let events = Events::new().and_then(|mut events| {
                events.add(BELL, hearing.bell.as_fd())?;
                Ok(events)
            });
            let _ = match events {
                Ok(events) => made.send(Ok(())).map(|()| Thread { commands: hearing, events, bell_failures: 0 }.run()),
                Err(error) => made.send(Err(error)),
            };
        })?;
        how.recv().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()))?;
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
        // Release: pairs with the thread's acquire; the bell orders it, too.
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

struct Thread {
    commands: Arc<Commands>,
    events: Events,
    /// In a row; the bell is not among its events any more once there are too many.
    bell_failures: u32,
}

impl Thread {
    fn run(mut self) {
        let commands = self.commands.clone();
        let lock = || commands.lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut lines = lock();
        loop {
            let mut worked = false;
            for _ in 0..ROUNDS {
                self.take_commands(&mut lines);
                let round = lines.round(Effort::Full);
                worked |= round;
                if !lines.report() || commands.stopping.load(Ordering::Acquire) {
                    // Its engine may have had last words.
                    self.take_commands(&mut lines);
                    return lines.finish();
                }
                if !round {
                    break;
                }
            }
            lines.watch(&mut self.events);
            lines.leave_what_stands();
            if worked || (lines.has_bulk() && self.spin()) {
                self.events.look();
            } else if let Some(hears_bell_only) = self.prepare_sleep(&lines) {
                let deadline = self.deadline(&mut lines);
                drop(lines);
                if hears_bell_only {
                    self.wait_for_bell(deadline);
                } else {
                    self.events.wait(deadline);
                }
                lines = lock();
                commands.queue().sleeps = false;
                lines.expire();
                if hears_bell_only {
                    continue;
                }
            }
            self.hear(&mut lines);
        }
    }

    /// Looks again and again for a moment before it sleeps; `true`: there is something.
    fn spin(&mut self) -> bool {
        let Thread { commands, events, .. } = self;
        spin_until(SPIN, || events.look() || !commands.queue().commands.is_empty())
    }

    fn take_commands(&self, lines: &mut Lines) {
        // Taken with the lines locked: so they are carried out in order.
        let taken = std::mem::take(&mut self.commands.queue().commands);
        taken.into_iter().for_each(|command| lines.take(command));
    }

    /// Whether to hear the bell only; `None`: there are commands.
    fn prepare_sleep(&self, lines: &Lines) -> Option<bool> {
        let mut queue = self.commands.queue();
        queue.sleeps = queue.commands.is_empty();
        queue.poller_goes_on = false;
        queue.hears_bell_only = queue.polled && !lines.are_the_threads();
        queue.sleeps.then_some(queue.hears_bell_only)
    }

    fn deadline(&self, lines: &mut Lines) -> Option<Instant> {
        let deadline = lines.deadline();
        if self.bell_failures < BELL_FAILURES_MAX {
            return deadline;
        }
        let soon = Instant::now() + DEAF_SLEEP;
        Some(deadline.map_or(soon, |deadline| deadline.min(soon)))
    }

    fn wait_for_bell(&self, deadline: Option<Instant>) {
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
        });
        let _ = rustix::event::poll(&mut [PollFd::new(&self.commands.bell, PollFlags::IN)], timeout.as_ref());
        let _ = rustix::io::read(&self.commands.bell, &mut [0; 8]);
    }

    fn hear(&mut self, lines: &mut Lines) {
        let Thread { commands, events, bell_failures } = self;
        let bell = &commands.bell;
        lines.hear(events, |events, event: Event| {
            let failures = if event.failed.is_some() { *bell_failures + 1 } else { 0 };
            *bell_failures = failures;
            if event.again && failures < BELL_FAILURES_MAX {
                if let Err(error) = events.add(BELL, bell.as_fd()) {
                    tracing::error!(%error, "tcp: the bell cannot be heard");
                    *bell_failures = BELL_FAILURES_MAX;
                }
            } else if event.again {
                tracing::error!(failed = ?event.failed, "tcp: the bell cannot be heard");
            }
            let _ = rustix::io::read(bell, &mut [0; 8]);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines::tests::{frame, landing, lines, open};
    use super::super::report::Arrived;
    use super::super::wire;
    use super::*;
    use dmaplane_engine::{Message, Request, RequestKind};
    use std::io::Write;
    use std::sync::mpsc::channel;

    fn request(kind: RequestKind, length: u64) -> Request {
        Request {
            kind,
            notify: false,
            checksum: false,
            immediate: 0,
            op: 1,
            lease: 2,
            offset: 0,
            length,
            payload_bytes: 0,
        }
    }

    /// A small message, as a peer sends it.
    fn message_bytes() -> Vec<u8> {
        let mut bytes = Vec::new();
        wire::put_message(&mut bytes, &Message::Request(request(RequestKind::Read, 1)), &[]);
        bytes
    }

    fn commands(queue: Queue, lines: Lines) -> Commands {
        Commands {
            queue: Mutex::new(queue),
            lines: Mutex::new(lines),
            stopping: AtomicBool::new(false),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap(),
        }
    }

    /// HOST-1: a look saw to all connections at once, four times, so that many busy ones kept the engine's thread.
    #[test]
    fn host_1_many_busy_connections_keep_the_engine_in_one_look() {
        const PEERS: usize = 40;
        let (sender, told) = channel();
        let tell = move |all: Vec<(Handle, Told)>| all.into_iter().all(|(peer, _)| sender.send(peer.bits()).is_ok());
        let mut lines = Lines::new(Box::new(tell));
        let mut peers: Vec<_> = (0..PEERS as u64)
            .map(|number| {
                let (open, control, data) = open(number, Handle::from_bits(number));
                lines.take(open);
                (control, data)
            })
            .collect();
        while lines.round(Effort::Full) {}
        let commands = commands(Queue { sleeps: true, ..Queue::default() }, lines);
        let end = Instant::now() + Duration::from_secs(10);
        // Three times, so that each look goes on where the last has stopped.
        for round in 0..3 {
            let mut say = || peers.iter_mut().for_each(|(control, _)| control.write_all(&message_bytes()).unwrap());
            say();
            let (mut heard, mut looks, mut left) = (Vec::new(), 0, 0);
            while heard.len() < PEERS {
                let goes_on = commands.poll(round == 0 && looks == 0);
                looks += 1;
                let before = heard.len();
                heard.extend(told.try_iter());
                assert!(heard.len() - before <= 8, "a look has heard {} peers", heard.len() - before);
                left += u32::from(goes_on);
                assert!(!goes_on || heard.len() < PEERS, "a look is asked for that finds nothing");
                assert!(Instant::now() < end, "{} of {PEERS} peers are heard", heard.len());
            }
            assert!(left > 0, "no look has said that it left something");
            heard.sort_unstable();
            assert!(heard.into_iter().eq(0..PEERS as u64), "some peer waits for others' second messages");
        }
        assert!(commands.queue().sleeps, "the thread was woken for what the poller goes on with");
        // A poller that falls asleep goes on with nothing.
        peers.iter_mut().for_each(|(control, _)| control.write_all(&message_bytes()).unwrap());
        while !commands.poll(false) {
            assert!(Instant::now() < end, "no look has said that it left something");
        }
        commands.stop_polling();
        assert!(!commands.queue().sleeps && rustix::io::read(&commands.bell, &mut [0; 8]).is_ok(), "nobody goes on");
    }

    /// TCP-10: a bell whose every poll failed was polled again for ever, and the thread never slept.
    #[test]
    fn tcp_10_a_bell_that_cannot_be_watched_keeps_the_thread_busy() {
        let Some((mut events, _)) =
            super::super::events::tests::that_fail("tcp_10_a_bell_that_cannot_be_watched_keeps_the_thread_busy")
        else {
            return;
        };
        let commands = Arc::new(commands(Queue::default(), Lines::new(Box::new(|_| true))));
        events.add(BELL, commands.bell.as_fd()).unwrap();
        let mut thread = Thread { commands: commands.clone(), events, bell_failures: 0 };
        let mut lines = commands.lines.lock().unwrap();
        assert_eq!(thread.deadline(&mut lines), None);
        let mut looks = 0;
        while thread.events.look() {
            thread.hear(&mut lines);
            looks += 1;
            assert!(looks < 50, "it is polled again and again");
        }
        // It hears what is asked of it all the same, a little later.
        let deadline = thread.deadline(&mut lines).expect("it sleeps for good, and is deaf");
        assert!(deadline <= Instant::now() + DEAF_SLEEP);
    }

    /// HOST-1: one peer that announced much and sent nothing had the thread listen for as long as it liked: what any
    /// other peer said went through the thread.
    #[test]
    fn host_1_a_peer_that_falls_silent_in_mid_body_has_the_thread_hear_all_others() {
        const WAIT: Duration = Duration::from_secs(10);
        const BODY: u32 = 1 << 20;
        let (sender, told) = channel();
        let tell = move |all: Vec<(Handle, Told)>| {
            all.into_iter().all(|(_, told)| sender.send((std::thread::current().id(), told)).is_ok())
        };
        let thread = IoThread::start(Box::new(tell)).unwrap();
        let commands = &thread.commands;
        let [mut silent, mut other] = [1, 2].map(|number| {
            let (open, control, data) = open(number, Handle::from_bits(number));
            commands.push([open]);
            (control, data)
        });
        let mut head = Vec::new();
        wire::put_write(&mut head, &request(RequestKind::Write, BODY.into()));
        head.extend_from_slice(&wire::slice_word(BODY));
        head.push(7);
        silent.1.write_all(&head).unwrap();
        let (_, message) = told.recv_timeout(WAIT).unwrap();
        let Told::Message { arrived: Some(Arrived::Waiting { body, .. }), .. } = message else { panic!("{message:?}") };
        commands.push([Command::Admit { connection: 1, body, landing: landing(BODY.into()) }]);
        let mut begins = true;
        let mut poll = || {
            commands.poll(std::mem::take(&mut begins));
        };
        let (end, mut heard) = (Instant::now() + WAIT, 0);
        while heard < 10 {
            other.0.write_all(&message_bytes()).unwrap();
            let who = loop {
                assert!(Instant::now() < end, "{heard} messages of other peers were heard without the thread");
                poll();
                if let Ok((who, _)) = told.try_recv() {
                    break who;
                }
            };
            heard += u32::from(who == std::thread::current().id());
            std::thread::sleep(Duration::from_millis(1));
        }
        // When it goes on at last, the thread is woken for it.
        silent.1.set_nonblocking(false).unwrap();
        let mut rest = vec![7; BODY as usize - 1];
        rest.extend_from_slice(&wire::end_word());
        let sends = std::thread::spawn(move || silent.1.write_all(&rest).map(|()| silent));
        let (_, ended) = loop {
            assert!(Instant::now() < end + WAIT, "nobody is woken for the rest");
            poll();
            if let Ok(told) = told.try_recv() {
                break told;
            }
        };
        assert!(
            matches!(ended, Told::TransferEnded { outcome: Ok(moved), .. } if moved.bytes == BODY.into()),
            "{ended:?}"
        );
        sends.join().unwrap().unwrap();
    }

    /// HOST-1: bulk that could not move yet was the thread's alone to look at, and the thread heard its bell only: all
    /// of a context's tcp was deaf for as long as its poller stayed awake.
    #[test]
    fn host_1_nobody_listens_when_bulk_comes_that_cannot_move_yet() {
        let (mut lines, _control, _data, _told) = lines();
        // The peer does not read.
        lines.take(frame(60_000));
        while lines.round(Effort::Brief) {
            lines.take(frame(60_000));
        }
        lines.take(frame(1 << 20));
        let queue = Queue { sleeps: true, polled: true, hears_bell_only: true, ..Queue::default() };
        let commands = commands(queue, Lines::new(Box::new(|_| true)));
        commands.move_a_little(&mut lines);
        assert!(lines.are_the_threads() && !lines.has_work(), "it can be moved");
        assert!(!commands.queue().sleeps, "the thread sleeps on");
        assert!(rustix::io::read(&commands.bell, &mut [0; 8]).is_ok(), "nobody has rung");
    }
}
