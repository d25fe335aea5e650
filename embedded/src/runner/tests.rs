//! What one hold of the baton does, and what it leaves. Without a service thread, unless a test starts one: so nobody
//! hides what was forgotten.

use super::*;
use crate::config::Config;
use crate::context::Context;
use crate::memory::Region;
use dmaplane_engine::AllocRequest;
use dmaplane_ring::abi::{BufferHandle, Cqe, PeerHandle, RingFlags, Run, Sqe};
use dmaplane_ring::build::{Accept, Cancel, Connect, CreditQuery, ListPrepare, Nop, Recv, Wait};
use dmaplane_ring::queue::{RingMemory, RingWord};

fn shared(mode: RunMode) -> Arc<Shared> {
    Shared::new(Config { mode, workers: 1, ..Config::default() }).unwrap()
}

fn buffer(shared: &Shared, length_bytes: u64) -> (BufferHandle, Arc<Region>) {
    let region = Region::allocate(&AllocRequest::plain(length_bytes)).unwrap();
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

fn open(mode: RunMode) -> Context {
    Context::open(Config { mode, workers: 1, ..Config::default() }).unwrap()
}

fn call(ring: &mut Ring, sqe: impl Into<Sqe>) -> Cqe {
    ring.push(sqe).unwrap();
    ring.submit();
    ring.wait_one(Duration::from_secs(10)).expect("an answer")
}

fn asleep(context: &Context) -> bool {
    let until_ns = context.shared().sleeps_until_ns.load(Ordering::Acquire);
    until_ns != AWAKE
}

/// A client that runs the engine itself, and then only looks at its CQ.
fn reaps(ring: &mut Ring, what: &str) -> Cqe {
    let mut cqe = None;
    until(what, || {
        cqe = ring.reap_one();
        cqe.is_some()
    });
    cqe.unwrap()
}

/// The service thread slept for ever before the client's thread took the WAIT: nobody looked at the word.
#[test]
fn a_word_that_a_client_s_thread_began_to_wait_for_is_looked_at() {
    for mode in [RunMode::Inline, RunMode::Enter] {
        let context = open(mode);
        let (handle, region) = buffer(context.shared(), 4096);
        let mut ring = context.ring(16, 16).unwrap();
        until("it never sleeps", || asleep(&context));
        ring.push(Wait::on_word(handle, 0, 7)).unwrap();
        ring.submit();
        ring.enter();
        std::thread::sleep(Duration::from_millis(5));
        region.write(0, &7u32.to_le_bytes()).unwrap();
        assert_eq!(reaps(&mut ring, "nobody looks at the word").res, 0, "{mode:?}");
    }
}

/// Of 16 SQEs 14 had room. The client's thread, which took them, asked for no bell, so the last two stayed in the SQ.
#[test]
fn a_client_that_only_reaps_gets_what_its_thread_could_not_take() {
    let context = open(RunMode::Inline);
    let mut ring = context.ring(16, 16).unwrap();
    until("it never sleeps", || asleep(&context));
    (0..16).for_each(|n| ring.push(Nop::new().user_data(n)).unwrap());
    ring.submit();
    for n in 0..16 {
        assert_eq!(reaps(&mut ring, "the rest is never taken").user_data, n);
    }
    // And when all is taken, reaping costs no bell.
    ring.push(Nop::new()).unwrap();
    ring.submit();
    let flags = ring.memory().word(RingWord::EngineFlags).load(Ordering::Relaxed);
    assert_eq!(flags & RingFlags::CQ_BLOCKED.bits(), 0, "CQ_BLOCKED stays up");
}

/// More messages than the link holds, toward a peer that does not run. It makes room later, which rings no bell.
#[test]
fn what_waits_for_room_in_a_link_goes_out_when_there_is_some() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("shm:{}", folder.path().join("socket").display());
    let (ours, theirs) = (open(RunMode::Inline), open(RunMode::Inline));
    let (listener, _) = theirs.listen(&address).unwrap();
    let (mut ring, mut their_ring) = (ours.ring(512, 1024).unwrap(), theirs.ring(16, 16).unwrap());
    their_ring.push(Accept::new(listener)).unwrap();
    their_ring.submit();
    let (handle, region) = buffer(ours.shared(), 4096);
    region.write(0, address.as_bytes()).unwrap();
    let peer = call(&mut ring, Connect::new(handle, 0, address.len() as u64).unwrap());
    let peer = PeerHandle::from_bits(peer.word0).unwrap();
    let us = PeerHandle::from_bits(their_ring.wait_one(Duration::from_secs(10)).unwrap().word0).unwrap();
    until("it never sleeps", || asleep(&ours));
    until("the baton is never free", || theirs.shared().baton.try_take());
    for _ in 0..300 {
        ring.push(Recv::new(peer, handle, 0, 8).unwrap()).unwrap();
    }
    ring.submit();
    std::thread::sleep(Duration::from_millis(5));
    theirs.shared().let_go_for_good();
    until("both sides wait", || {
        std::thread::sleep(Duration::from_millis(1));
        call(&mut their_ring, CreditQuery::new(us)).word0 == 300
    });
}

fn eventfd(flags: rustix::event::EventfdFlags) -> OwnedFd {
    rustix::event::eventfd(0, flags | rustix::event::EventfdFlags::CLOEXEC).unwrap()
}

/// Two WAITs on one eventfd that blocks: the one that came too late blocked its thread.
#[test]
fn an_eventfd_that_blocks_is_refused() {
    let context = open(RunMode::Inline);
    let refused = context.register_eventfd(eventfd(rustix::event::EventfdFlags::empty())).unwrap_err();
    assert_eq!(refused.errno(), Some(Errno::EINVAL));
}

/// Each WAIT on a slot that ended otherwise than by CANCEL left its stop flag behind.
#[test]
fn nothing_is_kept_of_a_wait_on_a_slot_that_has_ended() {
    let context = open(RunMode::Inline);
    let mut ring = context.ring(16, 16).unwrap();
    let signal = eventfd(rustix::event::EventfdFlags::NONBLOCK);
    let slot = context.register_eventfd(signal.try_clone().unwrap()).unwrap();
    for round in 1..4u64 {
        // Two wait, and one signal serves one of them.
        ring.push(Wait::on_slot(slot)).unwrap();
        ring.push(Wait::on_slot(slot)).unwrap();
        ring.submit();
        for signals in [round, round + 1] {
            rustix::io::write(&signal, &signals.to_ne_bytes()).unwrap();
            let cqe = ring.wait_one(Duration::from_secs(10)).unwrap();
            assert_eq!((cqe.res, cqe.word0), (0, signals));
        }
    }
    ring.push(Wait::on_slot(slot).user_data(1)).unwrap();
    ring.push(Cancel::by_user_data(1).skip_success()).unwrap();
    ring.submit();
    assert_eq!(ring.wait_one(Duration::from_secs(10)).map(|cqe| cqe.res), Some(Errno::ECANCELED.as_result()));
    assert_eq!(context.shared().with_core(|_, core| core.host.descriptor_waits()), 0);
}
