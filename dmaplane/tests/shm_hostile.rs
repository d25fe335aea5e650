//! An shm peer that lies, forges and hoards costs its own connection, and nothing of anybody else's.

mod raw_shm;

use dmaplane::{Config, IndexPair, List, Listener, Peer, Plane, Rights, Run};
use dmaplane_engine::Message;
use raw_shm::{REGION_DROP, Raw, WAIT, token};
use std::time::Duration;

struct Scene {
    plane: Plane,
    listener: Listener,
    address: String,
    _directory: tempfile::TempDir,
}

fn scene() -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let mut plane = Plane::open(Config::default()).unwrap();
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
