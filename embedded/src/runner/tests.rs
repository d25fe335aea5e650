//! What one hold of the baton does, and what it leaves. Without a service thread, unless a test starts one: so nobody
//! hides what was forgotten.

use super::*;
use crate::config::Config;
use crate::memory::Region;
use dmaplane_engine::AllocRequest;
use dmaplane_ring::abi::{BufferHandle, RingFlags, Run};
use dmaplane_ring::build::ListPrepare;
use dmaplane_ring::queue::{RingMemory, RingWord};

fn shared(mode: RunMode) -> Arc<Shared> {
    Shared::new(Config { mode, workers: 1, ..Config::default() }).unwrap()
}

fn buffer(shared: &Shared, length_bytes: u64) -> (BufferHandle, Arc<Region>) {
    let region = Region::allocate(&AllocRequest { length_bytes, node: None, strict: false, huge: false }).unwrap();
    shared.with_core(|_, core| {
        let handle = core.engine.add_buffer(region.length_bytes()).unwrap();
        core.host.put_region(handle.index(), region);
        (BufferHandle::from_bits(handle.bits()).unwrap(), core.host.region(handle.index()).unwrap())
    })
}

/// So many runs of one byte each, of the buffer that they lie in.
fn runs(shared: &Shared, count: u64) -> BufferHandle {
    let (buffer, region) = buffer(shared, count * Run::BYTES);
    let run = Run { buffer: buffer.handle().bits(), length_bytes: 1, count: 1, ..Run::default() };
    let run: Vec<u8> = run.to_words().iter().flat_map(|word| word.to_le_bytes()).collect();
    region.write(0, &run.repeat(count as usize)).unwrap();
    buffer
}

/// Whoever took the baton ran the engine as long as anybody made work: here a worker, until a list was checked.
#[test]
fn a_holder_of_the_baton_is_not_kept_by_endless_work() {
    let shared = shared(RunMode::Inline);
    let mut ring = shared.attach(RingLayout::new(16, 16).unwrap()).unwrap();
    let count = u64::from(HOLD_TURNS) * 4096 * 4;
    ring.push(ListPrepare::new(runs(&shared, count), 0, count).unwrap()).unwrap();
    ring.submit();
    // As if the service thread slept.
    shared.sleeps_until_ns.store(u64::MAX, Ordering::Relaxed);
    let mut seen_at_work = 0;
    let start = Instant::now();
    // Each call runs the engine, too, within its own bound.
    while ring.reap_one().is_none() {
        seen_at_work += u32::from(shared.with_core(|_, core| core.engine.has_work()));
        assert!(start.elapsed() < Duration::from_secs(20), "it is never done");
    }
    assert!(seen_at_work >= 2, "one hold of the baton did all of it");
    let mut count = [0; 8];
    assert!(rustix::io::read(&shared.bell, &mut count).is_ok(), "nobody was told of the work that was left");
}

/// A service thread of its own, and its end.
struct Served {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    fn start(shared: &Arc<Shared>) -> Served {
        let serving = shared.clone();
        Served { shared: shared.clone(), thread: Some(std::thread::spawn(move || serving.serve())) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.ring_bell();
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::yield_now();
    }
}

/// The service thread woke, found the baton held, went round again and left its flags up: from then on every batch of
/// every client cost a bell.
#[test]
fn flags_come_down_after_a_wake_up_that_found_the_baton_held() {
    let shared = shared(RunMode::Poller { idle: Duration::from_millis(300) });
    let ring = shared.attach(RingLayout::new(16, 16).unwrap()).unwrap();
    let _served = Served::start(&shared);
    let asleep = |shared: &Shared| shared.sleeps_until_ns.load(Ordering::Acquire) != AWAKE;
    let flags = || ring.memory().word(RingWord::EngineFlags).load(Ordering::Relaxed);
    until("it never sleeps", || asleep(&shared));
    assert_eq!(flags(), RingFlags::NEED_WAKEUP.bits());
    until("the baton is never free", || shared.baton.try_take());
    shared.ring_bell();
    until("it never wakes", || !asleep(&shared));
    std::thread::sleep(Duration::from_millis(20));
    shared.let_go_for_good();
    until("its flags stay up", || flags() == 0);
    assert!(!asleep(&shared), "it has gone to sleep again before this test looked");
}
