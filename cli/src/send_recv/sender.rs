//! `dmaplane send`.

use super::arguments::SendArguments;
use super::digest::{FileDigest, Summary};
use super::header::{self, FormatError, LENGTH_BYTES, Span};
use super::message::{Message, PROTOCOL, from_hex};
use super::pieces::Pieces;
use super::progress::Progress;
use super::report::Report;
use super::signals;
use super::wire::{Event, Wire, WireError};
use anyhow::{Context, Result, anyhow, bail, ensure};
use dmaplane::{Buffer, Errno, Import, Operation};
use rustix::fs::OFlags;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Pieces that are read, or wait, or move.
const BUFFERS: usize = 4;
/// Pieces that move at a time.
const IN_FLIGHT: usize = 2;
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// A socket of another type: not one that an shm receiver made.
const EPROTOTYPE: i32 = 91;
/// How often the peer is looked at while the disk is waited for.
const GLANCE: Duration = Duration::from_millis(100);

/// Runs the command.
pub fn run(arguments: &SendArguments) -> Result<()> {
    signals::handle()?;
    let common = &arguments.common;
    let config = common.config()?;
    let encrypted = config.key.is_some();
    let source = Source::open(&arguments.file).with_context(|| arguments.file.display().to_string())?;
    let mut plane = common.open(config)?;
    let address = common.fabric.address(&arguments.to);
    let peer = plane.connect(&address, CONNECT_PATIENCE);
    let peer = peer.map_err(|error| explain_connect(&arguments.to, error))?;
    tracing::debug!(place = arguments.to, "connected");
    let mut wire = Wire::new(plane, peer, "the receiver", common.patience());
    let start = Instant::now();
    let sent = transfer(&mut wire, source, arguments.limit_rate)
        .with_context(|| format!("sending {}", arguments.file.display()));
    let (pieces, summary) = sent.inspect_err(|error| wire.give_up(error))?;
    let report = Report {
        fabric: common.fabric.name(),
        encrypted,
        checksum: format!("{:016x}", summary.checksums.file),
        ..Report::new("send", pieces.file_bytes(), summary.spans.len(), pieces.count(), start.elapsed())
    };
    report.print(common.json)
}

fn explain_connect(place: &str, error: dmaplane::Error) -> anyhow::Error {
    match error.errno() {
        Some(Errno::ECONNREFUSED) => anyhow!("nobody listens at {place}"),
        Some(Errno::EPROTO) => anyhow!("what listens at {place} speaks another protocol"),
        Some(errno) if errno.raw() == EPROTOTYPE => anyhow!("the socket at {place} speaks another protocol"),
        Some(Errno::ECONNRESET) => anyhow!("the receiver is gone: what listened at {place} hung up at once"),
        Some(Errno::ETIMEDOUT) => anyhow!("what listens at {place} does not answer: another protocol?"),
        Some(Errno::EKEYREJECTED) => {
            anyhow!("wrong key: {place} did not accept it (--key-file, on both sides or none)")
        }
        Some(Errno::EINVAL) => anyhow!("'{place}' is no place: write HOST:PORT, or a PATH with --fabric shm"),
        Some(Errno::ENOENT) => anyhow!("no host has the name in {place}"),
        _ => anyhow!("{place}: {error}"),
    }
}

/// The file to be sent.
struct Source {
    file: File,
    bytes: u64,
    before: Metadata,
    data_start: u64,
    tensors: Vec<Span>,
}

impl Source {
    /// Opens it and checks its header, all before anybody is connected to.
    fn open(path: &Path) -> Result<Source> {
        ensure_regular(&std::fs::metadata(path)?)?;
        // Should another file have taken its place since: not even a pipe without a writer is waited for.
        let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
        let before = file.metadata()?;
        ensure_regular(&before)?;
        let bytes = before.len();
        let mut head = vec![0; bytes.min(LENGTH_BYTES + 1) as usize];
        read_at(&file, &mut head, 0)?;
        let data_start = header::data_start(&head, bytes)?;
        head.resize(data_start as usize, 0);
        read_at(&file, &mut head, 0)?;
        let tensors = header::parse(&head, bytes)?;
        Ok(Source { file, bytes, before, data_start, tensors })
    }

