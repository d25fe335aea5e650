//! An shm peer written by hand, word by word, from clauses SHM-2 to SHM-7: it says whatever a test wants.
#![allow(dead_code, reason = "each test binary uses a part")]

use dmaplane_engine::{Message, Token};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub const WAIT: Duration = Duration::from_secs(10);
pub const CONTEXT: [u64; 2] = [0xbad, 0xbad];
const AREA_BYTES: usize = 1_085_440;
const ENTRIES: u32 = 256;

/// Kinds of the fabric's first word.
pub const SOURCE: u64 = 1;
pub const LIST_SOURCE: u64 = 2;
pub const SERVE: u64 = 4;
pub const SERVE_END: u64 = 6;
pub const REGION_DROP: u64 = 7;

/// The seals that a receiver asks for.
pub fn good_seals() -> SealFlags {
    SealFlags::SHRINK | SealFlags::FUTURE_WRITE | SealFlags::SEAL
}

/// Memory that this process can write, and hand over.
pub struct Memory {
    pub fd: OwnedFd,
    base: *mut u8,
    length: usize,
}

// SAFETY: plain shared memory, touched by atomics and raw copies.
unsafe impl Send for Memory {}

impl Memory {
    /// `touched`: all its pages are there from the beginning.
    pub fn new(length: usize, seals: SealFlags, touched: bool) -> Memory {
        let fd = rustix::fs::memfd_create("raw", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, length as u64).unwrap();
        if touched {
            for offset in (0..length).step_by(4096) {
                rustix::io::pwrite(&fd, &[0], offset as u64).unwrap();
            }
        }
        let base = map(fd.as_fd(), length, ProtFlags::READ | ProtFlags::WRITE);
        rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
        Memory { fd, base, length }
    }

    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length);
        // SAFETY: within the mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(offset), bytes.len()) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: our own mapping.
        unsafe { rustix::mm::munmap(self.base.cast(), self.length) }.unwrap();
    }
}

fn map(fd: BorrowedFd<'_>, length: usize, protection: ProtFlags) -> *mut u8 {
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, fd, 0) }.unwrap().cast()
}

/// An entry as it came.
#[derive(Clone, Debug)]
pub struct Heard {
    pub message: Option<Message>,
    pub fabric: [u64; 8],
}

impl Heard {
    pub fn kind(&self) -> u64 {
        self.fabric[0] & 0xff
    }
}

/// The peer.
pub struct Raw {
    pub socket: OwnedFd,
    /// The other side's.
    pub bell: OwnedFd,
    /// Our own bell's end that is not handed over.
    pub heard: OwnedFd,
    /// What we handed over of it: ours as well.
    pub handed: OwnedFd,
    pub ours: Memory,
    theirs: *mut u8,
    tail: u32,
    head: u32,
    /// Entries are written, and not published.
    pub holds_back: bool,
}

// SAFETY: as for `Memory`.
unsafe impl Send for Raw {}

pub fn unix_socket() -> OwnedFd {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

pub fn send_with(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
}

fn receive_with(socket: &OwnedFd, bytes: &mut [u8]) -> (usize, Vec<OwnedFd>) {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let message = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, flags).unwrap();
    let descriptors = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
        _ => Vec::new(),
    });
    (message.bytes, descriptors.collect())
}

pub fn hello() -> Vec<u8> {
    let mut bytes = b"DPSH".to_vec();
    bytes.extend_from_slice(&0u32.to_le_bytes());
    bytes.extend_from_slice(&CONTEXT[0].to_le_bytes());
    bytes.extend_from_slice(&CONTEXT[1].to_le_bytes());
    bytes.extend_from_slice(&64u32.to_le_bytes());
    bytes.extend_from_slice(&0u32.to_le_bytes());
    bytes.extend_from_slice(&(AREA_BYTES as u64).to_le_bytes());
    bytes
}

/// A bell, and what it is rung by.
pub fn bell() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
}

/// A token that names this peer's context.
pub fn token(lease: u64, length: u64, list: bool) -> [u8; Token::BYTES] {
    Token { context: CONTEXT, lease, length, shape: 3 | u64::from(list) << 16, tag: [1, 2] }.encode()
}

impl Raw {
    pub fn connect(address: &str) -> Raw {
        let socket = unix_socket();
        let path = address.strip_prefix("shm:").unwrap();
        rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        let ours = Memory::new(AREA_BYTES, good_seals(), true);
        let (heard, handed) = bell();
        send_with(&socket, &hello(), &[ours.fd.as_fd(), handed.as_fd()]).unwrap();
        let mut bytes = [0; 64];
        let (length, descriptors) = receive_with(&socket, &mut bytes);
        assert_eq!(length, 40);
        let [area, bell] = <[OwnedFd; 2]>::try_from(descriptors).unwrap();
        let theirs = map(area.as_fd(), AREA_BYTES, ProtFlags::READ);
        Raw { socket, bell, heard, handed, ours, theirs, tail: 0, head: 0, holds_back: false }
    }

