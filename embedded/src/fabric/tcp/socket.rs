//! One of a peer's sockets: bytes in and out without blocking, sealed where there is a key.
//!
//! Incoming bulk goes by [`Socket::land`] straight from the kernel into its place; outgoing bulk by [`Socket::flush`]
//! straight out of it. Only sealed bytes pass through memory of our own.

use super::noise::{Cipher, RECORD_BYTES_MAX};
use super::span::Span;
use crate::memory::errno;
use dmaplane_ring::abi::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Read ahead at most. More than a sealed record, so that one always fits behind an unfinished word.
const INPUT_BYTES: usize = 128 << 10;
/// Sealed bytes read at a time.
const SEALED_BYTES: usize = 256 << 10;
/// Bytes of a body sealed at a time. Sealing is work of the processor's, and whoever does it looks at nothing else.
const SEAL_BYTES: usize = 4 * RECORD_BYTES_MAX;

/// What an attempt to receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// So many bytes.
    Bytes(usize),
    /// Nothing yet.
    Blocked,
    /// The peer sends no more.
    End,
}

/// Bytes between a start and an end.
#[derive(Debug)]
struct Window {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Window {
    fn new(capacity: usize) -> Window {
        Window { bytes: vec![0; capacity].into_boxed_slice(), start: 0, end: 0 }
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room behind what is there, which moves to the front.
    fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        &mut self.bytes[self.end..]
    }
}

/// Bytes that wait, the first of which have been used. Nothing is moved for each use.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    used: usize,
}

impl Waiting {
    fn left(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.used
    }

    fn use_up(&mut self, bytes: usize) {
        self.used += bytes;
        if self.used == self.bytes.len() {
            self.bytes.clear();
            self.used = 0;
        } else if self.used > self.bytes.len() / 2 {
            // A peer that reads slowly may never let it run empty. What is left is moved, which is less than what went.
            self.bytes.drain(..self.used);
            self.used = 0;
        }
    }
}

/// A socket.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    cipher: Option<Box<Cipher>>,
    /// The kernel may have bytes for us: set by the poller, cleared by a read that found too few.
    pub readable: bool,
    /// The kernel may have room: set by the poller, cleared by a write that found too little.
    pub writable: bool,
    /// The peer has ended its side, or the connection is over.
    pub hung_up: bool,
    input: Window,
    /// With a key: bytes as they came.
    sealed: Option<Window>,
    /// Ready for the wire.
    output: Waiting,
    /// With a key: what is to be sealed next.
    plain: Waiting,
    vectors: Vec<libc::iovec>,
}

// SAFETY: the vectors are scratch, empty between calls.
unsafe impl Send for Socket {}

