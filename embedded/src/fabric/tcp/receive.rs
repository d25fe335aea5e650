//! What comes in on the data lane: a header first, its body only where the engine lets it (clause TCP-7).
//!
//! A small write is read whole into memory of our own, which the engine copies or throws away. The body of a larger one
//! stays in the socket until the engine has looked at the header; then it lands straight in its place, each system call
//! guarded, or is thrown away. So a dead lease costs its own bytes and nothing else.

use super::connection::BRIEF_BYTES_MAX;
use super::guard::Guard;
use super::lines::Effort;
use super::report::{Arrived, Ending, Reports, Told};
use super::socket::{Came, Socket};
use super::span::Span;
use super::wire::{Body, Breach, Decoder, Lane, Record, SLICE_WORD_BYTES, Slice};
use crate::memory::Moved;
use dmaplane_engine::Message;
use dmaplane_ring::abi::Errno;
use std::collections::HashMap;
use std::sync::Arc;

/// Writes up to this are read whole before the engine hears of them.
const WHOLE_BYTES_MAX: u64 = 64 << 10;
/// Bytes received at a time: how long a stop may have to wait for a system call.
const RECEIVE_BYTES: usize = 512 << 10;
/// Bytes thrown away at a time: nothing waits for that.
const SKIP_BYTES: usize = 4 << 20;
/// Bytes read ahead where small records come in a row: many of them in one system call.
const AHEAD_BYTES: usize = 128 << 10;
/// Bytes read ahead where large bodies come, which are not to pass through memory of our own.
const AHEAD_BYTES_LARGE: usize = 4 << 10;

/// Where bytes go.
#[derive(Debug)]
pub(crate) struct Landing {
    pub span: Span,
    pub guard: Arc<Guard>,
    pub ending: Ending,
}

/// What the data lane is at.
#[derive(Debug)]
enum State {
    Header,
    /// A small write, on its way into memory of our own.
    Whole {
        message: Message,
        body: Body,
        bytes: Vec<u8>,
    },
    /// The engine is looking at the header of body number `bodies`.
    Asking {
        body: Body,
    },
    Landing {
        body: Body,
        landing: Landing,
        bytes: u64,
    },
    /// What nobody wants.
    Skipping {
        body: Body,
    },
}

/// What comes next in a body.
enum Next {
    /// So many bytes of a slice.
    Bytes(u32),
    End,
    Abort(Errno),
    Blocked,
}

/// The receiving half of a data lane.
#[derive(Debug)]
pub(crate) struct Receiving {
    connection: u64,
    decoder: Decoder,
    state: State,
    /// Bodies that the engine was asked about so far.
    bodies: u64,
    /// Bytes to read ahead, by what came last.
    ahead_bytes: usize,
    /// READs of ours that await their bytes, by operation.
    expected: HashMap<u64, Landing>,
    /// Bytes of bodies that have landed or been thrown away, since somebody has asked.
    moved: u64,
}

impl Receiving {
    /// Bytes of bodies that have come since this was last asked.
    pub(crate) fn take_moved(&mut self) -> u64 {
        std::mem::take(&mut self.moved)
    }

    pub(crate) fn new(connection: u64) -> Receiving {
        let decoder = Decoder::new(Lane::Data);
        Receiving {
            connection,
            decoder,
            state: State::Header,
            bodies: 0,
            ahead_bytes: AHEAD_BYTES_LARGE,
            expected: HashMap::new(),
            moved: 0,
        }
    }

    /// A READ of ours is about to be sent.
    pub(crate) fn expect(&mut self, op: u64, landing: Landing) {
        if self.expected.len() % 64 == 63 {
            self.expected.retain(|_, landing| !landing.guard.is_stopped());
        }
        self.expected.insert(op, landing);
    }

    /// The engine's word on a body: it lands, or nobody wants it.
    pub(crate) fn decide(&mut self, number: u64, landing: Option<Landing>) {
        if let State::Asking { body } = self.state
            && number == self.bodies
        {
            self.state = match landing {
                Some(landing) => State::Landing { body, bytes: landing.span.left(), landing },
                None => State::Skipping { body },
            };
        }
    }

