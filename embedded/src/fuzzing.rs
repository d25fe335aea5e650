//! Ways in for fuzz targets: a hostile peer's bytes, as the fabrics receive them.

use crate::config::{Config, RunMode};
use crate::context::Context;
use crate::fabric::shm::{self, Entry};
use crate::fabric::{Connection, tcp};
use crate::memory::Region;
use dmaplane_engine::{AllocRequest, PeerInfo};
use dmaplane_ring::build::{Accept, Nop};
use dmaplane_ring::queue::Entry as _;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Decodes bytes as a tcp peer's, on either of its sockets, in pieces as they might come.
pub fn tcp_wire(control: bool, bytes: &[u8]) {
    let _ = tcp::wire::decode_all(control, bytes);
}

struct Victim {
    context: Context,
    ring: crate::Ring,
    listener: dmaplane_ring::abi::ListenerHandle,
    path: std::path::PathBuf,
}

fn victim() -> &'static Mutex<Victim> {
    static VICTIM: OnceLock<Mutex<Victim>> = OnceLock::new();
    VICTIM.get_or_init(|| {
        let config = Config { mode: RunMode::Inline, ..Config::default() };
        let context = Context::open(config).expect("a context");
        let ring = context.ring(64, 128).expect("a ring");
        let path = std::env::temp_dir().join(format!("dmaplane-fuzz-{}", std::process::id()));
        let (listener, _) = context.listen(&format!("shm:{}", path.display())).expect("a listener");
        Mutex::new(Victim { context, ring, listener, path })
    })
}

/// Connects to a context over shm as a hostile peer does, sends entries made of `bytes` (128 bytes each, some of them
/// with a payload or a region), goes, and sees that the context still serves its own client and has let go of the peer.
pub fn shm_channel(bytes: &[u8]) {
    let mut victim = victim().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let victim = &mut *victim;
    victim.ring.push(Accept::new(victim.listener).user_data(1)).expect("room");
    victim.ring.submit();
    let info = PeerInfo { context: [1, 2], window: 4 };
    let pending = shm::connect(&victim.path, &info, &AtomicBool::new(false)).expect("the listener answers");
    let accepted = victim.ring.wait_one(Duration::from_secs(5)).expect("the peer is accepted");
    let Connection::Shm(mut link) = pending.connection else { unreachable!("a link was asked for") };
    for chunk in bytes.chunks(128) {
        let word = |index: usize| {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk.iter().skip(index * 8)) {
                *to = *from;
            }
            u64::from_le_bytes(word)
        };
        let entry = Entry::load(word);
        if word(15) & 1 != 0 {
            let request = AllocRequest::plain(4096);
            if let Ok(region) = Region::allocate(&request) {
                let _ = link.share(&Arc::new(region));
            }
        }
        link.send(entry, vec![0; (word(15) >> 8) as usize % 64]);
        let _ = link.flush();
        victim.ring.enter();
    }
    link.shut_down();
    drop(link);
    let peer = dmaplane_ring::abi::PeerHandle::from_bits(accepted.word0).expect("a peer's handle");
    victim.ring.push(dmaplane_ring::build::Disconnect::new(peer).user_data(2)).expect("room");
    victim.ring.push(Nop::new().user_data(3)).expect("room");
    victim.ring.submit();
    let mut ended = 0;
    while ended < 2 {
        let cqe = victim.ring.wait_one(Duration::from_secs(5)).expect("the context still serves its client");
        assert!(cqe.res >= 0, "{cqe:?}");
        ended += 1;
    }
    let usage = victim.context.usage();
    assert_eq!((usage.peers, usage.inbound, usage.operations), (0, 0, 0), "{usage:?}");
}
