//! `dmaplane recv`.

use super::arguments::{Fabric, RecvArguments};
use super::digest::{Checksums, FileDigest, Summary};
use super::message::{Message, PROTOCOL, to_hex};
use super::output::Output;
use super::pieces::Pieces;
use super::progress::Progress;
use super::report::{Report, say};
use super::signals;
use super::wire::{Event, Wire};
use anyhow::{Context, Result, anyhow, bail};
use dmaplane::{Buffer, Errno, Leased, Listener, Plane, Rights};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

/// Places for pieces that are granted, written to, checked or on their way to the disk.
const BUFFERS: u32 = 4;
/// How long a wait for the peer is while the disk works, and while it does not.
const GLANCE_BUSY: Duration = Duration::from_millis(1);
const GLANCE: Duration = Duration::from_millis(100);
/// How often the sender hears that the disk still works.
const BUSY_EVERY: Duration = Duration::from_secs(5);
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs the command.
pub fn run(arguments: &RecvArguments) -> Result<()> {
    signals::handle()?;
    let common = &arguments.common;
    let config = common.config()?;
    let encrypted = config.key.is_some();
    let output = Output::create(&arguments.out)?;
    let mut plane = Plane::open(config)?;
    let (listener, _socket) = listen(&mut plane, common.fabric, &arguments.listen)?;
    let wait = Duration::from_secs(arguments.wait);
    let peer = plane.accept(&listener, wait).map_err(|error| match error {
        dmaplane::Error::TimedOut { .. } => anyhow!("nobody connected within {} s (--wait)", arguments.wait),
        error => anyhow!(error),
    })?;
    let mut wire = Wire::new(plane, peer, "the sender", common.patience());
    let start = Instant::now();
    let received = transfer(&mut wire, output);
    let received = received.with_context(|| format!("{} is not written", arguments.out.display()));
    let (pieces, summary) = received.inspect_err(|error| wire.give_up(error))?;
    let time = start.elapsed();
    wire.await_end(FAREWELL);
    let report = Report {
        fabric: common.fabric.name(),
        encrypted,
        checksum: format!("{:016x}", summary.checksums.file),
        ..Report::new("recv", pieces.file_bytes(), summary.spans.len(), pieces.count(), time)
    };
    report.print(common.json)
}

/// The path of a listening socket, which goes at the end.
struct SocketPath(PathBuf, #[allow(dead_code, reason = "held until the end")] signals::Removal);

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn listen(plane: &mut Plane, fabric: Fabric, place: &str) -> Result<(Listener, Option<SocketPath>)> {
    let listening = plane.listen(&fabric.address(place)).map_err(|error| match (error.errno(), fabric) {
        (Some(Errno::EADDRINUSE), Fabric::Tcp) => anyhow!("port in use: somebody listens at {place} already"),
        (Some(Errno::EADDRINUSE), Fabric::Shm) => anyhow!("{place} is in use, or is no socket of ours"),
        (Some(Errno::EACCES), Fabric::Tcp) => {
            anyhow!("cannot listen at {place}: off loopback tcp needs a key (--key-file), and low ports need rights")
        }
        _ => anyhow!("cannot listen at {place}: {error}"),
    });
    let (listener, address) = listening?;
    let socket = (fabric == Fabric::Shm).then(|| {
        let path = PathBuf::from(place);
        SocketPath(path.clone(), signals::remove_on_signal(path))
    });
    let prefix = fabric.address("");
    say(&format!("listening on {}", address.strip_prefix(&prefix).unwrap_or(&address)))?;
    Ok((listener, socket))
}

/// What the writing thread is told.
enum Work {
    /// The next piece, so many bytes of it.
    Piece(Buffer, usize),
    /// That was all: check it, and give the file its name.
    Commit(Checksums),
}

/// What it answers.
enum Written {
    Piece(Buffer),
    All(Box<Summary>),
}

/// The writing thread: checks and writes the pieces in their order.
fn write(output: Output, bytes: u64, work: &Receiver<Work>, written: &Sender<Result<Written>>) -> Result<()> {
    let mut digest = FileDigest::new(bytes);
    let mut offset = 0;
    loop {
        match work.recv()? {
            Work::Piece(buffer, length) => {
                let piece = buffer.as_slice().get(..length).context("a buffer is shorter than its piece")?;
                digest.update(piece)?;
                output.write_at(piece, offset)?;
                offset += length as u64;
                written.send(Ok(Written::Piece(buffer)))?;
            }
            Work::Commit(sent) => {
                let summary = digest.finish()?;
                summary.check(&sent).map_err(anyhow::Error::msg)?;
                output.commit()?;
                written.send(Ok(Written::All(Box::new(summary))))?;
                return Ok(());
            }
        }
    }
}

fn transfer(wire: &mut Wire, output: Output) -> Result<(Pieces, Summary)> {
    let bytes = match wire.next_message()? {
        Message::Offer { protocol, bytes } if protocol == PROTOCOL => bytes,
        _ => bail!(wire.protocol("it offers no file")),
    };
    let pieces = Pieces::choose(bytes).ok_or_else(|| anyhow!("a file of {bytes} bytes was offered"))?;
    output.reserve(bytes)?;
    wire.say(&Message::Ready { piece_bytes: pieces.piece_bytes() })?;

    let (give, work) = channel();
    let (done, written) = channel();
    std::thread::Builder::new().name("write".into()).spawn(move || {
        if let Err(error) = write(output, bytes, &work, &done) {
            // Nobody listens any more when the transfer has ended.
            let _ = done.send(Err(error));
        }
    })?;
    let progress = Progress::new("receiving", bytes);
    let mut receiving = Receiving {
        wire,
        pieces,
        give,
        written,
        granted: BTreeMap::new(),
        arrived: BTreeMap::new(),
        next_grant: 0,
        next_write: 0,
        at_disk: 0,
        said_busy: Instant::now(),
        progress,
    };
    for _ in 0..BUFFERS.min(pieces.count()) {
        let buffer = receiving.wire.plane.alloc(pieces.range(0).end)?;
        receiving.grant(buffer)?;
    }
    let summary = receiving.run()?;
    wire.say(&Message::Done { file: summary.checksums.file }).or_else(|error| {
        // The file is there. That the sender does not hear of it is the sender's to report.
        tracing::warn!("the file is complete, but the sender does not know: {error}");
        Ok::<(), anyhow::Error>(())
    })?;
    Ok((pieces, summary))
}

/// Pieces between the peer and the disk.
struct Receiving<'a> {
    wire: &'a mut Wire,
    pieces: Pieces,
    give: Sender<Work>,
    written: Receiver<Result<Written>>,
    /// The peer may write here.
    granted: BTreeMap<u32, Leased<Buffer>>,
    /// Ours again, but earlier pieces are still due.
    arrived: BTreeMap<u32, Buffer>,
    next_grant: u32,
    next_write: u32,
    /// Works that the writing thread has not answered.
    at_disk: u32,
    said_busy: Instant,
    progress: Progress,
}

