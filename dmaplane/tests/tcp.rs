//! The fabric tcp between two contexts of one process: every kind of transfer, with and without a key.

use dmaplane::{Buffer, Config, Errno, Import, IndexPair, Leased, List, Peer, Plane, Rights, Run};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(10);

struct Pair {
    a: Plane,
    b: Plane,
    to_b: Peer,
    to_a: Peer,
}

fn config(key: Option<[u8; 32]>) -> Config {
    Config { key, ..Config::default() }
}

fn pair(key: Option<[u8; 32]>) -> Pair {
    let mut b = Plane::open(config(key)).unwrap();
    let (listener, address) = b.listen("tcp:127.0.0.1:0").unwrap();
    let mut a = Plane::open(config(key)).unwrap();
    let to_b = a.connect(&address, WAIT).unwrap();
    let to_a = b.accept(&listener, WAIT).unwrap();
    Pair { a, b, to_b, to_a }
}

fn both(test: impl Fn(Pair)) {
    for key in [None, Some([7; 32])] {
        eprintln!("with{} key", if key.is_some() { " a" } else { "out" });
        test(pair(key));
    }
}

/// Bytes that differ everywhere and by `seed`.
fn pattern(bytes: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for chunk in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

/// The library's documented example, over tcp.
#[test]
fn the_documented_example_works_over_tcp_too() {
    both(|Pair { a: mut prefill, b: mut decode, to_b: to_decode, to_a: from_prefill }| {
        let leased = decode.alloc(4096).unwrap();
        let leased = decode.grant(leased, Rights::WRITE).unwrap();
        let token = decode.token(&leased).unwrap();
        let import = prefill.import(&to_decode, &token).unwrap();
        let mut source = prefill.alloc(4096).unwrap();
        source.as_mut_slice()[..5].copy_from_slice(b"hello");
        prefill.write_imm(&source, 0, &import, 0, 5, 42).unwrap();
        assert_eq!(decode.receive(&from_prefill, WAIT).unwrap().immediate, Some(42));
        let buffer = decode.revoke(leased).unwrap();
        assert_eq!(&buffer.as_slice()[..5], b"hello");
        assert!(prefill.write_imm(&source, 0, &import, 0, 5, 43).is_err(), "the lease is over");
    });
}

/// TCP-4, WIRE-1: order on the control lane.
#[test]
fn messages_arrive_in_order() {
    both(|mut p| {
        for round in 0..200u32 {
            let bytes = vec![round as u8; 1 + (round as usize * 37) % 4096];
            p.a.send(&p.to_b, &bytes, WAIT).unwrap();
            assert_eq!(p.b.receive(&p.to_a, WAIT).unwrap().payload, bytes);
        }
    });
}

fn lease(p: &mut Pair, length: u64, rights: Rights) -> (Leased<Buffer>, Import) {
    let buffer = p.b.alloc(length).unwrap();
    let leased = p.b.grant(buffer, rights).unwrap();
    let token = p.b.token(&leased).unwrap();
    let import = p.a.import(&p.to_b, &token).unwrap();
    (leased, import)
}

/// TCP-5 to TCP-7, in the clear and under a key (TCP-3), around the bounds 16,384, 65,536 and 1,048,576; LSE-8, INB-4.
#[test]
fn writes_and_reads_of_any_length_arrive_whole() {
    both(|mut p| {
        const MOST: u64 = 64 << 20;
        let (leased, import) = lease(&mut p, MOST + 4096, Rights::WRITE.with(Rights::READ));
        let mut source = p.a.alloc(MOST + 4096).unwrap();
        pattern(source.as_mut_slice(), 1);
        let mut back = p.a.alloc(MOST + 4096).unwrap();
        let lengths = [1, 5, 4095, 16 << 10, (16 << 10) + 1, 64 << 10, (64 << 10) + 1, 1 << 20, (1 << 20) + 1, MOST];
        for (round, length) in lengths.into_iter().enumerate() {
            let (from, at) = (round as u64 * 3, round as u64 * 7);
            assert_eq!(p.a.write(&source, from, &import, at, length).unwrap(), length);
            assert_eq!(p.a.read(&mut back, from, &import, at, length).unwrap(), length);
            let range = from as usize..(from + length) as usize;
            assert!(source.as_slice()[range.clone()] == back.as_slice()[range], "{length} bytes");
            back.as_mut_slice().fill(0);
        }
        p.a.write_imm(&source, 0, &import, 0, MOST, 9).unwrap();
        assert_eq!(p.b.receive(&p.to_a, WAIT).unwrap().immediate, Some(9));
        let buffer = p.b.revoke(leased).unwrap();
        assert!(buffer.as_slice()[..MOST as usize] == source.as_slice()[..MOST as usize]);
        // Out of the lease, or without its rights: both sides hear of it, and the connection lives.
        let (_kept, import) = lease(&mut p, 8192, Rights::READ);
        assert!(p.a.write(&source, 0, &import, 0, 100).is_err());
        assert_eq!(p.a.read(&mut back, 0, &import, 8000, 193).unwrap_err().errno(), Some(Errno::ERANGE));
        assert_eq!(p.a.read(&mut back, 0, &import, 8000, 192).unwrap(), 192);
    });
}

const BLOCK: u32 = 4096;

fn list(plane: &mut Plane, blocks: u32) -> List {
    let buffer = plane.alloc(u64::from(blocks) * 2 * u64::from(BLOCK)).unwrap();
    // Every other block, so that pieces never adjoin.
    let stride_bytes = 2 * u64::from(BLOCK);
    let run = Run { length_bytes: BLOCK, count: blocks, stride_bytes, ..Run::default() };
    plane.prepare_list(vec![buffer], &[(0, run)]).unwrap()
}

fn block(list: &List, number: u32) -> &[u8] {
    let start = number as usize * 2 * BLOCK as usize;
    &list.buffers()[0].as_slice()[start..start + BLOCK as usize]
}

/// TCP-5, TCP-6: tables and their bodies; LST-5.
#[test]
fn lists_are_scattered_and_gathered_segment_by_segment() {
    both(|mut p| {
        const BLOCKS: u32 = 5000;
        let theirs = list(&mut p.b, BLOCKS);
        let mut ours = list(&mut p.a, BLOCKS);
        pattern(ours.bytes_mut(0).unwrap(), 5);
        let leased = p.b.grant_list(theirs, Rights::WRITE.with(Rights::READ), &p.to_a).unwrap();
        let token = p.b.token(&leased).unwrap();
        let import = p.a.import(&p.to_b, &token).unwrap();
        // A permutation, and not all of them.
        let pairs: Vec<_> = (0..BLOCKS - 7).map(|n| IndexPair { local: n, remote: (n * 1237 + 11) % BLOCKS }).collect();
        let bytes = p.a.write_list(&ours, &import, &pairs, 77, b"done").unwrap();
        assert_eq!(bytes, u64::from(BLOCK) * pairs.len() as u64);
        let arrival = p.b.receive(&p.to_a, WAIT).unwrap();
        assert_eq!((arrival.immediate, arrival.payload.as_slice()), (Some(77), &b"done"[..]));
        let mut back = list(&mut p.a, BLOCKS);
        assert_eq!(p.a.read_list(&mut back, &import, &pairs).unwrap(), bytes);
        for pair in &pairs {
            assert!(block(&back, pair.local) == block(&ours, pair.local), "block {}", pair.local);
        }
        // A segment that the other list has not: nothing of the list lands.
        let wrong = [IndexPair { local: 1, remote: 0 }, IndexPair { local: 2, remote: BLOCKS }];
        assert_eq!(p.a.write_list(&ours, &import, &wrong, 0, b"").unwrap_err().errno(), Some(Errno::ERANGE));
        assert_eq!(p.a.read_list(&mut back, &import, &wrong).unwrap_err().errno(), Some(Errno::ERANGE));
        let wrong = [IndexPair { local: BLOCKS, remote: 0 }];
        assert_eq!(p.a.write_list(&ours, &import, &wrong, 0, b"").unwrap_err().errno(), Some(Errno::ERANGE));
        let theirs = p.b.revoke(leased).unwrap();
        for pair in &pairs {
            assert!(block(&theirs, pair.remote) == block(&ours, pair.local), "block {}", pair.remote);
        }
    });
}

/// TCP-7, INB-6; acceptance E: revoked in mid-transfer, the memory is ours at once and stays as we leave it; the other
/// transfers complete.
#[test]
fn a_revoke_in_mid_transfer_costs_that_transfer_alone() {
    both(|mut p| {
        const LENGTH: u64 = 16 << 20;
        let (mut worst, mut stopped) = (Duration::ZERO, 0);
        for round in 0..8u64 {
            let (kept, kept_import) = lease(&mut p, LENGTH, Rights::WRITE);
            let (doomed, doomed_import) = lease(&mut p, LENGTH, Rights::WRITE);
            let mut first = p.a.alloc(LENGTH).unwrap();
            first.as_mut_slice().fill(0xaa);
            let mut second = p.a.alloc(LENGTH).unwrap();
            pattern(second.as_mut_slice(), round);
            let first = p.a.start_write(first, 0, &doomed_import, 0, LENGTH).unwrap();
            let second = p.a.start_write(second, 0, &kept_import, 0, LENGTH).unwrap();
            std::thread::sleep(Duration::from_micros(round * 700));
            let start = Instant::now();
            let mut buffer = p.b.revoke(doomed).unwrap();
            worst = worst.max(start.elapsed());
            buffer.as_mut_slice().fill(round as u8);
            let (result, first) = first.finish(&mut p.a, WAIT).unwrap();
            if let Err(error) = result {
                // Stopped, or refused because its header came when the lease was gone.
                assert!(matches!(error.errno(), Some(Errno::EKEYREVOKED | Errno::ESTALE)), "{error}");
                stopped += 1;
            }
            let (result, second) = second.finish(&mut p.a, WAIT).unwrap();
            result.unwrap();
            assert!(buffer.as_slice().iter().all(|&byte| byte == round as u8), "old bytes after the revoke");
            let kept = p.b.revoke(kept).unwrap();
            assert!(kept.as_slice() == second.as_slice());
            p.b.free(buffer).unwrap();
            p.b.free(kept).unwrap();
            p.a.free(first).unwrap();
            p.a.free(second).unwrap();
        }
        eprintln!("{stopped} of 8 stopped; the slowest revoke took {worst:?}");
    });
}

/// TCP-10: the end of both lanes.
#[test]
fn a_peer_s_end_is_noticed_in_mid_transfer() {
    both(|mut p| {
        const LENGTH: u64 = 64 << 20;
        let (leased, import) = lease(&mut p, LENGTH, Rights::WRITE);
        let source = p.a.alloc(LENGTH).unwrap();
        let write = p.a.start_write(source, 0, &import, 0, LENGTH).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        drop(p.b);
        drop(leased);
        let (result, _) = write.finish(&mut p.a, Duration::from_secs(2)).expect("within 2 s");
        if let Err(error) = result {
            // Revoked first, or cut off first: the peer's teardown does both.
            let revoked = matches!(error.errno(), Some(Errno::EKEYREVOKED | Errno::ESTALE));
            assert!(error.is_disconnect() || revoked, "{error}");
        }
        assert!(p.a.receive(&p.to_b, WAIT).unwrap_err().is_disconnect());
    });
}

/// TCP-1: -EACCES to listen and to connect.
#[test]
fn tcp_1_without_a_key_nothing_leaves_loopback() {
    let mut plane = Plane::open(config(None)).unwrap();
    let error = plane.listen("tcp:0.0.0.0:0").unwrap_err();
    let said = "listening at tcp:0.0.0.0:0: off loopback tcp needs a pre-shared key (Config::key)";
    assert_eq!(error.to_string(), said);
    let error = plane.connect("tcp:192.0.2.1:9", WAIT).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EACCES));
    let mut keyed = Plane::open(config(Some([1; 32]))).unwrap();
    keyed.listen("tcp:0.0.0.0:0").unwrap();
}