    /// Whether it moves more than a little.
    pub(crate) fn is_bulk(&self) -> bool {
        match &self.state {
            State::Header | State::Whole { .. } | State::Asking { .. } => false,
            State::Landing { landing, .. } => landing.span.left() > BRIEF_BYTES_MAX,
            State::Skipping { .. } => true,
        }
    }

    /// Whether a step may get anywhere.
    pub(crate) fn may_step(&self, socket: &Socket, reports: &Reports, effort: Effort) -> bool {
        if effort == Effort::Brief && self.is_bulk() {
            return false;
        }
        let needed = |body: &Body| if body.in_slice() == 0 { SLICE_WORD_BYTES } else { 1 };
        match &self.state {
            State::Asking { .. } => false,
            State::Header => !reports.load.is_full() && socket.may_receive(1),
            State::Whole { body, .. } => !reports.load.is_full() && socket.may_receive(needed(body)),
            State::Landing { body, .. } | State::Skipping { body } => socket.may_receive(needed(body)),
        }
    }

    /// About one system call's worth. `false`: the peer sends no more.
    pub(crate) fn step(&mut self, socket: &mut Socket, reports: &mut Reports) -> Result<bool, Errno> {
        match &self.state {
            State::Header => self.read_header(socket, reports),
            State::Whole { .. } => self.read_whole(socket, reports),
            State::Asking { .. } => Ok(true),
            State::Landing { .. } => self.read_landing(socket, reports),
            State::Skipping { .. } => self.skip(socket, reports),
        }
    }

    fn read_header(&mut self, socket: &mut Socket, reports: &mut Reports) -> Result<bool, Errno> {
        if socket.buffered().is_empty() {
            match socket.fill(self.ahead_bytes.max(self.decoder.missing()))? {
                Came::Bytes(_) => {}
                Came::Blocked => return Ok(true),
                Came::End => return Ok(false),
            }
        }
        let (taken, record) = self.decoder.take(socket.buffered()).map_err(|breach| reports.breach(breach))?;
        socket.consume(taken);
        match record {
            None => {}
            Some(Record::Write { request }) if request.length <= WHOLE_BYTES_MAX => {
                self.ahead_bytes = AHEAD_BYTES;
                let bytes = Vec::with_capacity(request.length as usize);
                let message = Message::Request(request);
                self.state = State::Whole { message, body: Body::new(request.length), bytes };
            }
            Some(Record::Write { request }) => {
                self.ask(Message::Request(request), Vec::new(), Vec::new(), request.length, reports);
            }
            Some(Record::WriteList { request, payload, table, bytes }) => {
                self.ask(Message::Request(request), payload, table, bytes, reports);
            }
            Some(Record::ReadList { request, table }) => {
                let arrived = Some(Arrived::Asked { op: request.op, table });
                reports.tell(Told::Message { message: Message::Request(request), payload: Vec::new(), arrived });
            }
            Some(Record::ReadData { op, bytes }) => self.begin_read(op, bytes, reports)?,
            // The decoder of this lane makes none.
            Some(Record::Message { .. }) => return Err(Errno::EPROTO),
        }
        Ok(true)
    }

    fn ask(
        &mut self,
        message: Message,
        payload: Vec<u8>,
        table: Vec<super::wire::Fragment>,
        bytes: u64,
        reports: &mut Reports,
    ) {
        self.bodies += 1;
        self.ahead_bytes = AHEAD_BYTES_LARGE;
        let arrived = Arrived::Waiting { connection: self.connection, body: self.bodies, table, bytes };
        self.state = State::Asking { body: Body::new(bytes) };
        reports.tell(Told::Message { message, payload, arrived: Some(arrived) });
    }

    fn begin_read(&mut self, op: u64, bytes: u64, reports: &Reports) -> Result<(), Errno> {
        let body = Body::new(bytes);
        self.state = match self.expected.remove(&op) {
            // Abandoned, or never asked for.
            None => State::Skipping { body },
            Some(landing) if landing.span.left() == bytes => State::Landing { body, landing, bytes },
            Some(landing) => {
                let expected = landing.span.left();
                return Err(reports.breach(Breach::ReadLength { asked: bytes, expected }));
            }
        };
        Ok(())
    }

