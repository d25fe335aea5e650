//! An shm peer that lies, forges and hoards costs its own connection, and nothing of anybody else's.

mod raw_shm;

use dmaplane::{Config, Errno, IndexPair, List, Listener, Peer, Plane, Rights, Run};
use dmaplane_engine::{Message, Request, RequestKind};
use raw_shm::{LIST_SOURCE, Memory, REGION_DROP, Raw, SERVE, SERVE_END, SOURCE, WAIT, good_seals, token};
use std::time::{Duration, Instant};

struct Scene {
    plane: Plane,
    listener: Listener,
    address: String,
    _directory: tempfile::TempDir,
}

fn scene() -> Scene {
    scene_with(Config::default())
}

fn scene_with(config: Config) -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let mut plane = Plane::open(config).unwrap();
    let (listener, address) = plane.listen(&format!("shm:{}", directory.path().join("peer").display())).unwrap();
    Scene { plane, listener, address, _directory: directory }
}

impl Scene {
    fn meet(&mut self) -> (Raw, Peer) {
        let address = self.address.clone();
        let connecting = std::thread::spawn(move || Raw::connect(&address));
        let peer = self.plane.accept(&self.listener, WAIT).unwrap();
        (connecting.join().unwrap(), peer)
    }

    /// The plane's import of a lease that the peer makes up.
    fn import(&mut self, raw: Raw, peer: &Peer, list: bool, length: u64) -> (Raw, dmaplane::Import) {
        let granting = std::thread::spawn(move || {
            let mut raw = raw;
            raw.grant(Rights::READ.with(Rights::WRITE), list, length);
            raw
        });
        let import = self.plane.import(peer, &token(77, length, list)).unwrap();
        (granting.join().unwrap(), import)
    }
}

const BLOCK: u32 = 4096;

fn list(plane: &mut Plane, blocks: u32) -> List {
    let buffer = plane.alloc(u64::from(blocks) * u64::from(BLOCK)).unwrap();
    let run = Run { length_bytes: BLOCK, count: blocks, stride_bytes: BLOCK.into(), ..Run::default() };
    plane.prepare_list(vec![buffer], &[(0, run)]).unwrap()
}

/// WIRE-5, SHM-7: what was made for one peer's request is let go by that peer's answer alone. A second peer that forges
/// it loses its own connection.
#[test]
fn wire_5_a_forged_done_frees_another_peers_memory() {
    let mut scene = scene();
    let (a, to_a) = scene.meet();
    let (mut b, to_b) = scene.meet();
    let (mut a, import) = scene.import(a, &to_a, true, 4);
    let ours = list(&mut scene.plane, 4);
    let pairs: Vec<_> = (0..4).map(|n| IndexPair { local: n, remote: n }).collect();
    let forging = std::thread::spawn(move || {
        let heard = a.hear();
        let Some(Message::Request(request)) = heard.message else { panic!("{heard:?}") };
        b.say(&Message::Done { op: request.op, result: 0, bytes: 0 });
        let early = a.next(Duration::from_millis(300)).map(|heard| heard.kind());
        a.say(&Message::Done { op: request.op, result: 0, bytes: request.length * u64::from(BLOCK) });
        // Only now is its table needed no more.
        let dropped = a.next(Duration::from_secs(1)).map(|heard| (heard.kind(), heard.fabric[1]));
        (b, early, dropped, heard.fabric[1])
    });
    let written = scene.plane.write_list(&ours, &import, &pairs, 0, b"").unwrap();
    assert_eq!(written, 4 * u64::from(BLOCK));
    let (_b, early, dropped, table) = forging.join().unwrap();
    assert_eq!(early, None, "a region was dropped before its reader had answered");
    assert_eq!(dropped, Some((REGION_DROP, table)), "the reader is told when its own answer is there");
    assert!(scene.plane.receive(&to_b, WAIT).is_err(), "the forger is cut off");
}

