//! Regressions: memory of the user's, and what the user keeps it with (clauses HOST-1, HOST-7).

use dmaplane_embedded::{Config, Context, Ring, RunMode};
use dmaplane_ring::abi::{BufferHandle, Errno};
use dmaplane_ring::build::{Free, Wait};
use std::any::Any;
use std::ptr::NonNull;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Bytes, and somebody to tell, from its destructor, which thread runs that.
struct Keep {
    _bytes: Box<[u64; 512]>,
    told: Sender<String>,
    panics: bool,
    _ring: Option<Ring>,
}

impl Drop for Keep {
    fn drop(&mut self) {
        let _ = self.told.send(std::thread::current().name().unwrap_or_default().to_owned());
        assert!(!self.panics, "on purpose");
    }
}

fn register(context: &Context, told: Sender<String>, panics: bool, ring: Option<Ring>) -> BufferHandle {
    let mut bytes = Box::new([0; 512]);
    let base = NonNull::from(&mut *bytes).cast();
    // `Any` asks for `Sync`, which a ring is not: a lock makes it so.
    let keep: Box<dyn Any + Send + Sync> =
        Box::new(std::sync::Mutex::new(Keep { _bytes: bytes, told, panics, _ring: ring }));
    // SAFETY: the memory is the box's, which `keep` keeps; nobody else touches it.
    unsafe { context.register_user_memory(base, 4096, keep) }.unwrap()
}

/// It ran on the engine's thread, under the baton: a panic ended the process.
#[test]
fn a_destructor_of_the_user_s_runs_on_a_worker_and_may_panic() {
    for mode in [RunMode::Poller { idle: Duration::from_micros(50) }, RunMode::Inline] {
        let context = Context::open(Config { mode, ..Config::default() }).unwrap();
        let (told, hears) = channel();
        register(&context, told, true, None);
        drop(context);
        let thread = hears.try_recv().expect("it has run when the context is gone");
        assert!(thread.starts_with("dmaplane-work"), "it ran on {thread}");
    }
}

/// It waited for the baton that its own thread held.
#[test]
fn a_ring_may_go_with_memory_of_the_user_s() {
    for mode in [RunMode::Poller { idle: Duration::from_micros(50) }, RunMode::Inline] {
        let context = Context::open(Config { mode, ..Config::default() }).unwrap();
        let (told, hears) = channel();
        let ring = context.ring(8, 16).unwrap();
        register(&context, told, false, Some(ring));
        drop(context);
        assert!(hears.try_recv().is_ok(), "it has run when the context is gone");
    }
}

/// A FREE whose memory's keeper panics ended the worker before its event was posted.
#[test]
fn a_free_ends_although_its_memory_s_keeper_panics() {
    let context = Context::open(Config::default()).unwrap();
    let mut ring = context.ring(8, 16).unwrap();
    let (told, hears) = channel();
    for _ in 0..4 {
        let buffer = register(&context, told.clone(), true, None);
        ring.push(Free::new(buffer)).unwrap();
        ring.submit();
        assert_eq!(ring.wait_one(Duration::from_secs(10)).map(|cqe| cqe.res), Some(0));
        assert!(hears.try_recv().is_ok());
    }
}

/// A word of memory that begins at an odd address was taken for one that had reached its value.
#[test]
fn a_wait_on_a_word_that_is_not_aligned_is_refused() {
    let context = Context::open(Config::default()).unwrap();
    let mut ring = context.ring(8, 16).unwrap();
    let mut bytes = Box::new([0u64; 512]);
    let base = NonNull::from(&mut *bytes).cast::<u8>();
    // SAFETY: inside the box, which is kept.
    let buffer = unsafe { context.register_user_memory(base.add(1), 4000, bytes) }.unwrap();
    for (offset, expected) in [(0, Errno::EINVAL), (4, Errno::EINVAL)] {
        ring.push(Wait::on_word(buffer, offset, 1)).unwrap();
        ring.submit();
        assert_eq!(ring.wait_one(Duration::from_secs(10)).map(|cqe| cqe.res), Some(expected.as_result()));
    }
}