    fn word32(base: *mut u8, offset: usize) -> &'static AtomicU32 {
        // SAFETY: an aligned word of an area, which lives as long as the test's `Raw`.
        unsafe { &*base.add(offset).cast() }
    }

    fn word64(base: *mut u8, offset: usize) -> &'static AtomicU64 {
        // SAFETY: as above.
        unsafe { &*base.add(offset).cast() }
    }

    /// Publishes an entry.
    pub fn put(&mut self, message: [u64; 8], mut fabric: [u64; 8], payload: &[u8]) {
        let deadline = Instant::now() + WAIT;
        // Acquire: pairs with the other side's release when it has read.
        while self.tail.wrapping_sub(Self::word32(self.theirs, 128).load(Ordering::Acquire)) >= ENTRIES {
            assert!(Instant::now() < deadline, "the other side does not read");
            std::thread::yield_now();
        }
        let slot = (self.tail % ENTRIES) as usize;
        self.ours.write(36864 + slot * 4096, payload);
        fabric[0] |= (payload.len() as u64) << 32;
        for (index, word) in message.iter().chain(&fabric).enumerate() {
            Self::word64(self.ours.base, 4096 + slot * 128 + index * 8).store(*word, Ordering::Relaxed);
        }
        self.tail = self.tail.wrapping_add(1);
        if !self.holds_back {
            self.publish();
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// Publishes what is written, without a ring of the bell.
    pub fn publish(&mut self) {
        // Release: pairs with the other side's acquire; the entries are there first.
        Self::word32(self.ours.base, 0).store(self.tail, Ordering::Release);
    }

    pub fn say(&mut self, message: &Message) {
        self.put(message.encode(), [0; 8], &[]);
    }

    /// An entry of the fabric's own.
    pub fn put_fabric(&mut self, kind: u64, words: [u64; 4]) {
        self.put([0; 8], [kind, words[0], words[1], words[2], words[3], 0, 0, 0], &[]);
    }

    /// The next entry, whatever it is; `None` when nothing comes in time.
    pub fn next(&mut self, patience: Duration) -> Option<Heard> {
        let deadline = Instant::now() + patience;
        // Acquire: pairs with the other side's release when it publishes.
        while Self::word32(self.theirs, 0).load(Ordering::Acquire) == self.head {
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        let slot = (self.head % ENTRIES) as usize;
        let word = |index: usize| Self::word64(self.theirs, 4096 + slot * 128 + index * 8).load(Ordering::Relaxed);
        let message: [u64; 8] = std::array::from_fn(word);
        let fabric = std::array::from_fn(|index| word(8 + index));
        self.head = self.head.wrapping_add(1);
        // Release: pairs with the other side's acquire; we have read before it writes there again.
        Self::word32(self.ours.base, 128).store(self.head, Ordering::Release);
        Some(Heard { message: Message::decode(&message).filter(|_| message != [0; 8]), fabric })
    }

    /// The next entry but for credits and stops.
    pub fn hear(&mut self) -> Heard {
        loop {
            let heard = self.next(WAIT).expect("the other side says something");
            if !matches!(heard.message, Some(Message::Credits { .. } | Message::Stop { .. })) {
                return heard;
            }
        }
    }

    /// The next request, with its operation.
    pub fn request(&mut self) -> dmaplane_engine::Request {
        match self.hear().message {
            Some(Message::Request(request)) => request,
            other => panic!("{other:?} where a request was to come"),
        }
    }

    /// Hands memory over under a number.
    pub fn hand_over(&mut self, number: u64, memory: &OwnedFd, length: u64) -> rustix::io::Result<usize> {
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.extend_from_slice(&length.to_le_bytes());
        send_with(&self.socket, &bytes, &[memory.as_fd()])
    }

    /// Says yes to the next claim, and grants credits.
    pub fn grant(&mut self, rights: dmaplane::Rights, list: bool, length: u64) {
        self.say(&Message::Credits { total: 16 });
        match self.hear().message {
            Some(Message::Claim { op, .. }) => self.say(&Message::Claimed { op, result: 0, rights, list, length }),
            other => panic!("{other:?} where a claim was to come"),
        }
    }

    /// Claims a lease: its handle.
    pub fn claim(&mut self, token: &[u8]) -> u64 {
        let token = Token::decode(token).unwrap();
        self.say(&Message::Claim { op: 5, lease: token.lease, tag: token.tag, import: 1 });
        assert!(matches!(self.hear().message, Some(Message::Claimed { op: 5, result: 0, .. })));
        token.lease
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and no reference into it is kept.
        unsafe { rustix::mm::munmap(self.theirs.cast(), AREA_BYTES) }.unwrap();
    }
}