/// Does `owner` with the READ that the plane posts; what the READ comes to.
fn read_from(scene: &mut Scene, owner: impl FnOnce(&mut Raw, u64) + Send) -> (Raw, Peer, dmaplane::Error) {
    let (raw, peer) = scene.meet();
    let (mut raw, import) = scene.import(raw, &peer, false, 1 << 20);
    let mut into = scene.plane.alloc(1 << 20).unwrap();
    let plane = &mut scene.plane;
    let error = std::thread::scope(|scope| {
        let raw = &mut raw;
        scope.spawn(move || {
            let request = raw.request();
            owner(raw, request.op);
        });
        plane.read(&mut into, 0, &import, 0, 1 << 20).unwrap_err()
    });
    scene.plane.free(into).unwrap();
    (raw, peer, error)
}

/// SHM-10, HOST-2: a READ whose owner names a region that it never handed over ends with the connection, and holds up
/// nothing.
#[test]
fn shm_10_a_read_hangs_when_its_owner_names_an_unknown_region() {
    let mut scene = scene();
    let start = Instant::now();
    let (_raw, peer, error) = read_from(&mut scene, |raw, op| raw.put_fabric(SERVE, [op, 7, 4242, 0]));
    assert_eq!(error.errno(), Some(Errno::EPROTO));
    scene.plane.disconnect(peer).unwrap();
    drop(scene);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// SHM-6: an owner that says that a READ went well, and has shown no bytes of it, or none that are there.
#[test]
fn shm_6_a_read_succeeds_without_its_bytes() {
    let mut scene = scene();
    for round in 0..2 {
        let (_raw, peer, error) = read_from(&mut scene, |raw, op| {
            let region = Memory::new(1 << 20, good_seals(), true);
            raw.hand_over(1, &region.fd, 1 << 20).unwrap();
            if round == 1 {
                // Reaches beyond the region.
                raw.put_fabric(SERVE, [op, 7, 1, 4096]);
                let end = raw.hear();
                assert_eq!((end.kind(), end.fabric[1], end.fabric[3]), (SERVE_END, 7, Errno::ERANGE.raw() as u64));
            }
            raw.say(&Message::Done { op, result: 0, bytes: 1 << 20 });
        });
        assert_eq!(error.errno(), Some(Errno::EPROTO), "round {round}");
        scene.plane.disconnect(peer).unwrap();
    }
}

/// SEC-5: what travels with a message that is no request would be kept by nobody's leave.
#[test]
fn sec_5_what_travels_with_no_request_is_kept_for_good() {
    let mut scene = scene();
    for (kind, payload) in [(0, &[1u8; 4096][..]), (SOURCE, &[])] {
        let (mut raw, peer) = scene.meet();
        raw.put(Message::Credits { total: 0 }.encode(), [kind, 0, 0, 0, 0, 0, 0, 0], payload);
        let error = scene.plane.receive(&peer, WAIT).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EPROTO), "kind {kind}");
        scene.plane.disconnect(peer).unwrap();
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// SEC-5, SHM-7: what a peer has handed over is let go of at its end, also when nobody disconnects it.
#[test]
fn sec_5_a_dead_peers_descriptors_stay_until_disconnect() {
    let mut scene = scene();
    let (mut raw, peer) = scene.meet();
    let region = Memory::new(4096, good_seals(), true);
    let before = descriptors();
    for number in 1..=200u64 {
        raw.hand_over(number, &region.fd, 4096).unwrap();
        if number % 50 == 0 {
            raw.put_fabric(REGION_DROP, [number, 0, 0, 0]);
        }
    }
    raw.put_fabric(REGION_DROP, [4242, 0, 0, 0]);
    scene.plane.receive(&peer, WAIT).unwrap_err();
    let deadline = Instant::now() + WAIT;
    // Other tests of this process have some, too.
    while descriptors() > before + 100 {
        assert!(Instant::now() < deadline, "{} descriptors of a dead peer", descriptors() - before);
        std::thread::sleep(Duration::from_millis(1));
    }
    scene.plane.disconnect(peer).unwrap();
}

/// SHM-7: more buffers than the socket has room for descriptors; a peer that looks only when it is made to.
#[test]
fn shm_7_a_list_over_many_buffers_waits_for_good() {
    let mut scene = scene();
    let mut other = Plane::open(Config::default()).unwrap();
    let to_us = other.connect(&scene.address, WAIT).unwrap();
    let to_other = scene.plane.accept(&scene.listener, WAIT).unwrap();
    const MANY: u32 = 350;
    let theirs = list(&mut scene.plane, MANY);
    let leased = scene.plane.grant_list(theirs, Rights::WRITE, &to_other).unwrap();
    let import = other.import(&to_us, &scene.plane.token(&leased).unwrap()).unwrap();
    let buffers: Vec<_> = (0..MANY).map(|_| other.alloc(BLOCK.into()).unwrap()).collect();
    let run = Run { length_bytes: BLOCK, count: 1, stride_bytes: BLOCK.into(), ..Run::default() };
    let runs: Vec<_> = (0..MANY as usize).map(|buffer| (buffer, run)).collect();
    let ours = other.prepare_list(buffers, &runs).unwrap();
    let pairs: Vec<_> = (0..MANY).map(|n| IndexPair { local: n, remote: n }).collect();
    assert_eq!(other.write_list(&ours, &import, &pairs, 0, b"").unwrap(), u64::from(MANY * BLOCK));
}

/// LIM-1, LST-5: one segment over and over is as many bytes as it is said often; nothing of too many moves.
#[test]
fn lim_1_a_write_list_moves_more_than_an_operation_may() {
    const SEGMENT: u32 = 1 << 20;
    const TIMES: usize = 2048;
    let mut scene = scene();
    let (mut raw, peer) = scene.meet();
    let buffer = scene.plane.alloc(SEGMENT.into()).unwrap();
    let run = Run { length_bytes: SEGMENT, count: 1, stride_bytes: SEGMENT.into(), ..Run::default() };
    let list = scene.plane.prepare_list(vec![buffer], &[(0, run)]).unwrap();
    let leased = scene.plane.grant_list(list, Rights::WRITE, &peer).unwrap();
    let lease = raw.claim(&scene.plane.token(&leased).unwrap());
    let (source, table) = (Memory::new(1 << 20, good_seals(), true), Memory::new(TIMES * 24, good_seals(), true));
    let mut entry = [0u8; 24];
    entry[..4].copy_from_slice(&1u32.to_le_bytes());
    entry[4..8].copy_from_slice(&SEGMENT.to_le_bytes());
    table.write(0, &entry.repeat(TIMES));
    source.write(0, &[0xee; 1 << 20]);
    raw.hand_over(1, &source.fd, SEGMENT.into()).unwrap();
    raw.hand_over(2, &table.fd, TIMES as u64 * 24).unwrap();
    let request = Request {
        kind: RequestKind::WriteList,
        notify: false,
        checksum: false,
        immediate: 0,
        op: 9,
        lease,
        offset: 0,
        length: TIMES as u64,
        payload_bytes: 0,
    };
    raw.put(Message::Request(request).encode(), [LIST_SOURCE, 2, 0, 0, 0, 0, 0, 0], &[]);
    assert_eq!(raw.hear().message, Some(Message::Done { op: 9, result: Errno::EMSGSIZE.as_result(), bytes: 0 }));
    let list = scene.plane.revoke(leased).unwrap();
    assert!(list.buffers()[0].as_slice().iter().all(|&byte| byte == 0));
}

/// SHM-8: all that a peer has said before its end counts, also when it had much to say.
#[test]
fn shm_8_what_a_dead_peer_said_last_is_thrown_away() {
    // Nobody looks by himself, so that the end is all that the plane hears.
    let mut scene = scene_with(Config { mode: dmaplane::RunMode::Inline, ..Config::default() });
    let (raw, peer) = scene.meet();
    let (mut raw, import) = scene.import(raw, &peer, false, 4096);
    let source = scene.plane.alloc(4096).unwrap();
    let written = scene.plane.start_write(source, 0, &import, 0, 4096).map_err(|(error, _)| error).unwrap();
    let request = raw.request();
    std::thread::sleep(Duration::from_millis(50));
    raw.holds_back = true;
    for _ in 0..250 {
        raw.say(&Message::Credits { total: 16 });
    }
    raw.say(&Message::Done { op: request.op, result: 0, bytes: 4096 });
    raw.publish();
    rustix::net::shutdown(&raw.socket, rustix::net::Shutdown::Both).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let (result, _source) = written.finish(&mut scene.plane, WAIT).map_err(|_| "in flight for too long").unwrap();
    assert_eq!(result.unwrap().word0, 4096);
}
