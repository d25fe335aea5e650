//! A hostile peer on the shared-memory channel (clauses SHM-2 to SHM-5), before the whole command.
//!
//! What a shm peer can do, it does by the descriptors that it hands over. So it is an honest `dmaplane send`, with a
//! relay that shakes hands with others in their place; or one whose memory this test attacks from outside; or the
//! library, with a buffer that is not sealed.

mod common;

use common::files::Random;
use common::{Bench, Running, files};
use dmaplane::{Config, Plane};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Nothing may take longer than this.
const LIMIT: Duration = Duration::from_secs(20);
/// What a link's area and a buffer are handed over with.
const HONEST_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::FUTURE_WRITE).union(SealFlags::SEAL);

/// A message on the channel: bytes and descriptors. The first of a side is its hello, with its area and its bell; each
/// later one hands over a buffer.
struct Parcel {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

fn socket() -> OwnedFd {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

fn connect(path: &Path) -> OwnedFd {
    let socket = socket();
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    socket
}

/// `None`: it is over.
fn receive(socket: &OwnedFd) -> Option<Parcel> {
    let mut bytes = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut bytes)];
    let count = rustix::net::recvmsg(socket, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?.bytes;
    let descriptors = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
        _ => Vec::new(),
    });
    let descriptors: Vec<OwnedFd> = descriptors.collect();
    bytes.truncate(count);
    (count > 0).then_some(Parcel { bytes, descriptors })
}

fn send(socket: &OwnedFd, parcel: &Parcel) -> bool {
    let descriptors: Vec<BorrowedFd<'_>> = parcel.descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&parcel.bytes)], &mut ancillary, SendFlags::NOSIGNAL).is_ok()
}

/// Hands on what comes, until either side hangs up.
fn pass_on(from: &OwnedFd, to: &OwnedFd) {
    while let Some(parcel) = receive(from) {
        if !send(to, &parcel) {
            break;
        }
    }
    for socket in [from, to] {
        let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
    }
}

/// Sends the file to the receiver by way of a relay, which does this to the sender's hello; `None`: it hangs up. (What
/// comes after a hello must not be late: entries that need it go by shared memory.)
fn send_with_hello(
    bench: &Bench,
    place: &str,
    tamper: impl FnOnce(Parcel) -> Option<Parcel> + Send + 'static,
) -> Running {
    let path = bench.path("relay");
    let _ = std::fs::remove_file(&path);
    let listener = socket();
    rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    let there = Arc::new(connect(Path::new(place)));
    std::thread::spawn(move || {
        let here = Arc::new(rustix::net::accept(&listener).unwrap());
        let (to, from) = (here.clone(), there.clone());
        let back = std::thread::spawn(move || pass_on(&from, &to));
        let hello = receive(&here).expect("a hello");
        match tamper(hello) {
            Some(hello) if send(&there, &hello) => pass_on(&here, &there),
            _ => {
                let _ = rustix::net::shutdown(&there, rustix::net::Shutdown::Both);
            }
        }
        back.join().unwrap();
    });
    bench.send(path.to_str().unwrap(), &bench.text("model.safetensors"), &[])
}

fn memfd(bytes: &[u8], length: u64, seals: SealFlags) -> OwnedFd {
    let fd = rustix::fs::memfd_create("hostile", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, length).unwrap();
    let mut offset = 0;
    while offset < bytes.len() {
        offset += rustix::io::pwrite(&fd, &bytes[offset..], offset as u64).unwrap();
    }
    rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
    fd
}

fn length(fd: &OwnedFd) -> u64 {
    rustix::fs::fstat(fd).unwrap().st_size as u64
}

/// Truncates memory and punches holes into it: how much of that the kernel did, and how much it refused.
fn vandalize(fd: &OwnedFd) -> (u64, u64) {
    let size = length(fd);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let acts = [
        rustix::fs::fallocate(fd, punch, 0, size),
        rustix::fs::ftruncate(fd, size / 2),
        rustix::io::pwrite(fd, b"x", 0).map(drop),
    ];
    let refused = acts.iter().filter(|act| **act == Err(Errno::PERM)).count() as u64;
    (acts.iter().filter(|act| act.is_ok()).count() as u64, refused)
}

/// The sealed memory of a process, opened by way of /proc.
fn memory_of(process: u32) -> Vec<OwnedFd> {
    let Ok(links) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return Vec::new() };
    let links = links.flatten().map(|entry| entry.path());
    let shared = |path: &PathBuf| std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:"));
    let open = |path: PathBuf| File::options().read(true).write(true).open(path).ok().map(OwnedFd::from);
    // What is not sealed yet is not handed over yet.
    let sealed = |fd: &OwnedFd| rustix::fs::fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SealFlags::SEAL));
    links.filter(shared).filter_map(open).filter(sealed).collect()
}

