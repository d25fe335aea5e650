//! A tcp peer written by hand, byte by byte, from clauses TCP-2 to TCP-6: it stalls, lies and babbles.

use dmaplane::{Buffer, Config, Errno, Leased, Listener, Peer, Plane, Rights};
use dmaplane_engine::{Message, Request, RequestKind, Token};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(10);
const CONTEXT: [u64; 2] = [0xbad, 0xbad];

fn preamble() -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(b"DPTC");
    bytes
}

fn hello(purpose: u8, nonce: [u8; 16]) -> Vec<u8> {
    let mut bytes = vec![0; 48];
    bytes[..8].copy_from_slice(&CONTEXT[0].to_le_bytes());
    bytes[8..16].copy_from_slice(&CONTEXT[1].to_le_bytes());
    bytes[16] = 64;
    bytes[20] = purpose;
    bytes[32..].copy_from_slice(&nonce);
    bytes
}

fn record(kind: u8, payload: &[u8], words: [u64; 8]) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    for word in words {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&0u64.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

const END: [u8; 4] = 0x8000_0000u32.to_le_bytes();

struct Raw {
    control: TcpStream,
    data: TcpStream,
}

fn read<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn socket(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address.strip_prefix("tcp:").unwrap()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    stream
}

/// Says hello on a socket; the nonce that is said back.
fn greet(stream: &mut TcpStream, purpose: u8, nonce: [u8; 16]) -> [u8; 16] {
    stream.write_all(&preamble()).unwrap();
    assert_eq!(read::<16>(stream), preamble());
    stream.write_all(&hello(purpose, nonce)).unwrap();
    read::<48>(stream)[32..].try_into().unwrap()
}

impl Raw {
    fn connect(address: &str) -> Raw {
        let (mut control, mut data) = (socket(address), socket(address));
        let nonce = greet(&mut control, 1, [0; 16]);
        assert_ne!(nonce, [0; 16]);
        assert_eq!(greet(&mut data, 2, nonce), nonce);
        Raw { control, data }
    }

    /// The next message that is of interest.
    fn hear(&mut self) -> Message {
        loop {
            let bytes = read::<80>(&mut self.control);
            let mut words = [0; 8];
            for (word, chunk) in words.iter_mut().zip(bytes[8..].chunks_exact(8)) {
                *word = u64::from_le_bytes(chunk.try_into().unwrap());
            }
            match Message::decode(&words).unwrap() {
                Message::Credits { .. } | Message::Stop { .. } => {}
                message => return message,
            }
        }
    }

    fn say(&mut self, message: &Message) {
        self.control.write_all(&record(1, &[], message.encode())).unwrap();
    }

    /// Claims a lease: its handle.
    fn claim(&mut self, token: &[u8]) -> u64 {
        let token = Token::decode(token).unwrap();
        self.say(&Message::Claim { op: 5, lease: token.lease, tag: token.tag, import: 1 });
        assert!(matches!(self.hear(), Message::Claimed { op: 5, result: 0, .. }));
        token.lease
    }

    /// A WRITE's record and its body, as one slice.
    fn write(lease: u64, op: u64, body: &[u8]) -> Vec<u8> {
        let length = body.len() as u64;
        let kind = RequestKind::Write;
        let request = Request {
            kind,
            notify: false,
            checksum: false,
            immediate: 0,
            op,
            lease,
            offset: 0,
            length,
            payload_bytes: 0,
        };
        let mut bytes = record(2, &[], Message::Request(request).encode());
        for slice in body.chunks(1 << 20) {
            bytes.extend_from_slice(&(slice.len() as u32).to_le_bytes());
            bytes.extend_from_slice(slice);
        }
        bytes.extend_from_slice(&END);
        bytes
    }
}

struct Scene {
    plane: Plane,
    listener: Listener,
    address: String,
}

fn scene() -> Scene {
    let mut plane = Plane::open(Config::default()).unwrap();
    let (listener, address) = plane.listen("tcp:127.0.0.1:0").unwrap();
    Scene { plane, listener, address }
}

impl Scene {
    fn meet(&mut self) -> (Raw, Peer) {
        let raw = Raw::connect(&self.address);
        (raw, self.plane.accept(&self.listener, WAIT).unwrap())
    }

    fn lease(&mut self, raw: &mut Raw, bytes: u64) -> (Leased<Buffer>, u64) {
        let buffer = self.plane.alloc(bytes).unwrap();
        let leased = self.plane.grant(buffer, Rights::WRITE).unwrap();
        let token = self.plane.token(&leased).unwrap();
        (leased, raw.claim(&token))
    }
}

fn percentile(sorted: &[Duration], of_hundred: usize) -> Duration {
    sorted[(sorted.len() - 1) * of_hundred / 100]
}

/// TCP-7, and TCP-6 for what is thrown away; LSE-12; acceptance E: a sender that stalls in mid-frame delays no revoke,
/// and its bytes never land afterwards.
#[test]
fn tcp_7_a_sender_that_stalls_in_mid_frame_delays_no_revoke() {
    let mut scene = scene();
    let (mut raw, _peer) = scene.meet();
    let mut times = Vec::new();
    for round in 0..300usize {
        let length = [4096, 64 << 10, 256 << 10, 1 << 20, 3 << 20][round % 5];
        let (leased, lease) = scene.lease(&mut raw, length as u64);
        let frame = Raw::write(lease, 100 + round as u64, &vec![0xee; length]);
        // Stalls in the header, right after it, after a slice's word, in the slice.
        let cut = [40, 80, 84, 84 + length / 2][round / 5 % 4];
        raw.data.write_all(&frame[..cut]).unwrap();
        if round % 3 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let start = Instant::now();
        let mut buffer = scene.plane.revoke(leased).unwrap();
        times.push(start.elapsed());
        buffer.as_mut_slice().fill(0x11);
        raw.data.write_all(&frame[cut..]).unwrap();
        match raw.hear() {
            Message::Done { op, result, .. } => {
                assert_eq!(op, 100 + round as u64);
                assert!([-Errno::EKEYREVOKED.raw(), -Errno::ESTALE.raw()].contains(&result), "{result}");
            }
            other => panic!("{other:?}"),
        }
        // What came after it on the same socket has been read: so the rest of the frame has been thrown away.
        let (marker, lease) = scene.lease(&mut raw, 4096);
        raw.data.write_all(&Raw::write(lease, 7, &[0x22; 4096])).unwrap();
        assert_eq!(raw.hear(), Message::Done { op: 7, result: 0, bytes: 4096 });
        let marker = scene.plane.revoke(marker).unwrap();
        assert!(marker.as_slice().iter().all(|&byte| byte == 0x22));
        assert!(buffer.as_slice().iter().all(|&byte| byte == 0x11), "round {round}: old bytes after the revoke");
        scene.plane.free(buffer).unwrap();
        scene.plane.free(marker).unwrap();
    }
    times.sort_unstable();
    let (middle, high) = (percentile(&times, 50), percentile(&times, 99));
    eprintln!("revoke against a stalled sender: p50 {middle:?}, p99 {high:?}");
    assert!(middle < Duration::from_millis(20), "p50 {middle:?}");
}

/// TCP-8: a on both lanes, d on the control lane (WIRE-2).
#[test]
fn tcp_8_babble_after_the_handshake_ends_the_connection_with_eproto() {
    let mut scene = scene();
    let forged_kind = record(9, &[], [0; 8]);
    let forged_message = record(1, &[], [0xdead; 8]);
    let too_long = Raw::write(1, 1, &[0; 1]).into_iter().map(|byte| byte ^ 0x80).collect();
    let text =
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: someone\r\nAccept: */*\r\nPadding: 1234567890\r\n\r\n";
    let babble: [Vec<u8>; 4] = [forged_kind, forged_message, too_long, text.to_vec()];
    for (round, bytes) in babble.iter().enumerate() {
        for on_data in [false, true] {
            let (mut raw, peer) = scene.meet();
            let stream = if on_data { &mut raw.data } else { &mut raw.control };
            stream.write_all(bytes).unwrap();
            let error = scene.plane.receive(&peer, WAIT).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::EPROTO), "babble {round}, on the data socket: {on_data}");
            // What was said before is still there, then comes the end, or a reset.
            let _ = raw.control.read_to_end(&mut Vec::new());
            scene.plane.disconnect(peer).unwrap();
        }
    }
}

/// TCP-8: j. No bytes, too many, an end too early, more than is lacking, more where nothing is lacking, and giving up
/// without an errno.
#[test]
fn tcp_8_a_body_that_does_not_end_where_it_must_ends_the_connection() {
    let mut scene = scene();
    for (at, word) in [(80, 0u32), (80, 1 << 21), (80, 0x8000_0000), (80, 200_001), (84 + 200_000, 5), (80, 1 << 30)] {
        let (mut raw, peer) = scene.meet();
        let (leased, lease) = scene.lease(&mut raw, 1 << 20);
        let mut frame = Raw::write(lease, 1, &[1; 200_000]);
        frame[at..at + 4].copy_from_slice(&word.to_le_bytes());
        let _ = raw.data.write_all(&frame);
        let error = scene.plane.receive(&peer, WAIT).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EPROTO), "{word:#x} at {at}");
        scene.plane.disconnect(peer).unwrap();
        let buffer = scene.plane.revoke(leased).unwrap();
        scene.plane.free(buffer).unwrap();
    }
}

/// TCP-6: read data for an operation that awaits nothing.
#[test]
fn tcp_6_bytes_that_nobody_asked_for_are_thrown_away() {
    let mut scene = scene();
    let (mut raw, _peer) = scene.meet();
    let mut unasked = record(5, &[], [12345, 100_000, 0, 0, 0, 0, 0, 0]);
    unasked.extend_from_slice(&100_000u32.to_le_bytes());
    unasked.extend_from_slice(&[9; 100_000]);
    unasked.extend_from_slice(&END);
    let (leased, lease) = scene.lease(&mut raw, 4096);
    raw.data.write_all(&unasked).unwrap();
    raw.data.write_all(&Raw::write(lease, 3, &[4; 100])).unwrap();
    assert_eq!(raw.hear(), Message::Done { op: 3, result: 0, bytes: 100 });
    let buffer = scene.plane.revoke(leased).unwrap();
    assert_eq!(&buffer.as_slice()[99..101], &[4, 0]);
}

/// TCP-2: no `DPTC`, a nonce that nobody awaits; TCP-9: 2 s for one that says nothing.
#[test]
fn tcp_2_strangers_at_the_door_are_turned_away_and_delay_nobody() {
    let mut scene = scene();
    let silent = socket(&scene.address);
    let mut text = socket(&scene.address);
    text.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n").unwrap();
    let mut random = socket(&scene.address);
    random.write_all(&[0x5a; 4096]).unwrap();
    // A data socket for a connection that does not exist.
    let mut astray = socket(&scene.address);
    astray.write_all(&preamble()).unwrap();
    assert_eq!(read::<16>(&mut astray), preamble());
    astray.write_all(&hello(2, [3; 16])).unwrap();
    let start = Instant::now();
    let (mut raw, peer) = scene.meet();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    for mut stranger in [text, random, astray, silent] {
        assert_eq!(stranger.read(&mut [0; 64]).unwrap_or(0), 0, "not a word, and the end");
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    raw.say(&Message::Released { lease: 0 });
    scene.plane.send(&peer, b"x", Duration::from_millis(1)).unwrap_err();
}

/// A listener that does `serve` with whoever connects first.
fn listening(serve: impl FnOnce(&TcpListener) + Send + 'static) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap());
    (address, std::thread::spawn(move || serve(&listener)))
}

/// TCP-2: -EPROTO, -ECONNRESET; TCP-9: -ETIMEDOUT.
#[test]
fn tcp_2_connecting_to_a_stranger_says_so() {
    let mut plane = Plane::open(Config::default()).unwrap();
    let (address, server) = listening(|listener| {
        listener.accept().unwrap().0.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    assert_eq!(plane.connect(&address, WAIT).unwrap_err().errno(), Some(Errno::EPROTO));
    server.join().unwrap();
    let (address, server) = listening(|listener| drop(listener.accept().unwrap().0));
    assert_eq!(plane.connect(&address, WAIT).unwrap_err().errno(), Some(Errno::ECONNRESET));
    server.join().unwrap();
    let (address, server) = listening(|listener| {
        let _silent = listener.accept().unwrap();
        std::thread::sleep(Duration::from_millis(2500));
    });
    assert_eq!(plane.connect(&address, WAIT).unwrap_err().errno(), Some(Errno::ETIMEDOUT));
    server.join().unwrap();
}

/// TCP-6, and TCP-10 where the owner dies: an owner of leases who says that a READ has succeeded and never sends its
/// bytes.
#[test]
fn tcp_6_a_read_does_not_succeed_without_its_bytes() {
    for (round, ending) in ["dies", "gives up"].into_iter().enumerate() {
        let mut scene = scene();
        let (mut raw, peer) = scene.meet();
        let token = Token { context: CONTEXT, lease: 77, length: 1 << 20, shape: 1, tag: [1, 2] }.encode();
        let owner = std::thread::spawn(move || {
            let Message::Claim { op, .. } = raw.hear() else { panic!("no claim") };
            let rights = Rights::READ;
            raw.say(&Message::Claimed { op, result: 0, rights, list: false, length: 1 << 20 });
            let Message::Request(request) = raw.hear() else { panic!("no request") };
            raw.say(&Message::Done { op: request.op, result: 0, bytes: request.length });
            let mut part = record(5, &[], [request.op, request.length, 0, 0, 0, 0, 0, 0]);
            part.extend_from_slice(&1000u32.to_le_bytes());
            part.extend_from_slice(&[6; 1000]);
            if round == 1 {
                part.extend_from_slice(&(1 << 30 | 5u32).to_le_bytes());
            }
            raw.data.write_all(&part).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            raw
        });
        let import = scene.plane.import(&peer, &token).unwrap();
        let mut into = scene.plane.alloc(1 << 20).unwrap();
        let reader = &mut scene.plane;
        let error = std::thread::scope(|scope| {
            let raw = scope.spawn(move || owner.join().unwrap());
            let error = scope.spawn(move || reader.read(&mut into, 0, &import, 0, 1 << 20).unwrap_err());
            drop(raw.join().unwrap());
            error.join().unwrap()
        });
        let expected = if round == 0 { Errno::ECONNRESET } else { Errno::EIO };
        assert_eq!(error.errno(), Some(expected), "the owner {ending}");
    }
}
