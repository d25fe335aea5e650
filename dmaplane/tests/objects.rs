//! Typed objects: what is dropped is ended, what is another context's is refused, and what comes unread is bounded.

use dmaplane::{Config, Error, IndexPair, Peer, Plane, Rights, Run, Usage};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(20);

fn pair() -> (Plane, Plane, Peer, Peer) {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("shm:{}", directory.path().join("x").display());
    let (mut one, mut other) = (Plane::open(Config::default()).unwrap(), Plane::open(Config::default()).unwrap());
    let (listener, _) = one.listen(&address).unwrap();
    let to_one = other.connect(&address, WAIT).unwrap();
    let to_other = one.accept(&listener, WAIT).unwrap();
    (one, other, to_other, to_one)
}

/// Calls until the context has no more in use than `usage`: dropped objects end with later calls.
fn settles_at(plane: &mut Plane, usage: Usage) {
    for _ in 0..200 {
        let buffer = plane.alloc(1).unwrap();
        plane.free(buffer).unwrap();
        let now = Usage { operations: usage.operations, ..plane.usage() };
        if now == usage {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("something of what was dropped is still there: {:?}, not {usage:?}", plane.usage());
}

#[test]
fn objects_dropped_on_an_error_path_are_ended_and_not_leaked() {
    let (mut one, mut other, to_other, to_one) = pair();
    let (usage, theirs) = (one.usage(), other.usage());
    for _ in 0..3 {
        let buffer = one.alloc(4096).unwrap();
        let leased = one.grant_to(buffer, Rights::WRITE, &to_other).unwrap();
        let token = one.token(&leased).unwrap();
        let import = other.import(&to_one, &token).unwrap();
        let source = other.alloc(4096).unwrap();
        let write = other.start_write(source, 0, &import, 0, 4096).unwrap();
        // In flight, perhaps; its buffer is freed when it has ended.
        drop((write, import, leased));
        let buffer = one.alloc(8192).unwrap();
        let run = Run { length_bytes: 4096, stride_bytes: 4096, count: 2, ..Run::default() };
        let list = one.prepare_list(vec![buffer], &[(0, run)]).unwrap();
        let _leased = one.grant_list(list, Rights::READ, &to_other).unwrap();
    }
    settles_at(&mut one, usage);
    settles_at(&mut other, theirs);
}

#[test]
fn an_object_of_another_context_is_refused_and_not_taken_for_our_own() {
    let (mut one, mut other, to_other, to_one) = pair();
    let foreign = |what: &str, result: Result<(), Error>| match result {
        Err(Error::Foreign { .. }) => {}
        result => panic!("{what}: {result:?}"),
    };
    // The same numbers in both contexts.
    let (ours, theirs) = (one.alloc(4096).unwrap(), other.alloc(4096).unwrap());
    assert_eq!(ours.handle(), theirs.handle());
    let (ours, theirs) = (one.grant(ours, Rights::WRITE).unwrap(), other.grant(theirs, Rights::WRITE).unwrap());
    assert_eq!(ours.handle(), theirs.handle());
    let token = one.token(&ours).unwrap();
    foreign("token", one.token(&theirs).map(drop));
    // The foreign lease goes back to its own context; ours lives on.
    foreign("revoke", one.revoke(theirs).map(drop));
    let import = other.import(&to_one, &token).unwrap();
    let mut buffer = one.alloc(64).unwrap();
    foreign("write", other.write(&buffer, 0, &import, 0, 64).map(drop));
    foreign("read", one.read(&mut buffer, 0, &import, 0, 64).map(drop));
    foreign("send", one.send(&to_one, b"x", WAIT));
    foreign("receive", one.receive(&to_one, WAIT).map(drop));
    foreign("grant", other.grant_to(buffer, Rights::READ, &to_one).map(drop));
    let (source, at) = (other.alloc(64).unwrap(), [IndexPair { local: 0, remote: 0 }]);
    foreign("free", one.free(source));
    let run = Run { length_bytes: 64, stride_bytes: 64, count: 1, ..Run::default() };
    let buffer = other.alloc(64).unwrap();
    let list = other.prepare_list(vec![buffer], &[(0, run)]).unwrap();
    foreign("write_list", one.write_list(&list, &import, &at, 0, b"").map(drop));
    foreign("free_list", one.free_list(list).map(drop));
    let source = other.alloc(64).unwrap();
    let write = other.start_write(source, 0, &import, 0, 64).unwrap();
    let write = write.finish(&mut one, WAIT).expect_err("another plane's operation");
    assert!(write.finish(&mut other, WAIT).unwrap().0.is_ok(), "the lease was not touched");
    drop((ours, to_other));
}

#[test]
fn a_peer_that_is_not_read_cannot_make_us_keep_more_than_its_slots() {
    let (mut one, mut other, to_other, to_one) = pair();
    let mut sent: u8 = 0;
    while other.send(&to_one, &[sent], Duration::from_millis(300)).is_ok() {
        sent += 1;
        // A call of ours takes what has come.
        let buffer = one.alloc(1).unwrap();
        one.free(buffer).unwrap();
        assert!(sent <= 16, "{sent} messages were taken and none was read");
    }
    assert_eq!(sent, 16);
    for expected in 0..sent {
        assert_eq!(one.receive(&to_other, WAIT).unwrap().payload, [expected]);
    }
}

/// PEER-4, RES-4: a CQ of 1,024 entries holds the receives of 32 peers, and a context 64 peers.
#[test]
fn a_dropped_peer_stays_connected_and_the_33rd_one_cannot_receive() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("shm:{}", directory.path().join("x").display());
    let (mut one, mut other) = (Plane::open(Config::default()).unwrap(), Plane::open(Config::default()).unwrap());
    let (listener, _) = one.listen(&address).unwrap();
    let (usage, theirs) = (one.usage(), other.usage());
    for round in 0..100u8 {
        let to_one = other.connect(&address, WAIT).unwrap();
        let to_other = one.accept(&listener, WAIT).unwrap();
        other.send(&to_one, &[round], WAIT).unwrap();
        assert_eq!(one.receive(&to_other, WAIT).unwrap().payload, [round]);
        one.send(&to_other, &[round], WAIT).unwrap();
        assert_eq!(other.receive(&to_one, WAIT).unwrap().payload, [round]);
        if round % 2 == 0 {
            // The other side hears of it.
            drop(to_other);
            let buffer = one.alloc(1).unwrap();
            one.free(buffer).unwrap();
            assert!(other.receive(&to_one, WAIT).unwrap_err().is_disconnect());
        }
    }
    settles_at(&mut one, usage);
    settles_at(&mut other, theirs);
}

#[test]
fn what_is_dropped_with_its_plane_is_ended_by_the_next_one() {
    let mut one = Plane::open(Config::default()).unwrap();
    let usage = one.usage();
    for _ in 0..5 {
        let mut other = one.sibling().unwrap();
        let buffer = other.alloc(4096).unwrap();
        let leased = other.grant(buffer, Rights::READ).unwrap();
        drop((other, leased));
    }
    settles_at(&mut one, usage);
}

#[test]
fn a_peer_whose_receives_find_no_room_on_the_ring_was_taken_for_gone() {
    // Half of the plane's CQ of 1,024 is for receives, 16 for each peer (clause RES-4): two have none.
    const PEERS: usize = 34;
    let directory = tempfile::tempdir().unwrap();
    let mut one = Plane::open(Config::default()).unwrap();
    let (mut others, mut peers) = (Vec::new(), Vec::new());
    for number in 0..PEERS {
        let address = format!("shm:{}", directory.path().join(number.to_string()).display());
        let mut other = Plane::open(Config::default()).unwrap();
        let (listener, _) = other.listen(&address).unwrap();
        peers.push(one.connect(&address, WAIT).unwrap());
        let to_one = other.accept(&listener, WAIT).unwrap();
        others.push((other, to_one));
    }
    for peer in &peers {
        assert_eq!(one.try_receive(peer).unwrap(), None, "nobody has gone");
    }
    // Two go, and there is room for the rest.
    for peer in peers.drain(..2) {
        one.disconnect(peer).unwrap();
    }
    for (peer, (other, to_one)) in peers.iter().zip(&mut others[2..]) {
        // It has room as soon as somebody looks.
        let until = std::time::Instant::now() + WAIT;
        while other.send(to_one, b"here", Duration::from_millis(50)).is_err() {
            assert!(std::time::Instant::now() < until, "no room again");
            one.try_receive(peer).unwrap();
        }
        assert_eq!(one.receive(peer, WAIT).unwrap().payload, b"here");
    }
}
