//! What goes wrong before or beside a transfer: each time one line that says what, no signal, no hang.

mod common;

use common::files::Random;
use common::{Bench, FABRICS, dmaplane, files};
use dmaplane_sandbox::skip;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

#[test]
fn files_that_are_not_what_they_should_be() {
    let bench = Bench::new("tcp");
    files::write(&bench.path("model.safetensors"), 1);
    let whole = fs::read(bench.path("model.safetensors")).unwrap();
    let mut random = vec![0; 5000];
    Random(3).fill(&mut random);
    let json = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}}"#;
    let hole = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), b"12345"].concat();
    for (name, bytes, message) in [
        ("cut", &whole[..whole.len() - 1], "truncated: the header describes"),
        ("cut-in-header", &whole[..100], "truncated: the header alone needs"),
        ("long", &[&whole[..], b"x"].concat(), "not a safetensors file: 1 bytes after"),
        ("empty", b"", "not a safetensors file: 0 bytes"),
        ("text", b"It was a dark and stormy night.", "not a safetensors file"),
        ("random", &random, "not a safetensors file"),
        ("hole", &hole, "not a safetensors file: tensor \"a\" begins at byte 1"),
    ] {
        // Found before anybody is connected to.
        bench.send("127.0.0.1:1", &bench.put(name, bytes), &[]).end().failed_with(message);
    }
    bench.send("127.0.0.1:1", &bench.text("nowhere"), &[]).end().failed_with("No such file");
    bench.send("127.0.0.1:1", &bench.text("received"), &[]).end().failed_with("not a regular file, but a folder");
    bench.send("127.0.0.1:1", "/dev/null", &[]).end().failed_with("not a regular file, but a device");
    // Nobody writes into it: whoever opens it waits for ever.
    let pipe = bench.text("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let ended = bench.send("127.0.0.1:1", &pipe, &[]).end_within(Duration::from_secs(10));
    ended.failed_with("not a regular file, but a pipe");
}

#[test]
fn a_file_that_is_cut_while_it_is_sent() {
    for fabric in FABRICS {
        let bench = Bench::new(fabric);
        files::write(&bench.path("model.safetensors"), 32);
        let file = bench.text("model.safetensors");
        let (recv, place) = bench.recv(&[]);
        let send = bench.send(&place, &file, &["--limit-rate", "24"]);
        std::thread::sleep(Duration::from_millis(400));
        fs::File::options().write(true).open(&file).unwrap().set_len(5000).unwrap();
        send.end().failed_with("truncated");
        recv.end().failed_with("the sender gave up");
        assert_eq!(bench.received(), [""; 0]);
    }
}

#[test]
fn a_full_disk() {
    for fabric in FABRICS {
        let bench = Bench::new(fabric);
        files::write(&bench.path("model.safetensors"), 64);
        let Some(disk) = SmallDisk::mount(&bench.text("received")) else { return };
        let (recv, place) = bench.recv(&[]);
        let send = bench.send(&place, &bench.text("model.safetensors"), &[]);
        send.end().failed_with("the receiver gave up");
        recv.end().failed_with("disk full: no room for the");
        assert_eq!(bench.received(), [""; 0]);
        // And one that fits.
        files::write(&bench.path("small.safetensors"), 4);
        bench.transfer(&bench.text("small.safetensors"));
        drop(disk);
    }
}

/// A tmpfs of 8 MiB.
struct SmallDisk(String);

