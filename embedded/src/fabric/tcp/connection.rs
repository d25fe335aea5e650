//! One peer's two sockets, and the life of their connection.

use super::command::Command;
use super::lines::Effort;
use super::noise::Cipher;
use super::pace::Pace;
use super::receive::Receiving;
use super::report::{Reports, Told};
use super::send::Sending;
use super::socket::{Came, Socket};
use super::wire::{Decoder, Lane, Record};
use dmaplane_engine::{Message, RequestKind};
use dmaplane_ring::abi::{Errno, Handle};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of messages that may wait for a peer that does not read: beyond, the connection is ended.
const BACKLOG_BYTES_MAX: usize = 16 << 20;
/// How long what a peer said on its control lane may still come when its data lane has ended.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long a connection that we end lingers for its peer to read our last words.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of a body that are little: whoever runs the engine may move them.
pub(crate) const BRIEF_BYTES_MAX: u64 = 64 << 10;
/// Times in a row that the kernel may refuse to watch a socket: it may have lacked memory for a moment.
const UNWATCHED_MAX: u32 = 3;
/// Bytes read ahead on a control lane.
const CONTROL_BYTES: usize = 64 << 10;

/// A socket whose handshake is done.
#[derive(Debug)]
pub(crate) struct Shaken {
    pub fd: OwnedFd,
    pub cipher: Option<Box<Cipher>>,
}

/// Both sockets of a peer whose handshake is done.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub control: Shaken,
    pub data: Shaken,
}

/// Where in its life a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    /// The data lane has ended; until then the control lane may say more.
    LastWords {
        until: Instant,
    },
    /// We end it: what is queued goes out, then our end of the control lane, then we wait for the peer's.
    Lingering {
        until: Instant,
        shut_down: bool,
    },
    Over,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub control: Socket,
    pub data: Socket,
    decoder: Decoder,
    receiving: Receiving,
    sending: Sending,
    pub reports: Reports,
    life: Life,
    /// Times that the kernel has refused to watch a socket of its, since it has last told something of one.
    unwatched: u32,
    /// It is among those that may have something to do.
    pub is_active: bool,
    /// It is among those that have a deadline.
    pub is_ending: bool,
    /// How it moves what is more than a little.
    pub pace: Pace,
}

impl Connection {
    pub(crate) fn new(number: u64, peer: Handle, load: Arc<super::report::Load>, sockets: Sockets) -> Connection {
        Connection {
            control: Socket::new(sockets.control.fd, sockets.control.cipher),
            data: Socket::new(sockets.data.fd, sockets.data.cipher),
            decoder: Decoder::new(Lane::Control),
            receiving: Receiving::new(number),
            sending: Sending::default(),
            reports: Reports { peer, load, told: Vec::new() },
            life: Life::Open,
            unwatched: 0,
            is_active: false,
            is_ending: false,
            pace: Pace::new(Instant::now()),
        }
    }

    pub(crate) fn peer(&self) -> Handle {
        self.reports.peer
    }

    pub(crate) fn socket(&self, lane: Lane) -> &Socket {
        match lane {
            Lane::Control => &self.control,
            Lane::Data => &self.data,
        }
    }

    /// Does what the host says.
    pub(crate) fn take(&mut self, command: Command) {
        match command {
            Command::Say { bytes, .. } => {
                self.control.queue(&bytes);
                if self.control.unsent() > BACKLOG_BYTES_MAX && self.life == Life::Open {
                    tracing::warn!(peer = self.reports.peer.index(), "tcp: the peer has not read for too long");
                    self.lost(Errno::ETIMEDOUT);
                }
            }
            Command::Frame { frame, .. } => self.sending.push(frame),
            Command::Expect { op, landing, .. } => self.receiving.expect(op, landing),
            Command::Admit { body, landing, .. } => self.receiving.decide(body, Some(landing)),
            Command::Refuse { body, .. } => self.receiving.decide(body, None),
            Command::Close { .. } if matches!(self.life, Life::Open | Life::LastWords { .. }) => {
                self.life = Life::Lingering { until: Instant::now() + LINGER, shut_down: false };
            }
            Command::Close { .. } | Command::Open { .. } | Command::Look { .. } => {}
        }
    }

    /// The kernel's word on a lane.
    pub(crate) fn ready(&mut self, lane: Lane, readable: bool, writable: bool, hung_up: bool) {
        let socket = match lane {
            Lane::Control => &mut self.control,
            Lane::Data => &mut self.data,
        };
        self.unwatched = 0;
        socket.readable |= readable || hung_up;
        socket.writable |= writable || hung_up;
        socket.hung_up |= hung_up;
        if lane == Lane::Data && hung_up && self.life == Life::Open {
            self.life = Life::LastWords { until: Instant::now() + LAST_WORDS };
        }
    }

