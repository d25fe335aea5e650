//! `dmaplane recv`.

use super::arguments::{Fabric, RecvArguments};
use super::digest::{Checksums, Summary};
use super::disk::Disk;
use super::message::{Message, PROTOCOL, to_hex};
use super::output::Output;
use super::pieces::{self, Pieces};
use super::progress::Progress;
use super::report::{Report, say};
use super::signals;
use super::wire::{Event, Wire};
use anyhow::{Context, Result, anyhow, bail};
use dmaplane::{Buffer, Errno, Leased, Listener, Plane, Rights};
use std::collections::BTreeMap;
use std::path::PathBuf;
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
    let mut plane = common.open(config)?;
    let (listener, _socket) = listen(&mut plane, common.fabric, &arguments.listen)?;
    let wait = Duration::from_secs(arguments.wait);
    let peer = plane.accept(&listener, wait).map_err(|error| match error {
        dmaplane::Error::TimedOut { .. } => anyhow!("nobody connected within {} s (--wait)", arguments.wait),
        error => anyhow!(error),
    })?;
    tracing::debug!("a sender is connected");
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
    let mut listen = || plane.listen(&fabric.address(place)).map_err(|error| explain_listen(fabric, place, error));
    let ((listener, address), socket) = match fabric {
        Fabric::Shm => {
            let path = PathBuf::from(place);
            let (listening, removal) = signals::remove_on_signal(path.clone(), listen)?;
            (listening, Some(SocketPath(path, removal)))
        }
        Fabric::Tcp | Fabric::Local => (listen()?, None),
    };
    let prefix = fabric.address("");
    say(&format!("listening on {}", address.strip_prefix(&prefix).unwrap_or(&address)))?;
    Ok((listener, socket))
}

fn explain_listen(fabric: Fabric, place: &str, error: dmaplane::Error) -> anyhow::Error {
    match (error.errno(), fabric) {
        (Some(Errno::EADDRINUSE), Fabric::Tcp) => anyhow!("port in use: somebody listens at {place} already"),
        (Some(Errno::EADDRINUSE), Fabric::Local) => anyhow!("name in use: somebody listens at {place} already"),
        (Some(Errno::EADDRINUSE), Fabric::Shm) => anyhow!("{place} is in use, or is no socket of ours"),
        (Some(Errno::EACCES), Fabric::Tcp) => {
            anyhow!("cannot listen at {place}: off loopback tcp needs a key (--key-file), and low ports need rights")
        }
        _ => anyhow!("cannot listen at {place}: {error}"),
    }
}

fn transfer(wire: &mut Wire, output: Output) -> Result<(Pieces, Summary)> {
    let bytes = match wire.next_message()? {
        Message::Offer { protocol, bytes } if protocol == PROTOCOL => bytes,
        _ => bail!(wire.protocol("it offers no file")),
    };
    tracing::debug!(bytes, "a file is offered");
    let longest = pieces::longest_wanted(bytes).ok_or_else(|| anyhow!("a file of {bytes} bytes was offered"))?;
    output.reserve(bytes)?;
    wire.say(&Message::Ready { piece_bytes: longest })?;
    let Message::Cut { lengths } = wire.next_message()? else {
        bail!(wire.protocol("it did not say how it cuts the file"));
    };
    let pieces = Pieces::of_lengths(&lengths, bytes, longest);
    let pieces = pieces.ok_or_else(|| wire.protocol("its pieces are not the file's"))?;
    tracing::debug!(pieces = pieces.count(), longest_bytes = pieces.longest(), "the file is cut");

    let mut receiving = Receiving {
        wire,
        disk: Disk::start(output, bytes)?,
        granted: BTreeMap::new(),
        arrived: BTreeMap::new(),
        next_grant: 0,
        next_write: 0,
        said_busy: Instant::now(),
        progress: Progress::new("receiving", bytes),
        pieces: &pieces,
    };
    for _ in 0..BUFFERS.min(pieces.count()) {
        let buffer = receiving.wire.plane.alloc(pieces.longest())?;
        receiving.grant(buffer)?;
    }
    let summary = receiving.run()?;
    tracing::debug!("the file is complete and verified");
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
    pieces: &'a Pieces,
    disk: Disk,
    /// The peer may write here.
    granted: BTreeMap<u32, Leased<Buffer>>,
    /// Ours again, but earlier pieces are still due.
    arrived: BTreeMap<u32, Buffer>,
    next_grant: u32,
    next_write: u32,
    said_busy: Instant,
    progress: Progress,
}

impl Receiving<'_> {
    fn run(mut self) -> Result<Summary> {
        loop {
            if let Some(buffer) = self.disk.written()? {
                self.grant(buffer)?;
                continue;
            }
            let glance = if self.disk.is_busy() { GLANCE_BUSY } else { GLANCE };
            match self.wire.poll(glance)? {
                Some(Event::Piece(piece)) => self.take(piece)?,
                Some(Event::Message(Message::Checksums(sent))) => {
                    // Behind the pieces that still come: those that were said to be sent have all been written.
                    self.drain()?;
                    return self.commit(sent);
                }
                Some(Event::Message(_)) => bail!(self.wire.protocol("a message out of turn")),
                None if self.disk.is_busy() => self.soothe()?,
                None => self.wire.check_patience()?,
            }
        }
    }

    /// All is here, and so is what it must be: the peer is not needed any more, and its end changes nothing.
    fn commit(self, sent: Checksums) -> Result<Summary> {
        let wire = self.wire;
        self.disk.commit(sent, BUSY_EVERY, || {
            if let Err(error) = wire.say(&Message::Busy) {
                tracing::debug!("the sender does not hear that the disk still works: {error}");
            }
        })
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
        let leased = self.wire.plane.grant_to(buffer, Rights::WRITE, &self.wire.peer);
        let leased = leased.map_err(|error| self.wire.explain(error))?;
        let token = to_hex(&self.wire.plane.token(&leased).map_err(|error| self.wire.explain(error))?);
        self.granted.insert(piece, leased);
        tracing::debug!(piece, "a place is leased");
        Ok(self.wire.say(&Message::Grant { piece, token })?)
    }

    /// Ends a piece's lease; from then on its bytes are what they are. Hands on what is next.
    fn take(&mut self, piece: u32) -> Result<()> {
        let leased = self.granted.remove(&piece).ok_or_else(|| self.wire.protocol("a piece that is not due"))?;
        let buffer = self.wire.plane.revoke(leased)?;
        tracing::debug!(piece, bytes = self.pieces.length(piece), "a piece is here, its lease is over");
        self.arrived.insert(piece, buffer);
        while let Some(buffer) = self.arrived.remove(&self.next_write) {
            let length = self.pieces.length(self.next_write);
            self.disk.write(buffer, length)?;
            self.progress.add(length);
            self.next_write += 1;
        }
        Ok(())
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
