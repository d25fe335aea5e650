//! How two processes come to share a link: one socket message each way, with two descriptors.

use super::link::Link;
use super::memory::{AREA_BYTES, LinkMemory, new_area};
use crate::fabric::{Connection, Pending};
use crate::memory::{PeerRegion, errno};
use dmaplane_engine::PeerInfo;
use dmaplane_ring::abi::{ABI_VERSION, Errno};
use rustix::net::sockopt;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a peer may take over its part.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks whether connecting was cancelled.
const STEP: Duration = Duration::from_millis(20);
const MAGIC: u32 = u32::from_le_bytes(*b"DPSH");
const HELLO_BYTES: usize = 40;

fn hello(info: &PeerInfo) -> [u8; HELLO_BYTES] {
    let mut bytes = [0; HELLO_BYTES];
    bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[4..8].copy_from_slice(&ABI_VERSION.to_le_bytes());
    bytes[8..16].copy_from_slice(&info.context[0].to_le_bytes());
    bytes[16..24].copy_from_slice(&info.context[1].to_le_bytes());
    bytes[24..28].copy_from_slice(&info.window.to_le_bytes());
    bytes[32..].copy_from_slice(&AREA_BYTES.to_le_bytes());
    bytes
}

fn read_hello(bytes: &[u8; HELLO_BYTES]) -> Result<PeerInfo, Errno> {
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
    let fixed = (u32_at(0), u32_at(4), u32_at(28), u64_at(32));
    if fixed != (MAGIC, ABI_VERSION, 0, AREA_BYTES) || u32_at(24) == 0 {
        return Err(Errno::EPROTO);
    }
    Ok(PeerInfo { context: [u64_at(8), u64_at(16)], window: u32_at(24) })
}

/// Connects to the socket at `path`, unless cancelled meanwhile. Blocks.
pub(crate) fn connect(path: &Path, info: &PeerInfo, cancelled: &AtomicBool) -> Result<Pending, Errno> {
    let address = SocketAddrUnix::new(path).map_err(errno)?;
    let socket = socket(SocketFlags::CLOEXEC)?;
    let deadline = Instant::now() + PATIENCE;
    // Of a listener that does not accept the backlog is full some time; connecting then waits as long as sending may.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(STEP)).map_err(errno)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => break,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::NOENT) => return Err(Errno::ECONNREFUSED),
            Err(error) => return Err(errno(error)),
        }
        // Acquire: pairs with the release of whoever cancels.
        if cancelled.load(Ordering::Acquire) {
            return Err(Errno::ECANCELED);
        }
        if Instant::now() >= deadline {
            return Err(Errno::ETIMEDOUT);
        }
    }
    shake_hands(socket, info)
}

fn socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(errno)
}

/// Listens at `path`. A socket that a dead process left there is replaced; one that answers, and anything else, is
/// -EADDRINUSE.
pub(crate) fn listen(path: &Path) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path).map_err(errno)?;
    let listener = socket(SocketFlags::CLOEXEC)?;
    if let Err(error) = rustix::net::bind(&listener, &address) {
        if error != rustix::io::Errno::ADDRINUSE || !is_stale(path, &address)? {
            return Err(errno(error));
        }
        std::fs::remove_file(path).map_err(|_| Errno::EADDRINUSE)?;
        rustix::net::bind(&listener, &address).map_err(errno)?;
    }
    rustix::net::listen(&listener, 64).map_err(errno)?;
    Ok(listener)
}

/// Whether a path names a socket at which nobody listens. Connecting is refused at any other file, too.
fn is_stale(path: &Path, address: &SocketAddrUnix) -> Result<bool, Errno> {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    // Does not wait for a listener whose backlog is full: there is one.
    let probe = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    Ok(is_socket && rustix::net::connect(&probe, address) == Err(rustix::io::Errno::CONNREFUSED))
}

/// Does a listener's part with one that has connected. Blocks: a worker's work.
pub(crate) fn serve_incoming(socket: OwnedFd, info: &PeerInfo) -> Result<Pending, Errno> {
    shake_hands(socket, info)
}

fn shake_hands(socket: OwnedFd, info: &PeerInfo) -> Result<Pending, Errno> {
    let credentials = sockopt::socket_peercred(&socket).map_err(errno)?;
    if credentials.uid != rustix::process::geteuid() {
        tracing::warn!(uid = credentials.uid.as_raw(), "shm: a process of another user tried to connect");
        return Err(Errno::EACCES);
    }
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE)).map_err(errno)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE)).map_err(errno)?;
    let ours = new_area()?;
    let area = ours.descriptor().ok_or(Errno::EIO)?;
    // One for this peer alone, who can do with it what it likes: nobody else is woken by it.
    let (bell, handed) = new_bell()?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [area, handed.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let greeting = hello(info);
    uninterrupted(|| rustix::net::sendmsg(&socket, &[IoSlice::new(&greeting)], &mut ancillary, SendFlags::NOSIGNAL))?;
    drop(handed);

    // One byte more than there may be.
    let mut bytes = [0; HELLO_BYTES + 1];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = uninterrupted(|| {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let descriptors: Vec<OwnedFd> = ancillary
        .drain()
        .flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
            _ => Vec::new(),
        })
        .collect();
    if received.bytes == 0 {
        return Err(Errno::ECONNRESET);
    }
    let Ok([area, peer_bell]) = <[OwnedFd; 2]>::try_from(descriptors) else { return Err(Errno::EPROTO) };
    if received.bytes != HELLO_BYTES {
        return Err(Errno::EPROTO);
    }
    let info = read_hello(bytes.first_chunk().ok_or(Errno::EPROTO)?)?;
    if !is_socket(&peer_bell) {
        return Err(Errno::EPROTO);
    }
    let memory = LinkMemory::new(ours, PeerRegion::check(area, AREA_BYTES)?)?;
    Ok(Pending { info, connection: Connection::Shm(Box::new(Link::new(memory, socket, bell, peer_bell))) })
}

/// Goes on where a signal interrupted it, for as long as a peer may take. Of a socket that has timeouts a call fails
/// with EINTR whatever the handler's flags say, and also when the process was stopped and goes on.
fn uninterrupted<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> Result<T, Errno> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) if Instant::now() < deadline => {}
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Err(Errno::ETIMEDOUT),
            result => return result.map_err(errno),
        }
    }
}

/// A bell and what it is rung by. Sockets, because only a socket can be written to without blocking whatever its flags
/// are, which a peer that holds it too may change at any time.
pub(super) fn new_bell() -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(errno)
}

/// Ringing anything else might do anything: a pipe without a reader is a signal.
fn is_socket(fd: &OwnedFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFSOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stop is a signal that needs no handler; others, such as a profiler's, interrupt in the same way.
    #[test]
    fn a_process_that_was_stopped_while_it_connected_was_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("listener");
        let listener = listen(&path).unwrap();
        let info = PeerInfo { context: [1, 2], window: 4 };
        std::thread::scope(|scope| {
            let connecting = scope.spawn(|| connect(&path, &info, &AtomicBool::new(false)).map(|peer| peer.info));
            let accepted = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC).unwrap();
            // It waits for our hello by now, or soon.
            let stop_and_go_on = "sleep 0.1; kill -STOP $0; sleep 0.1; kill -CONT $0";
            let us = std::process::id().to_string();
            let stopped = std::process::Command::new("sh").args(["-c", stop_and_go_on, &us]).status().unwrap();
            assert!(stopped.success());
            assert!(serve_incoming(accepted, &info).is_ok());
            assert!(matches!(connecting.join().unwrap(), Ok(PeerInfo { context: [1, 2], window: 4 })));
        });
    }
}