    /// The kernel has refused to watch a socket; `true`: it may be asked again. Else the connection is over, since
    /// nobody would hear of anything that happens to it.
    pub(crate) fn is_unwatched(&mut self, errno: Errno) -> bool {
        self.unwatched += 1;
        if self.unwatched >= UNWATCHED_MAX {
            tracing::error!(peer = self.reports.peer.index(), %errno, "tcp: the kernel does not watch a socket");
            self.lost(errno);
        }
        !self.is_over()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.life == Life::Over
    }

    /// When to look at it even if nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.life {
            Life::LastWords { until } | Life::Lingering { until, .. } => Some(until),
            Life::Open | Life::Over => None,
        }
    }

    /// Whether it moves more than a little, or waits to and has not waited for long.
    pub(crate) fn is_bulk(&mut self) -> bool {
        let has_bulk = !self.is_over() && (self.sending.is_bulk() || self.receiving.is_bulk());
        self.pace.counts(has_bulk, Instant::now)
    }

    /// Whether a full step may get anywhere before something happens.
    pub(crate) fn may_step(&self) -> bool {
        let may_say = self.control.writable && self.control.unsent() > 0;
        match self.life {
            Life::Over => false,
            Life::Lingering { shut_down, .. } => {
                may_say || (self.control.unsent() == 0 && !shut_down) || self.control.may_receive(1)
            }
            Life::LastWords { .. } => may_say || self.may_hear(),
            Life::Open => {
                let effort = Effort::Full;
                may_say
                    || self.may_hear()
                    || self.sending.may_step(&self.data, effort)
                    || self.receiving.may_step(&self.data, &self.reports, effort)
            }
        }
    }

    fn may_hear(&self) -> bool {
        // Once the data lane has ended nothing leaves the queue, and nothing is added to it.
        let full = self.life == Life::Open && self.sending.is_full(&self.data);
        self.control.may_receive(1) && !self.reports.load.is_full() && !full
    }

    /// About one system call a lane and direction; `false`: nothing can be done before something happens.
    pub(crate) fn step(&mut self, effort: Effort) -> bool {
        let worked = self.try_step(effort).unwrap_or_else(|errno| {
            self.lost(errno);
            true
        });
        self.pace.moved(self.sending.take_moved() + self.receiving.take_moved(), Instant::now);
        worked
    }

    fn try_step(&mut self, effort: Effort) -> Result<bool, Errno> {
        let mut worked = false;
        match self.life {
            Life::Over => return Ok(false),
            Life::Lingering { until, shut_down } => return self.linger(until, shut_down),
            Life::LastWords { until } if Instant::now() >= until => return Err(Errno::ECONNRESET),
            Life::Open | Life::LastWords { .. } => {}
        }
        if self.control.writable && self.control.unsent() > 0 {
            worked = true;
            self.control.flush()?;
        }
        if self.may_hear() {
            worked = true;
            self.hear()?;
        }
        if self.life != Life::Open {
            return Ok(worked);
        }
        // What ends the data lane does not end what the control lane may still have to say.
        if self.sending.may_step(&self.data, effort) {
            worked = true;
            if self.sending.step(&mut self.data, &mut self.reports, effort).is_err() {
                self.data_ended();
                return Ok(true);
            }
        }
        if self.receiving.may_step(&self.data, &self.reports, effort) {
            worked = true;
            match self.receiving.step(&mut self.data, &mut self.reports) {
                Ok(true) => {}
                Err(Errno::EPROTO) => return Err(Errno::EPROTO),
                Ok(false) | Err(_) => self.data_ended(),
            }
        }
        Ok(worked)
    }

    fn data_ended(&mut self) {
        if self.life == Life::Open {
            self.life = Life::LastWords { until: Instant::now() + LAST_WORDS };
        }
    }

    /// Reads messages.
    fn hear(&mut self) -> Result<(), Errno> {
        if self.control.buffered().is_empty() {
            match self.control.fill(CONTROL_BYTES)? {
                Came::Bytes(_) => {}
                Came::Blocked => return Ok(()),
                Came::End => return Err(Errno::ECONNRESET),
            }
        }
        while !self.control.buffered().is_empty() && !self.reports.load.is_full() {
            let taken = self.decoder.take(self.control.buffered());
            let (taken, record) = taken.map_err(|breach| self.reports.breach(breach))?;
            self.control.consume(taken);
            let Some(Record::Message { message, payload }) = record else { continue };
            let arrived = match message {
                Message::Request(request) if request.kind == RequestKind::Read => {
                    Some(super::report::Arrived::Asked { op: request.op, table: Vec::new() })
                }
                _ => None,
            };
            self.reports.tell(Told::Message { message, payload, arrived });
        }
        Ok(())
    }

    /// The connection is over, and not by the host's word.
    pub(crate) fn lost(&mut self, errno: Errno) {
        if self.life == Life::Over {
            return;
        }
        if !matches!(self.life, Life::Lingering { .. }) {
            self.reports.tell(Told::Lost { errno });
        }
        self.life = Life::Over;
    }

    /// Our last words, and the wait for the peer's end. Nothing that comes is looked at.
    fn linger(&mut self, until: Instant, shut_down: bool) -> Result<bool, Errno> {
        if Instant::now() >= until {
            return Err(Errno::ETIMEDOUT);
        }
        let mut worked = false;
        if self.control.writable && self.control.unsent() > 0 {
            worked = true;
            self.control.flush()?;
        }
        if self.control.unsent() == 0 && !shut_down {
            worked = true;
            self.control.shut_down();
            self.data.shut_down();
            self.life = Life::Lingering { until, shut_down: true };
        }
        // Unread bytes would turn our end into a reset, which may overtake our last words.
        if self.control.may_receive(1) {
            worked = true;
            match self.control.fill(CONTROL_BYTES)? {
                Came::Bytes(bytes) => self.control.consume(bytes),
                Came::Blocked => {}
                Came::End => return Err(Errno::ECONNRESET),
            }
        }
        Ok(worked)
    }

    /// Sends what can be sent at once: the context ends.
    pub(crate) fn finish(&mut self) {
        if self.life != Life::Over {
            while self.control.writable && self.control.unsent() > 0 && self.control.flush().is_ok() {}
            self.control.shut_down();
            while matches!(self.control.fill(CONTROL_BYTES), Ok(Came::Bytes(_))) {
                let bytes = self.control.buffered().len();
                self.control.consume(bytes);
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.control.hang_up();
        self.data.hang_up();
    }
}

#[cfg(test)]
mod tests {
    use super::super::send::OutFrame;
    use super::super::wire;
    use super::*;
    use dmaplane_engine::Request;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    /// TCP-9, HOST-16, SEC-5: a peer that asks and asks, and reads no answers, is not heard any further, until it does.
    #[test]
    fn tcp_9_a_peer_that_reads_no_answers_makes_us_keep_them_without_bound() {
        let [(control, mut to_control), (data, mut from_data)] =
            [UnixStream::pair().unwrap(), UnixStream::pair().unwrap()];
        let sockets = [control, data].map(|socket| {
            socket.set_nonblocking(true).unwrap();
            Shaken { fd: socket.into(), cipher: None }
        });
        let [control, data] = sockets;
        let load = Arc::new(super::super::report::Load::default());
        let mut connection = Connection::new(1, Handle::from_bits(0), load, Sockets { control, data });
        let answer = || OutFrame { head: vec![0; 16 << 10], body: None };
        let mut asked = 0;
        let request = Request {
            kind: RequestKind::Read,
            notify: false,
            checksum: false,
            immediate: 0,
            op: 1,
            lease: 2,
            offset: 0,
            length: 16 << 10,
            payload_bytes: 0,
        };
        let mut record = Vec::new();
        wire::put_message(&mut record, &Message::Request(request), &[]);
        for _ in 0..4 {
            to_control.write_all(&record.repeat(512)).unwrap();
            connection.control.readable = true;
            while connection.step(Effort::Full) {}
            // What the host does with it.
            for (_, told) in std::mem::take(&mut connection.reports.told) {
                connection.reports.load.taken(told.weight());
                connection.take(Command::Frame { connection: 1, frame: answer() });
                asked += 1;
            }
        }
        assert!(asked < 600, "{asked} answers of 16 KiB wait");
        // Once it reads, it is heard again.
        from_data.set_nonblocking(true).unwrap();
        let mut bytes = vec![0; 1 << 20];
        for _ in 0..2_000 {
            while from_data.read(&mut bytes).is_ok_and(|read| read > 0) {}
            connection.data.writable = true;
            connection.control.readable = true;
            while connection.step(Effort::Full) {}
            for (_, told) in std::mem::take(&mut connection.reports.told) {
                connection.reports.load.taken(told.weight());
                connection.take(Command::Frame { connection: 1, frame: answer() });
                asked += 1;
            }
        }
        assert_eq!(asked, 2048);
    }
}