    fn read_whole(&mut self, socket: &mut Socket, reports: &mut Reports) -> Result<bool, Errno> {
        let State::Whole { message, body, bytes } = &mut self.state else { return Ok(true) };
        match next(body, socket, self.ahead_bytes, reports)? {
            None => return Ok(false),
            Some(Next::Blocked) => {}
            Some(Next::Bytes(left)) => {
                if socket.buffered().is_empty() {
                    match socket.fill(self.ahead_bytes)? {
                        Came::Bytes(_) => {}
                        Came::Blocked => return Ok(true),
                        Came::End => return Ok(false),
                    }
                }
                let came = socket.buffered().len().min(left as usize);
                bytes.extend_from_slice(&socket.buffered()[..came]);
                socket.consume(came);
                body.came(came as u32);
            }
            Some(Next::End) => {
                let arrived = Some(Arrived::Whole(std::mem::take(bytes)));
                let message = *message;
                self.state = State::Header;
                reports.tell(Told::Message { message, payload: Vec::new(), arrived });
            }
            // Its sender gave it up before anybody heard of it, and knows.
            Some(Next::Abort(_)) => self.state = State::Header,
        }
        Ok(true)
    }

    fn read_landing(&mut self, socket: &mut Socket, reports: &mut Reports) -> Result<bool, Errno> {
        let State::Landing { body, landing, bytes } = &mut self.state else { return Ok(true) };
        let outcome = match next(body, socket, self.ahead_bytes, reports)? {
            None => return Ok(false),
            Some(Next::Blocked) => return Ok(true),
            Some(Next::End) => Ok(Moved { bytes: *bytes, checksum: landing.span.checksum() }),
            Some(Next::Abort(errno)) => Err(errno),
            Some(Next::Bytes(left)) => {
                if !landing.guard.enter() {
                    self.state = State::Skipping { body: *body };
                    return Ok(true);
                }
                let most = RECEIVE_BYTES.min(left as usize);
                // After the last slice: its end, and what comes then. After others: the next word, so that the next
                // slice's bytes go straight to their place.
                let ahead = match most == left as usize {
                    true if body.is_last_slice() => self.ahead_bytes,
                    true => SLICE_WORD_BYTES,
                    false => 0,
                };
                let came = socket.land(&mut landing.span, most, ahead);
                if !landing.guard.leave() {
                    reports.ended(&landing.ending, Err(Errno::EKEYREVOKED));
                }
                return match came? {
                    Came::Bytes(came) => {
                        body.came(came as u32);
                        self.moved += came as u64;
                        Ok(true)
                    }
                    Came::Blocked => Ok(true),
                    Came::End => Ok(false),
                };
            }
        };
        if landing.guard.end() {
            reports.ended(&landing.ending, outcome);
        }
        self.state = State::Header;
        Ok(true)
    }

    fn skip(&mut self, socket: &mut Socket, reports: &mut Reports) -> Result<bool, Errno> {
        let State::Skipping { body } = &mut self.state else { return Ok(true) };
        match next(body, socket, self.ahead_bytes, reports)? {
            None => return Ok(false),
            Some(Next::Blocked) => {}
            Some(Next::Bytes(left)) => match socket.skip(SKIP_BYTES.min(left as usize))? {
                Came::Bytes(came) => {
                    body.came(came as u32);
                    self.moved += came as u64;
                }
                Came::Blocked => {}
                Came::End => return Ok(false),
            },
            Some(Next::End | Next::Abort(_)) => self.state = State::Header,
        }
        Ok(true)
    }
}

/// What comes next in a body; `None`: the peer sends no more.
fn next(body: &mut Body, socket: &mut Socket, ahead: usize, reports: &Reports) -> Result<Option<Next>, Errno> {
    if body.in_slice() > 0 {
        return Ok(Some(Next::Bytes(body.in_slice())));
    }
    let word = loop {
        if let Some((word, _)) = socket.buffered().split_first_chunk() {
            break *word;
        }
        match socket.fill(ahead)? {
            Came::Bytes(_) => {}
            Came::Blocked => return Ok(Some(Next::Blocked)),
            Came::End => return Ok(None),
        }
    };
    socket.consume(SLICE_WORD_BYTES);
    match body.word(word).map_err(|breach| reports.breach(breach))? {
        Slice::Bytes(left) => Ok(Some(Next::Bytes(left))),
        Slice::End => Ok(Some(Next::End)),
        Slice::Abort(errno) => Ok(Some(Next::Abort(errno))),
    }
}