impl SmallDisk {
    fn mount(place: &str) -> Option<SmallDisk> {
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs", place]).output();
        match mount {
            Ok(output) if output.status.success() => Some(SmallDisk(place.to_owned())),
            Ok(output) => {
                skip("a_full_disk", &format!("mount: {}", String::from_utf8_lossy(&output.stderr).trim()));
                None
            }
            Err(error) => {
                skip("a_full_disk", &format!("mount: {error}"));
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", &self.0]).status();
    }
}

#[test]
fn an_output_that_cannot_be() {
    let bench = Bench::new("tcp");
    let recv = |out: &str| dmaplane(&["recv", "--listen", "127.0.0.1:0", "--out", out]);
    recv(&bench.text("received")).failed_with("exists and is no regular file");
    recv(&bench.text("no/such/folder")).failed_with("cannot write in");
}

/// SHM-1: -EADDRINUSE, -ECONNREFUSED; TCP-1: off loopback without a key.
#[test]
fn places_that_are_taken_or_none() {
    for fabric in FABRICS {
        let bench = Bench::new(fabric);
        let (mut recv, place) = bench.recv(&[]);
        let other = bench.text("other");
        let taken = dmaplane(&["recv", "--fabric", fabric, "--listen", &place, "--out", &other]);
        taken.failed_with("in use");
        assert!(recv.is_running());
        files::write(&bench.path("model.safetensors"), 1);
        let file = bench.text("model.safetensors");
        bench.send(&place, &file, &[]).end().succeeded();
        recv.end().succeeded();
        bench.send(&place, &file, &[]).end().failed_with("nobody listens at");
    }
    let bench = Bench::new("tcp");
    files::write(&bench.path("model.safetensors"), 1);
    bench.send("nonsense", &bench.text("model.safetensors"), &[]).end().failed_with("'nonsense' is no place");
    let recv = |place: &str| dmaplane(&["recv", "--listen", place, "--out", &bench.text("out")]);
    recv("nonsense").failed_with("cannot listen at nonsense");
    recv("0.0.0.0:0").failed_with("off loopback tcp needs a key");
    let nobody = ["recv", "--listen", "127.0.0.1:0", "--wait", "1", "--out", &bench.text("out")];
    dmaplane(&nobody).failed_with("nobody connected within 1 s");
}

/// TCP-2: the other security; TCP-3: another key.
#[test]
fn keys_that_do_not_fit() {
    let bench = Bench::new("tcp");
    files::write(&bench.path("model.safetensors"), 1);
    let file = bench.text("model.safetensors");
    let right = bench.put("right", &[1; 32]);
    let wrong = bench.put("wrong", &[2; 32]);
    let short = bench.put("short", b"password");
    let (recv, place) = bench.recv(&["--key-file", &right]);
    bench.send(&place, &file, &["--key-file", &wrong]).end().failed_with("wrong key");
    bench.send(&place, &file, &[]).end().failed_with("wrong key");
    bench.send(&place, &file, &["--key-file", &short]).end().failed_with("not a key: 8 bytes");
    bench.send(&place, &file, &["--key-file", &bench.text("nowhere")]).end().failed_with("No such file");
    // The receiver has turned them away, said so, and serves who has the key.
    bench.send(&place, &file, &["--key-file", &right]).end().succeeded();
    let ended = recv.end().succeeded();
    assert_eq!(ended.stderr.matches("turned away").count(), 2, "{ended:?}");

    let (recv, place) = bench.recv(&[]);
    bench.send(&place, &file, &["--key-file", &right]).end().failed_with("wrong key");
    bench.send(&place, &file, &[]).end().succeeded();
    recv.end().succeeded();
    let shm = Bench::new("shm");
    shm.send("path", &file, &["--key-file", &right]).end().failed_with("--key-file is for --fabric tcp");
}

/// A server that answers in its own way.
fn stranger(answer: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    place
}

/// TCP-2: another preamble; TCP-9: silence; SHM-1: a socket of another type, a file that is no socket.
#[test]
fn servers_that_speak_another_protocol() {
    let bench = Bench::new("tcp");
    files::write(&bench.path("model.safetensors"), 1);
    let file = bench.text("model.safetensors");
    let http = stranger(|mut stream| {
        let _ = stream.read(&mut [0; 16]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    });
    bench.send(&http, &file, &[]).end().failed_with("another protocol");
    let random = stranger(|mut stream| {
        let mut bytes = vec![0; 1 << 16];
        Random(5).fill(&mut bytes);
        let _ = stream.write_all(&bytes);
        std::thread::sleep(Duration::from_secs(10));
    });
    bench.send(&random, &file, &[]).end().failed_with("another protocol");
    let silent = stranger(|stream| {
        std::thread::sleep(Duration::from_secs(30));
        drop(stream);
    });
    bench.send(&silent, &file, &[]).end().failed_with("another protocol");

    let shm = Bench::new("shm");
    let _stream = UnixListener::bind(shm.path("stream")).unwrap();
    shm.send(&shm.text("stream"), &file, &[]).end().failed_with("another protocol");
    shm.put("plain", b"a file");
    shm.send(&shm.text("plain"), &file, &[]).end().failed_with("nobody listens at");
}

/// TCP-2: no `DPTC`, or the end before all of the preamble.
#[test]
fn clients_that_speak_another_protocol_are_turned_away_and_the_receiver_goes_on() {
    let bench = Bench::new("tcp");
    files::write(&bench.path("model.safetensors"), 1);
    let (recv, place) = bench.recv(&[]);
    let mut random = vec![0; 100_000];
    Random(9).fill(&mut random);
    for bytes in [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], &random, b"x", b""] {
        let mut stream = TcpStream::connect(&place).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    bench.send(&place, &bench.text("model.safetensors"), &[]).end().succeeded();
    let ended = recv.end().succeeded();
    assert!(ended.stderr.contains("turned away"), "{ended:?}");
    assert!(files::same(&bench.path("model.safetensors"), &bench.out()));
}