impl Receiving<'_> {
    fn run(mut self) -> Result<Summary> {
        let mut committing = false;
        loop {
            match self.written.try_recv() {
                Ok(Ok(Written::All(summary))) => return Ok(*summary),
                Ok(Ok(Written::Piece(buffer))) => {
                    self.at_disk -= 1;
                    self.grant(buffer)?;
                    continue;
                }
                Ok(Err(error)) => return Err(error),
                Err(TryRecvError::Disconnected) => bail!("the writing thread is gone"),
                Err(TryRecvError::Empty) => {}
            }
            let glance = if self.at_disk > 0 { GLANCE_BUSY } else { GLANCE };
            match self.wire.poll(glance)? {
                Some(Event::Piece(piece)) => self.take(piece)?,
                Some(Event::Message(Message::Checksums(sent))) if !committing => {
                    committing = true;
                    self.at_disk += 1;
                    // Behind the pieces that still come: those that were said to be sent have all been written.
                    self.drain()?;
                    self.hand_on(Work::Commit(sent))?;
                }
                Some(Event::Message(_)) => bail!(self.wire.protocol("a message out of turn")),
                None if self.at_disk > 0 => self.soothe()?,
                None => self.wire.check_patience()?,
            }
        }
    }

    /// The sender has ended its last write: whatever immediate is still on its way comes at once.
    fn drain(&mut self) -> Result<()> {
        while self.next_write < self.pieces.count() {
            match self.wire.poll(GLANCE)? {
                Some(Event::Piece(piece)) => self.take(piece)?,
                Some(Event::Message(_)) => bail!(self.wire.protocol("a message out of turn")),
                None => bail!(self.wire.protocol("checksums before the last piece")),
            }
        }
        Ok(())
    }

    /// Leases a buffer for the next piece, if one is still to come.
    fn grant(&mut self, buffer: Buffer) -> Result<()> {
        if self.next_grant == self.pieces.count() {
            return Ok(self.wire.plane.free(buffer)?);
        }
        let piece = self.next_grant;
        self.next_grant += 1;
        let leased = self.wire.plane.grant_to(buffer, Rights::WRITE, &self.wire.peer)?;
        let token = to_hex(&self.wire.plane.token(&leased)?);
        self.granted.insert(piece, leased);
        Ok(self.wire.say(&Message::Grant { piece, token })?)
    }

    /// Ends a piece's lease; from then on its bytes are what they are. Hands on what is next.
    fn take(&mut self, piece: u32) -> Result<()> {
        let leased = self.granted.remove(&piece).ok_or_else(|| self.wire.protocol("a piece that is not due"))?;
        let buffer = self.wire.plane.revoke(leased)?;
        self.arrived.insert(piece, buffer);
        while let Some(buffer) = self.arrived.remove(&self.next_write) {
            let range = self.pieces.range(self.next_write);
            let length = range.end - range.start;
            self.hand_on(Work::Piece(buffer, length as usize))?;
            self.progress.add(length);
            self.next_write += 1;
            self.at_disk += 1;
        }
        Ok(())
    }

    /// Gives the writing thread its next work; where it has ended, with the reason that it left.
    fn hand_on(&mut self, work: Work) -> Result<()> {
        if self.give.send(work).is_ok() {
            return Ok(());
        }
        let reason = self.written.iter().find_map(Result::err);
        Err(reason.unwrap_or_else(|| anyhow!("the writing thread is gone")))
    }

    /// The disk is what is waited for: the peer has all the time, and is told so.
    fn soothe(&mut self) -> Result<()> {
        self.wire.forgive();
        if self.said_busy.elapsed() > BUSY_EVERY {
            self.said_busy = Instant::now();
            self.wire.say(&Message::Busy)?;
        }
        Ok(())
    }
}