/// TCP-2: the other security; TCP-3: another key.
#[test]
fn tcp_3_another_key_or_none_is_rejected_on_both_sides() {
    let mut listening = Plane::open(config(Some([1; 32]))).unwrap();
    let (listener, address) = listening.listen("tcp:127.0.0.1:0").unwrap();
    for key in [None, Some([2; 32])] {
        let mut plane = Plane::open(config(key)).unwrap();
        let error = plane.connect(&address, WAIT).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EKEYREJECTED), "{error}");
    }
    let mut open = Plane::open(config(None)).unwrap();
    let (_listener, open_address) = open.listen("tcp:127.0.0.1:0").unwrap();
    assert_eq!(listening.connect(&open_address, WAIT).unwrap_err().errno(), Some(Errno::EKEYREJECTED));
    // The listener is none the worse.
    let mut right = Plane::open(config(Some([1; 32]))).unwrap();
    right.connect(&address, WAIT).unwrap();
    listening.accept(&listener, WAIT).unwrap();
}

/// TCP-1, PEER-1: the errno of the last address.
#[test]
fn a_port_in_use_and_a_port_where_nobody_listens_are_said_to_be() {
    let mut plane = Plane::open(config(None)).unwrap();
    let (_listener, address) = plane.listen("tcp:127.0.0.1:0").unwrap();
    assert_eq!(plane.listen(&address).unwrap_err().errno(), Some(Errno::EADDRINUSE));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = plane.connect(&format!("tcp:{free}"), WAIT).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ECONNREFUSED));
}