    /// Reads all pieces in order into the buffers that come, and hashes them. The file is read, not mapped: one that
    /// is cut meanwhile is an error then, not a signal.
    fn read(
        &self,
        pieces: &Pieces,
        bytes_per_second: Option<u64>,
        empty: &Receiver<Buffer>,
        full: &Sender<Result<Read>>,
    ) -> Result<Summary> {
        let mut digest = FileDigest::new(self.bytes);
        let start = Instant::now();
        for piece in 0..pieces.count() {
            let range = pieces.range(piece);
            let mut buffer = empty.recv().context("the transfer has ended")?;
            let place = buffer.as_mut_slice().get_mut(..(range.end - range.start) as usize);
            let place = place.context("a buffer is shorter than a piece")?;
            read_at(&self.file, place, range.start)?;
            digest.update(place)?;
            if let Some(rate) = bytes_per_second {
                let due = start + Duration::from_secs_f64(range.end as f64 / rate as f64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            full.send(Ok(Read::Piece(piece, buffer)))?;
        }
        let after = self.file.metadata()?;
        let unchanged = (after.len(), after.modified()?) == (self.before.len(), self.before.modified()?);
        ensure!(unchanged, "the file was changed while it was sent");
        Ok(digest.finish()?)
    }
}

fn ensure_regular(metadata: &Metadata) -> Result<()> {
    let kind = metadata.file_type();
    let found = match () {
        _ if kind.is_file() => return Ok(()),
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    bail!("not a regular file, but {found}")
}

fn read_at(file: &File, place: &mut [u8], offset: u64) -> Result<()> {
    file.read_exact_at(place, offset).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            let found = file.metadata().map(|metadata| metadata.len()).unwrap_or(0);
            FormatError::Truncated { needed: offset + place.len() as u64, found }.into()
        }
        _ => error.into(),
    })
}

/// What the reading thread has.
enum Read {
    Piece(u32, Buffer),
    All(Box<Summary>),
}

fn transfer(wire: &mut Wire, source: Source, limit_mib: Option<u64>) -> Result<(Pieces, Summary)> {
    wire.say(&Message::Offer { protocol: PROTOCOL.to_owned(), bytes: source.bytes })?;
    let Message::Ready { piece_bytes } = wire.next_message()? else {
        bail!(wire.protocol("it did not answer the offer"));
    };
    let pieces = Pieces::cut(source.data_start, &source.tensors, piece_bytes);
    let pieces = pieces.ok_or_else(|| wire.protocol("pieces of an absurd size"))?;
    tracing::debug!(pieces = pieces.count(), longest_bytes = pieces.longest(), "the file is cut");
    wire.say(&Message::Cut { lengths: pieces.lengths() })?;
    let (give, empty) = channel();
    let (full, take) = channel();
    let room = pieces.longest();
    for _ in 0..BUFFERS.min(pieces.count() as usize) {
        give.send(wire.plane.alloc(room)?)?;
    }
    let rate = limit_mib.map(|mib| mib << 20);
    let to_read = pieces.clone();
    std::thread::Builder::new().name("read".into()).spawn(move || {
        let all = source.read(&to_read, rate, &empty, &full);
        // Nobody listens any more when the transfer has ended.
        let _ = full.send(all.map(|summary| Read::All(Box::new(summary))));
    })?;
    let mut sending = Sending { wire, give, take, grants: BTreeMap::new(), in_flight: VecDeque::new() };
    let progress = Progress::new("sending", pieces.file_bytes());
    for piece in 0..pieces.count() {
        let length = pieces.length(piece);
        sending.start(piece, length)?;
        progress.add(length);
    }
    while !sending.in_flight.is_empty() {
        sending.finish_one()?;
    }
    let summary = sending.summary()?;
    wire.say(&Message::Checksums(summary.checksums.clone()))?;
    wire.forgive();
    match wire.next_message()? {
        Message::Done { file } if file == summary.checksums.file => Ok((pieces, summary)),
        _ => bail!(wire.protocol("it did not confirm the file")),
    }
}

