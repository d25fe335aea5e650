//! Wakers that are others' code, and call the plane back.

use super::*;
use crate::objects::Objects;
use dmaplane_ring::abi::{Handle, HandleKind};
use std::sync::mpsc::{Sender, channel};
use std::task::Wake;

/// Calls back when it is woken, and when it goes.
struct Meddler<F: Fn() + Send + Sync + 'static> {
    call: F,
    called: Sender<()>,
}

impl<F: Fn() + Send + Sync + 'static> Meddler<F> {
    fn meddle(&self) {
        (self.call)();
        // Nobody may be there to count.
        let _ = self.called.send(());
    }
}

impl<F: Fn() + Send + Sync + 'static> Wake for Meddler<F> {
    fn wake(self: Arc<Self>) {
        self.meddle();
    }
}

impl<F: Fn() + Send + Sync + 'static> Drop for Meddler<F> {
    fn drop(&mut self) {
        self.meddle();
    }
}

fn meddler(call: impl Fn() + Send + Sync + 'static, called: &Sender<()>) -> Waker {
    Waker::from(Arc::new(Meddler { call, called: called.clone() }))
}

/// A waker that begins an operation and gives it up.
fn meddler_of(plane: &AsyncPlane, called: &Sender<()>) -> Waker {
    let plane = plane.clone();
    meddler(move || drop(poll_once(&mut nop(&plane))), called)
}

fn pending<F: Future + Unpin>(future: &mut F, waker: Waker) {
    assert!(Pin::new(future).poll(&mut TaskContext::from_waker(&waker)).is_pending());
}

fn hour(plane: &AsyncPlane) -> Operation<()> {
    Operation::new(plane, "an hour", Timeout::after_ns(3_600_000_000_000).sqe(), ())
}

type Case = (&'static str, fn(&Sender<()>));

/// Runs each on a thread of its own, which is left where it hangs.
fn each_calls_back<const N: usize>(cases: [Case; N]) {
    for (what, case) in cases {
        let (called, calls) = channel();
        let (ended, end) = channel();
        std::thread::spawn(move || {
            case(&called);
            let _ = ended.send(());
        });
        assert!(end.recv_timeout(Duration::from_secs(20)).is_ok(), "{what}: it waits for its own lock");
        assert!(calls.try_iter().count() > 0, "{what}: the waker was never heard");
    }
}

fn with_plane<F: Future<Output = ()>>(case: impl FnOnce(AsyncPlane) -> F) {
    runtime(2).block_on(async { case(AsyncPlane::open(Config::default()).unwrap()).await });
}

#[test]
fn a_waker_of_an_operation_calls_the_plane_back_under_its_lock() {
    each_calls_back([
        ("another waker's first poll", |called: &Sender<()>| {
            with_plane(async |plane| {
                let mut hour = hour(&plane);
                pending(&mut hour, meddler_of(&plane, called));
                pending(&mut hour, Waker::noop().clone());
            });
        }),
        ("dropped in flight", |called| {
            with_plane(async |plane| {
                let mut hour = hour(&plane);
                pending(&mut hour, meddler_of(&plane, called));
                drop(hour);
            });
        }),
        ("dropped where it waits", |called| {
            with_plane(async |plane| {
                // One timer is pushed at a time.
                let (mut first, mut second) = (hour(&plane), hour(&plane));
                pending(&mut first, Waker::noop().clone());
                pending(&mut second, meddler_of(&plane, called));
                drop(second);
            });
        }),
        ("ended", |called| {
            with_plane(async |plane| {
                let mut hour = hour(&plane);
                pending(&mut hour, meddler_of(&plane, called));
                hour.cancel();
                while poll_once(&mut hour).is_pending() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
        }),
        ("the plane's end", |called| {
            let runtime = runtime(2);
            let plane = runtime.block_on(async { AsyncPlane::open(Config::default()).unwrap() });
            let mut hour = hour(&plane);
            pending(&mut hour, meddler_of(&plane, called));
            drop(runtime);
        }),
    ]);
}

#[test]
fn a_waker_of_a_receive_calls_the_plane_back_under_its_lock() {
    each_calls_back([
        ("another waker's poll", |called: &Sender<()>| {
            runtime(2).block_on(async {
                let [(one, to_other), _other] = pair().await;
                let mut receive = to_other.receive();
                pending(&mut receive, meddler_of(&one, called));
                pending(&mut receive, Waker::noop().clone());
            });
        }),
        ("dropped", |called| {
            runtime(2).block_on(async {
                let [(one, to_other), _other] = pair().await;
                let mut receive = to_other.receive();
                pending(&mut receive, meddler_of(&one, called));
                drop(receive);
            });
        }),
    ]);
}

#[test]
fn a_waker_that_watches_for_what_is_dropped_calls_back_under_the_lock() {
    fn watched(called: &Sender<()>, then: impl FnOnce(&Arc<Objects>)) {
        let objects = Arc::new(Objects::default());
        let theirs = objects.clone();
        objects.watch(1, &meddler(move || theirs.watch_no_more(2), called));
        then(&objects);
    }
    each_calls_back([
        ("woken", |called: &Sender<()>| {
            watched(called, |objects| {
                let buffer = BufferHandle::from_bits(Handle::new(HandleKind::Buffer, 1, 1).bits());
                objects.bury(buffer.map(Dropped::Buffer).expect("a buffer's handle"));
            })
        }),
        ("another waker's turn", |called| watched(called, |objects| objects.watch(1, Waker::noop()))),
        ("forgotten", |called| watched(called, |objects| objects.watch_no_more(1))),
    ]);
}