impl Socket {
    /// Takes a non-blocking socket whose handshake is done.
    pub(crate) fn new(fd: OwnedFd, cipher: Option<Box<Cipher>>) -> Socket {
        let sealed = cipher.as_ref().map(|_| Window::new(SEALED_BYTES));
        Socket {
            fd,
            cipher,
            readable: true,
            writable: true,
            hung_up: false,
            input: Window::new(INPUT_BYTES),
            sealed,
            output: Waiting::default(),
            plain: Waiting::default(),
            vectors: Vec::new(),
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Bytes that have been read and not been used.
    pub(crate) fn buffered(&self) -> &[u8] {
        self.input.filled()
    }

    /// Uses the first of them up.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.input.consume(bytes);
    }

    fn came(&mut self, result: Result<usize, rustix::io::Errno>, asked: usize) -> Result<Came, Errno> {
        match result {
            Ok(0) => Ok(Came::End),
            Ok(bytes) => {
                // After the peer's end no event will come any more: read on until that is read.
                self.readable = bytes == asked || self.hung_up;
                Ok(Came::Bytes(bytes))
            }
            Err(rustix::io::Errno::AGAIN) => {
                self.readable = false;
                Ok(Came::Blocked)
            }
            Err(error) => Err(errno(error)),
        }
    }

    /// Reads up to `most` bytes ahead.
    pub(crate) fn fill(&mut self, most: usize) -> Result<Came, Errno> {
        let (Some(cipher), Some(sealed)) = (&mut self.cipher, &mut self.sealed) else {
            let room = self.input.room();
            let asked = room.len().min(most);
            let result = retry(|| rustix::io::read(&self.fd, &mut room[..asked]));
            if let Ok(bytes) = result {
                self.input.end += bytes;
            }
            return self.came(result, asked);
        };
        loop {
            if let Some(bytes) = Cipher::record_bytes(sealed.filled()) {
                let room = self.input.room();
                let opened = cipher.open(&sealed.filled()[..bytes], room)?;
                sealed.consume(bytes);
                self.input.end += opened;
                // Nobody seals nothing; who did could keep its reader here for good.
                return if opened > 0 { Ok(Came::Bytes(opened)) } else { Err(Errno::EPROTO) };
            }
            if !self.readable {
                return Ok(Came::Blocked);
            }
            let room = sealed.room();
            let asked = room.len();
            let result = retry(|| rustix::io::read(&self.fd, &mut *room));
            match result {
                Ok(0) => return Ok(Came::End),
                Ok(bytes) => {
                    sealed.end += bytes;
                    self.readable = bytes == asked || self.hung_up;
                }
                Err(rustix::io::Errno::AGAIN) => {
                    self.readable = false;
                    return Ok(Came::Blocked);
                }
                Err(error) => return Err(errno(error)),
            }
        }
    }

    /// Whether an attempt to receive may bring something to who needs `needed` bytes to go on.
    pub(crate) fn may_receive(&self, needed: usize) -> bool {
        let whole = |sealed: &Window| Cipher::record_bytes(sealed.filled()).is_some();
        self.readable || self.input.filled().len() >= needed || self.sealed.as_ref().is_some_and(whole)
    }

    /// Receives up to `most` bytes into their place, and, when all of those have come, up to `ahead` bytes of what
    /// follows them. Returns how many of the former.
    pub(crate) fn land(&mut self, span: &mut Span, most: usize, ahead: usize) -> Result<Came, Errno> {
        if self.input.filled().is_empty() {
            if self.cipher.is_none() {
                return self.land_directly(span, most, ahead);
            }
            match self.fill(INPUT_BYTES)? {
                Came::Bytes(_) => {}
                other => return Ok(other),
            }
        }
        let here = self.input.filled();
        let bytes = span.put(&here[..here.len().min(most)]);
        self.input.consume(bytes);
        Ok(Came::Bytes(bytes))
    }

    fn land_directly(&mut self, span: &mut Span, most: usize, ahead: usize) -> Result<Came, Errno> {
        self.vectors.clear();
        let wanted = span.vectors(most, &mut self.vectors);
        let ahead = if wanted == most { ahead.min(self.input.bytes.len()) } else { 0 };
        if ahead > 0 {
            let start = self.input.bytes.as_mut_ptr().cast();
            self.vectors.push(libc::iovec { iov_base: start, iov_len: ahead });
        }
        let result = retry(|| {
            // SAFETY: the vectors name memory that the span holds, and our own buffer, for this one call.
            check(unsafe { libc::readv(self.fd.as_raw_fd(), self.vectors.as_ptr(), self.vectors.len() as i32) })
        });
        self.vectors.clear();
        let came = self.came(result, wanted + ahead)?;
        let Came::Bytes(bytes) = came else { return Ok(came) };
        let landed = bytes.min(wanted);
        span.landed(landed);
        (self.input.start, self.input.end) = (0, bytes - landed);
        Ok(Came::Bytes(landed))
    }

    /// Receives up to `most` bytes and throws them away.
    pub(crate) fn skip(&mut self, most: usize) -> Result<Came, Errno> {
        if self.input.filled().is_empty() {
            if self.cipher.is_none() {
                let result = retry(|| {
                    // SAFETY: with MSG_TRUNC a TCP socket drops the bytes and writes nothing.
                    check(unsafe { libc::recv(self.fd.as_raw_fd(), std::ptr::null_mut(), most, libc::MSG_TRUNC) })
                });
                return self.came(result, most);
            }
            match self.fill(INPUT_BYTES)? {
                Came::Bytes(_) => {}
                other => return Ok(other),
            }
        }
        let bytes = self.input.filled().len().min(most);
        self.input.consume(bytes);
        Ok(Came::Bytes(bytes))
    }

    /// Bytes to be sent by the next [`Socket::flush`], in order.
    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        match self.cipher {
            None => self.output.bytes.extend_from_slice(bytes),
            Some(_) => self.plain.bytes.extend_from_slice(bytes),
        }
    }

    /// Bytes that have not reached the kernel.
    pub(crate) fn unsent(&self) -> usize {
        self.output.len() + self.plain.len()
    }

    /// Sends what is queued; with a key, no more of it than one sealed record.
    pub(crate) fn flush(&mut self) -> Result<(), Errno> {
        self.seal(RECORD_BYTES_MAX)?;
        self.vectors.clear();
        self.send_vectors(0).map(drop)
    }