/// Has this process's one buffer of `bytes` bytes name another memory when it is handed over.
fn give_other_memory(bytes: u64, memory: &OwnedFd) {
    let numbers = std::fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| {
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        let to = std::fs::read_link(entry.path()).ok()?;
        let of_that_size = std::fs::metadata(entry.path()).is_ok_and(|metadata| metadata.len() == bytes);
        (to.to_string_lossy().starts_with("/memfd:") && of_that_size && number != memory.as_raw_fd()).then_some(number)
    });
    let numbers: Vec<i32> = numbers.collect();
    let [number] = numbers[..] else { panic!("{numbers:?}: one buffer of {bytes} bytes") };
    // SAFETY: the number is open, as was just seen; it is given back to its owner, which is all that closes it.
    let mut theirs = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::dup2(memory, &mut theirs).unwrap();
    let _ = theirs.into_raw_fd();
}

fn bench() -> Bench {
    let bench = Bench::new("shm");
    files::write(&bench.path("model.safetensors"), 16);
    bench
}

/// The receiver turned the hostile one away, said so, and serves the next.
fn turned_away(bench: &Bench, recv: Running, place: &str, times: usize) {
    bench.send(place, &bench.text("model.safetensors"), &[]).end_within(LIMIT).succeeded();
    let ended = recv.end_within(LIMIT).succeeded();
    assert_eq!(ended.stderr.matches("turned away").count(), times, "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), times, "{ended:?}");
    assert!(files::same(&bench.path("model.safetensors"), &bench.out()));
}

/// The receiver had let the hostile one in: it ended with one line and wrote nothing.
fn ended(bench: &Bench, recv: Running, said: &str) {
    recv.end_within(LIMIT).failed_with(said);
    assert_eq!(bench.received(), [""; 0]);
}

/// SHM-4: a buffer that could be truncated or punched under a copy is not touched, and nothing of it arrives.
#[test]
fn shm_4_a_buffer_that_can_vanish_is_refused() {
    // As nothing else here is.
    const BYTES: u64 = 48 << 10;
    let bench = bench();
    for seals in [SealFlags::empty(), HONEST_SEALS - SealFlags::SHRINK, HONEST_SEALS - SealFlags::FUTURE_WRITE] {
        let (recv, place) = bench.recv(&["--patience", "2"]);
        let mut plane = Plane::open(Config::default()).unwrap();
        let peer = plane.connect(&format!("shm:{place}"), LIMIT).unwrap();
        let say = |plane: &mut Plane, text: String| plane.send_message(&peer, text.as_bytes(), LIMIT).unwrap();
        let hear = |plane: &mut Plane| -> serde_json::Value {
            serde_json::from_slice(&plane.receive_message(&peer, 1 << 20, LIMIT).unwrap()).unwrap()
        };
        say(&mut plane, format!("{{\"kind\":\"offer\",\"protocol\":\"dmaplane-file/1\",\"bytes\":{BYTES}}}"));
        assert_eq!(hear(&mut plane)["kind"], "ready");
        say(&mut plane, format!("{{\"kind\":\"cut\",\"lengths\":[{BYTES}]}}"));
        let grant = hear(&mut plane);
        let digits = grant["token"].as_str().unwrap();
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let token: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        let import = plane.import(&peer, &token).unwrap();

        // The library only makes sealed memory and takes in none that is not: so it is given other memory behind its
        // back.
        let buffer = plane.alloc(BYTES).unwrap();
        let fd = memfd(&[], BYTES, SealFlags::empty());
        give_other_memory(BYTES, &fd);
        rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
        let stop = Arc::new(());
        let still = Arc::downgrade(&stop);
        let vandal = std::thread::spawn(move || {
            while still.strong_count() > 0 {
                vandalize(&fd);
            }
        });
        for round in 0..100 {
            let errno = plane.write(&buffer, 0, &import, 0, BYTES).unwrap_err().errno().unwrap();
            // Not sealed; from then on it is memory that the receiver does not have.
            let refused = if round == 0 { Errno::PERM } else { Errno::PROTO };
            assert_eq!(errno.raw(), refused.raw_os_error(), "{seals:?}, round {round}");
        }
        drop((stop, plane));
        vandal.join().unwrap();
        ended(&bench, recv, "the sender is gone");
    }
    bench.transfer(&bench.text("model.safetensors"));
}

/// SHM-4: what the seals promise the kernel holds, against everybody, while the receiver copies.
#[test]
fn shm_4_a_sealed_buffer_cannot_be_made_to_vanish_in_mid_copy() {
    let bench = bench();
    let (recv, place) = bench.recv(&[]);
    let mut send = bench.send(&place, &bench.text("model.safetensors"), &["--limit-rate", "16"]);
    let (mut done, mut refused) = (0, 0);
    while send.is_running() {
        for memory in memory_of(send.id()) {
            let (more_done, more_refused) = vandalize(&memory);
            (done, refused) = (done + more_done, refused + more_refused);
        }
    }
    send.end_within(LIMIT).succeeded();
    recv.end_within(LIMIT).succeeded();
    assert!(done == 0 && refused > 1000, "the kernel did {done} and refused {refused}");
    assert!(files::same(&bench.path("model.safetensors"), &bench.out()));
}

/// SHM-2: an area that could vanish under its reader is as bad, and never gets as far as a transfer.
#[test]
fn shm_2_an_area_that_can_vanish_is_turned_away() {
    let bench = bench();
    let (recv, place) = bench.recv(&[]);
    for missing in [HONEST_SEALS, SealFlags::SHRINK, SealFlags::FUTURE_WRITE, SealFlags::SEAL] {
        let send = send_with_hello(&bench, &place, move |mut parcel| {
            parcel.descriptors[0] = memfd(&[], length(&parcel.descriptors[0]), HONEST_SEALS - missing);
            Some(parcel)
        });
        send.end_within(LIMIT).failed_with("the receiver is gone");
    }
    turned_away(&bench, recv, &place, 4);
}

/// SHM-5: entries that no honest peer writes.
#[test]
fn shm_5_garbage_in_the_area_ends_the_transfer() {
    let bench = bench();
    for seed in 1..=16 {
        let (recv, place) = bench.recv(&["--patience", "1"]);
        let send = send_with_hello(&bench, &place, move |mut parcel| {
            let mut random = Random(seed);
            let mut bytes = vec![0; length(&parcel.descriptors[0]) as usize];
            // All of it, or such a part that the reader's own words stay zero.
            let from = [0, 128, 4096, bytes.len()][seed as usize % 4];
            random.fill(&mut bytes[from..]);
            // How many entries there are: a few, a whole queue, more than there can be.
            let tail = [1u32, 256, 1 << 31, u32::MAX][seed as usize / 4 % 4];
            bytes[..4].copy_from_slice(&tail.to_le_bytes());
            parcel.descriptors[0] = memfd(&bytes, bytes.len() as u64, HONEST_SEALS);
            Some(parcel)
        });
        ended(&bench, recv, "the sender");
        drop(send);
    }
    bench.transfer(&bench.text("model.safetensors"));
}

/// SHM-2: who does not shake hands as it should.
#[test]
fn shm_2_handshakes_that_are_none_are_turned_away() {
    let bench = bench();
    let (recv, place) = bench.recv(&[]);
    let plain = |bytes: &[u8]| Parcel { bytes: bytes.to_vec(), descriptors: Vec::new() };
    let mut noise = vec![0; 40];
    Random(3).fill(&mut noise);
    let two = |bytes: &[u8]| Parcel {
        bytes: bytes.to_vec(),
        descriptors: vec![memfd(&[], 4096, HONEST_SEALS), memfd(&[], 4096, HONEST_SEALS)],
    };
    // Nothing at all, text, noise, noise with descriptors.
    let strangers = [None, Some(plain(b"GET / HTTP/1.1\r\n\r\n")), Some(plain(&noise)), Some(two(&noise))];
    let times = strangers.len();
    for parcel in strangers {
        let socket = connect(Path::new(&place));
        if let Some(parcel) = parcel {
            assert!(send(&socket, &parcel));
        }
        let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Write);
        // Its hello, then its end.
        while receive(&socket).is_some() {}
    }
    // A bell that blocks whoever rings it, and no bell.
    for bell in [true, false] {
        let send = send_with_hello(&bench, &place, move |mut parcel| {
            let bell = bell.then(|| {
                let (read, write) = rustix::pipe::pipe().unwrap();
                drop(read);
                write
            });
            parcel.descriptors.truncate(1);
            parcel.descriptors.extend(bell);
            Some(parcel)
        });
        send.end_within(LIMIT).failed_with("the receiver is gone");
    }
    turned_away(&bench, recv, &place, times + 2);
}

/// SHM-9: a peer that is let in and goes.
#[test]
fn shm_9_a_peer_that_shakes_hands_and_hangs_up_ends_the_transfer() {
    let bench = bench();
    let (recv, place) = bench.recv(&[]);
    let hello = Arc::new(Mutex::new(None));
    let keep = hello.clone();
    // Somebody's hello, which its own sender never gets through.
    send_with_hello(&bench, &place, move |parcel| {
        *keep.lock().unwrap() = Some(parcel);
        None
    })
    .end_within(LIMIT)
    .failed_with("the receiver is gone");
    let socket = connect(Path::new(&place));
    assert!(send(&socket, hello.lock().unwrap().as_ref().unwrap()));
    assert!(receive(&socket).is_some());
    drop(socket);
    ended(&bench, recv, "the sender is gone");
    bench.transfer(&bench.text("model.safetensors"));
}