/// Pieces between the disk and the peer.
struct Sending<'a> {
    wire: &'a mut Wire,
    /// Buffers go back to the reading thread.
    give: Sender<Buffer>,
    take: Receiver<Result<Read>>,
    /// Places for pieces, by piece.
    grants: BTreeMap<u32, Vec<u8>>,
    in_flight: VecDeque<(u32, Import, Operation<Buffer>)>,
}

impl Sending<'_> {
    fn start(&mut self, piece: u32, length: u64) -> Result<()> {
        let buffer = match self.next_read()? {
            Read::Piece(read, buffer) if read == piece => buffer,
            _ => bail!("the pieces came out of order"),
        };
        let token = self.grant(piece)?;
        // Its engine answers at once, unless it stands still.
        let import = self.wire.plane.import(&self.wire.peer, &token);
        let import = import.map_err(|error| self.wire.explain(error))?;
        tracing::debug!(piece, bytes = length, "a lease is claimed");
        if import.length() < length {
            bail!(self.wire.protocol("a place that is shorter than its piece"));
        }
        let started = self.wire.plane.start_write_imm(buffer, 0, &import, 0, length, piece);
        self.in_flight.push_back((piece, import, started.map_err(|(error, _)| error)?));
        if self.in_flight.len() >= IN_FLIGHT {
            self.finish_one()?;
        }
        Ok(())
    }

    /// What the reading thread has next. A peer that dies meanwhile is noticed.
    fn next_read(&mut self) -> Result<Read> {
        loop {
            match self.take.recv_timeout(Duration::ZERO) {
                Ok(read) => return read,
                Err(RecvTimeoutError::Disconnected) => bail!("the reading thread is gone"),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.listen(Duration::ZERO)?;
            match self.take.recv_timeout(GLANCE) {
                Ok(read) => return read,
                Err(_) => self.wire.forgive(),
            }
        }
    }

    fn grant(&mut self, piece: u32) -> Result<Vec<u8>> {
        self.wire.forgive();
        loop {
            if let Some(token) = self.grants.remove(&piece) {
                return Ok(token);
            }
            self.listen(GLANCE)?;
            self.wire.check_patience()?;
        }
    }

    /// Takes what the receiver says: grants.
    fn listen(&mut self, slice: Duration) -> Result<(), WireError> {
        match self.wire.poll(slice)? {
            Some(Event::Message(Message::Grant { piece, token })) => {
                let token = from_hex(&token).ok_or_else(|| self.wire.protocol("a token that is none"))?;
                if self.grants.len() >= 64 {
                    return Err(self.wire.protocol("more places than anybody needs"));
                }
                self.grants.insert(piece, token);
                Ok(())
            }
            Some(Event::Message(Message::Busy)) | None => Ok(()),
            Some(_) => Err(self.wire.protocol("an answer that nobody asked for")),
        }
    }

    /// Waits for the oldest piece on its way.
    fn finish_one(&mut self) -> Result<()> {
        let Some((piece, import, mut operation)) = self.in_flight.pop_front() else { return Ok(()) };
        self.wire.forgive();
        let (result, buffer) = loop {
            match operation.finish(&mut self.wire.plane, GLANCE) {
                Ok(finished) => break finished,
                Err(unfinished) => operation = unfinished,
            }
            // It may have said why it does not take it.
            self.listen(Duration::ZERO)?;
            self.wire.check_patience()?;
        };
        result.map_err(|error| self.wire.explain(error))?;
        tracing::debug!(piece, "a piece is written");
        // The receiver ends the lease when it has the piece; then this says so, and is no error.
        let _ = self.wire.plane.release(import);
        // The reading thread has ended when all is read.
        let _ = self.give.send(buffer);
        Ok(())
    }

    fn summary(mut self) -> Result<Summary> {
        match self.next_read()? {
            Read::All(summary) => Ok(*summary),
            Read::Piece(..) => bail!("the file has more pieces than it had"),
        }
    }
}