    /// Sends what is queued, then up to `most` bytes of memory, then, once the span is at its end, `trailer`. Returns
    /// how many bytes of memory have been taken. With a key none are while more is queued than is sealed at a time.
    pub(crate) fn flush_with(&mut self, span: &mut Span, most: usize, trailer: &[u8]) -> Result<usize, Errno> {
        if self.cipher.is_some() {
            let mut taken = 0;
            if self.output.len() == 0 {
                taken = span.take(most.min(SEAL_BYTES.saturating_sub(self.plain.len())), &mut self.plain.bytes);
                if span.left() == 0 {
                    self.plain.bytes.extend_from_slice(trailer);
                }
                self.seal(SEAL_BYTES)?;
            }
            self.vectors.clear();
            self.send_vectors(0)?;
            return Ok(taken);
        }
        self.vectors.clear();
        // The first place is for what is queued.
        self.vectors.push(libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 });
        let wanted = span.vectors(most, &mut self.vectors);
        let ends = wanted as u64 == span.left();
        if ends {
            let start = trailer.as_ptr().cast_mut().cast();
            self.vectors.push(libc::iovec { iov_base: start, iov_len: trailer.len() });
        }
        let sent = self.send_vectors(wanted + if ends { trailer.len() } else { 0 })?;
        let taken = sent.min(wanted);
        span.advance(taken);
        if ends && taken == wanted {
            self.output.bytes.extend_from_slice(&trailer[sent - taken..]);
        }
        Ok(taken)
    }

    /// Seals up to `most` of the bytes that wait for it, once all that was sealed before has gone.
    fn seal(&mut self, most: usize) -> Result<(), Errno> {
        if let Some(cipher) = &mut self.cipher
            && self.output.len() == 0
        {
            let bytes = most.min(self.plain.len());
            cipher.seal(&self.plain.left()[..bytes], &mut self.output.bytes)?;
            self.plain.use_up(bytes);
        }
        Ok(())
    }

    /// One system call for what is queued and the vectors after the first, which are `more` bytes. Returns how many of
    /// those have gone.
    fn send_vectors(&mut self, more: usize) -> Result<usize, Errno> {
        let queued = self.output.left();
        let asked = queued.len() + more;
        if asked == 0 {
            return Ok(0);
        }
        let own = libc::iovec { iov_base: queued.as_ptr().cast_mut().cast(), iov_len: queued.len() };
        match self.vectors.first_mut() {
            Some(first) => *first = own,
            None => self.vectors.push(own),
        }
        // SAFETY: all zero is a valid msghdr.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = self.vectors.as_mut_ptr();
        header.msg_iovlen = self.vectors.len();
        let queued = queued.len();
        let result = retry(|| {
            // SAFETY: the vectors name our own buffers and memory that a span holds, which the call only reads.
            check(unsafe { libc::sendmsg(self.fd.as_raw_fd(), &header, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) })
        });
        self.vectors.clear();
        let sent = match result {
            Ok(sent) => sent,
            Err(rustix::io::Errno::AGAIN) => 0,
            Err(error) => return Err(errno(error)),
        };
        self.writable = sent == asked;
        self.output.use_up(sent.min(queued));
        Ok(sent.saturating_sub(queued))
    }

    /// Ends both sides, as closing does, which an io_uring that watches it delays until it has forgotten it.
    pub(crate) fn hang_up(&self) {
        let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Both);
    }

    /// Ends our side: the peer reads what was sent, and then the end.
    pub(crate) fn shut_down(&self) {
        let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Write);
    }
}

fn check(result: isize) -> Result<usize, rustix::io::Errno> {
    usize::try_from(result).map_err(|_| {
        let raw = std::io::Error::last_os_error().raw_os_error();
        rustix::io::Errno::from_raw_os_error(raw.unwrap_or(libc::EIO))
    })
}

fn retry(mut call: impl FnMut() -> Result<usize, rustix::io::Errno>) -> Result<usize, rustix::io::Errno> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TCP-9: what has gone is not kept, also where the peer never reads all of it.
    #[test]
    fn tcp_9_what_has_been_sent_is_kept_while_more_waits() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut socket = Socket::new(ours.into(), None);
        let (chunk, mut read) = (vec![7; 64 << 10], vec![0; 64 << 10]);
        socket.queue(&vec![7; 1 << 20]);
        socket.flush().unwrap();
        assert!(socket.unsent() > 0, "the kernel took all of it");
        for _ in 0..256 {
            socket.queue(&chunk);
            std::io::Read::read_exact(&mut &theirs, &mut read).unwrap();
            socket.flush().unwrap();
            assert!(socket.unsent() > 0, "it ran empty");
        }
        let (kept, unsent) = (socket.output.bytes.len(), socket.unsent());
        assert!(kept <= 2 * unsent, "{kept} bytes for {unsent} that wait");
    }

    /// TCP-3, HOST-1: all that waited was sealed in one go, up to the 16 MiB that may wait, by whoever had something to
    /// say: the engine's thread, too.
    #[test]
    fn tcp_3_all_that_waits_is_sealed_in_one_go() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let (seals, opens) = super::super::noise::tests::pair(&[1; 32], &[1; 32]).unwrap();
        let mut socket = Socket::new(ours.into(), Some(Box::new(seals)));
        let mut their_socket = Socket::new(theirs.into(), Some(Box::new(opens)));
        let said: Vec<u8> = (0..16u32 << 20).map(|at| ((at * 11) >> 9) as u8).collect();
        said.chunks(5000).for_each(|chunk| socket.queue(chunk));
        let mut heard = Vec::with_capacity(said.len());
        while socket.unsent() > 0 {
            let waited = socket.plain.len();
            socket.flush().unwrap();
            let sealed = waited - socket.plain.len();
            assert!(sealed <= RECORD_BYTES_MAX, "{sealed} bytes in one go");
            their_socket.readable = true;
            while let Came::Bytes(_) = their_socket.fill(INPUT_BYTES).unwrap() {
                heard.extend_from_slice(their_socket.buffered());
                their_socket.consume(their_socket.buffered().len());
            }
        }
        assert!(heard == said, "{} bytes have come, or other ones", heard.len());
    }
}
