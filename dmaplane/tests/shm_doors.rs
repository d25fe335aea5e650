//! Where shm peers meet: what lies at a listener's path, who does not accept, and who knocks and says nothing.

mod raw_shm;

use dmaplane::{Config, Errno, Plane};
use raw_shm::{Memory, Raw, WAIT, good_seals, hello, send_with, unix_socket};
use rustix::net::{SendFlags, SocketAddrUnix};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// SHM-1: only a dead listener's socket is replaced.
#[test]
fn shm_1_listening_removes_a_file_that_is_no_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious");
    std::fs::write(&path, b"data").unwrap();
    let mut plane = Plane::open(Config::default()).unwrap();
    let address = format!("shm:{}", path.display());
    assert_eq!(plane.listen(&address).unwrap_err().errno(), Some(Errno::EADDRINUSE));
    assert_eq!(std::fs::read(&path).unwrap(), b"data");
    std::fs::remove_file(&path).unwrap();
    // Bound, and not listened at: its process has gone.
    rustix::net::bind(unix_socket(), &SocketAddrUnix::new(&path).unwrap()).unwrap();
    plane.listen(&address).unwrap();
    assert_eq!(plane.listen(&address).unwrap_err().errno(), Some(Errno::EADDRINUSE));
}

/// SHM-2, HOST-11: a listener that never accepts holds up neither a CONNECT nor the end of a context, nor another
/// listener's look at its socket.
#[test]
fn shm_2_connecting_to_a_full_backlog_waits_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("full");
    let name = SocketAddrUnix::new(&path).unwrap();
    let listener = unix_socket();
    rustix::net::bind(&listener, &name).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let first = unix_socket();
    rustix::net::connect(&first, &name).unwrap();
    let mut plane = Plane::open(Config::default()).unwrap();
    let address = format!("shm:{}", path.display());
    let start = Instant::now();
    assert_eq!(plane.listen(&address).unwrap_err().errno(), Some(Errno::EADDRINUSE));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(plane.connect(&address, WAIT).unwrap_err().errno(), Some(Errno::ETIMEDOUT));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // Cancelled, it ends sooner.
    let start = Instant::now();
    plane.connect(&address, Duration::from_millis(100)).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

/// SEC-5: who knocks and says nothing costs a thread and an area each; there are places for 64 of those.
#[test]
fn sec_5_silent_strangers_cost_a_thread_each() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("door");
    let mut plane = Plane::open(Config::default()).unwrap();
    let (listener, address) = plane.listen(&format!("shm:{}", path.display())).unwrap();
    let name = SocketAddrUnix::new(&path).unwrap();
    let strangers: Vec<_> = (0..200)
        .map(|_| {
            let socket = unix_socket();
            rustix::net::connect(&socket, &name).unwrap();
            socket
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
    assert!(threads < 150, "{threads} threads");
    // Once they have been given up, others get in.
    std::thread::sleep(Duration::from_millis(2500));
    let connecting = std::thread::spawn(move || Raw::connect(&address));
    plane.accept(&listener, WAIT).unwrap();
    connecting.join().unwrap();
    drop(strangers);
}

/// SHM-2: a bell is a socket. A pipe without a reader would be a signal, rung.
#[test]
fn shm_2_a_pipe_is_taken_for_a_bell() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("door");
    let mut plane = Plane::open(Config::default()).unwrap();
    let (_listener, _) = plane.listen(&format!("shm:{}", path.display())).unwrap();
    let socket = unix_socket();
    rustix::net::connect(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    let area = Memory::new(1_085_440, good_seals(), true);
    let (_, pipe) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
    send_with(&socket, &hello(), &[area.fd.as_fd(), pipe.as_fd()]).unwrap();
    // The other side's hello, then its end.
    let mut bytes = [0; 64];
    assert_eq!(rustix::io::read(&socket, &mut bytes).unwrap(), 40);
    assert_eq!(rustix::io::read(&socket, &mut bytes).unwrap_or(0), 0);
}

/// SHM-3, WAKE-1: a peer that empties the bell that it was given takes no wake-up from anybody else.
#[test]
fn wake_1_a_peer_steals_others_wake_ups() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("door");
    let config = Config { mode: dmaplane::RunMode::Poller { idle: Duration::from_micros(1) }, ..Config::default() };
    let mut plane = Plane::open(config).unwrap();
    let (listener, address) = plane.listen(&format!("shm:{}", path.display())).unwrap();
    let connecting = std::thread::spawn(move || Raw::connect(&address));
    let _peer = plane.accept(&listener, WAIT).unwrap();
    let thief = connecting.join().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let ordering = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(ordering) {
                let mut count = [0; 8];
                assert!(rustix::io::read(&thief.bell, &mut count).is_err(), "somebody else's ring");
            }
        });
        // Each goes to sleep first.
        for _ in 0..200 {
            std::thread::sleep(Duration::from_micros(300));
            let buffer = plane.alloc(4096).unwrap();
            plane.free(buffer).unwrap();
        }
        stop.store(true, ordering);
    });
}

/// SHM-2, SHM-3: a peer made its bell block whoever rang it, and so the engine, with everybody waiting for its baton.
#[test]
fn shm_3_a_bell_that_its_peer_has_filled_blocks_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("door");
    let mut plane = Plane::open(Config::default()).unwrap();
    let (listener, address) = plane.listen(&format!("shm:{}", path.display())).unwrap();
    let connecting = std::thread::spawn(move || {
        let raw = Raw::connect(&address);
        while rustix::net::send(&raw.handed, &[0; 4096], SendFlags::DONTWAIT).is_ok() {}
        for end in [&raw.handed, &raw.heard] {
            rustix::fs::fcntl_setfl(end, rustix::fs::OFlags::empty()).unwrap();
        }
        // NEED_WAKEUP, for good: each message to us is to be rung.
        raw.ours.write(256, &1u32.to_le_bytes());
        raw
    });
    let raw = connecting.join().unwrap();
    let began = std::time::Instant::now();
    let peer = plane.accept(&listener, WAIT).unwrap();
    // Its receives are told to the peer, message by message, and every call needs the baton.
    for _ in 0..50 {
        let buffer = plane.alloc(1).unwrap();
        plane.free(buffer).unwrap();
    }
    plane.disconnect(peer).unwrap();
    assert!(began.elapsed() < WAIT, "{:?}", began.elapsed());
    drop(raw);
}
