//! Peers that know the transport and break the file's protocol, or lie in it: made with the library.

mod common;

use common::{Bench, Ended, FABRICS, files};
use dmaplane::{Config, Peer, Plane};
use std::time::Duration;
use twox_hash::XxHash3_64;

const WAIT: Duration = Duration::from_secs(10);
const EMPTY: &[u8] = b"\x02\0\0\0\0\0\0\0{}";

fn say(plane: &mut Plane, peer: &Peer, text: &str) {
    let _ = plane.send_message(peer, text.as_bytes(), WAIT);
}

fn hear(plane: &mut Plane, peer: &Peer) -> serde_json::Value {
    let bytes = plane.receive_message(peer, 1 << 20, WAIT).expect("an answer");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn offer(bytes: u64) -> String {
    format!("{{\"kind\":\"offer\",\"protocol\":\"dmaplane-file/1\",\"bytes\":{bytes}}}")
}

/// What the receiver says to such a sender.
fn against_receiver(bench: &Bench, act: impl FnOnce(&mut Plane, &Peer)) -> Ended {
    let (recv, place) = bench.recv(&["--patience", "2"]);
    let mut plane = Plane::open(Config::default()).unwrap();
    let peer = plane.connect(&format!("{}:{place}", bench.fabric), WAIT).unwrap();
    act(&mut plane, &peer);
    drop(plane);
    let ended = recv.end();
    assert_eq!(bench.received(), [""; 0]);
    ended
}

/// An offer that is taken, and pieces of these lengths.
fn offer_and_cut(plane: &mut Plane, peer: &Peer, lengths: &str) {
    say(plane, peer, &offer(EMPTY.len() as u64));
    assert_eq!(hear(plane, peer)["kind"], "ready");
    say(plane, peer, &format!("{{\"kind\":\"cut\",\"lengths\":{lengths}}}"));
}

fn checksums(file: u64) -> String {
    format!("{{\"kind\":\"checksums\",\"file\":{file},\"tensors\":[]}}")
}

/// Offers ten bytes and writes these, then claims these checksums.
fn write_and_claim(plane: &mut Plane, peer: &Peer, written: &[u8], checksums: &str) {
    offer_and_cut(plane, peer, "[10]");
    let grant = hear(plane, peer);
    let digits = grant["token"].as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    let token: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
    let import = plane.import(peer, &token).unwrap();
    let mut source = plane.alloc(4096).unwrap();
    source.as_mut_slice()[..written.len()].copy_from_slice(written);
    plane.write_imm(&source, 0, &import, 0, written.len() as u64, 0).unwrap();
    say(plane, peer, checksums);
}

#[test]
fn senders_that_break_the_protocol_are_named() {
    let messages = [
        ("GET / HTTP/1.1", "speaks another protocol"),
        ("{\"kind\":\"done\",\"file\":1}", "it offers no file"),
        ("{\"kind\":\"offer\",\"protocol\":\"other/1\",\"bytes\":10}", "it offers no file"),
        ("{\"kind\":\"abort\",\"reason\":\"two\\nlines \\u001b[31m\"}", "the sender gave up: two lines  [31m"),
    ];
    for fabric in FABRICS {
        for (message, said) in messages {
            let bench = Bench::new(fabric);
            against_receiver(&bench, |plane, peer| {
                say(plane, peer, message);
                let _ = plane.receive(peer, WAIT);
            })
            .failed_with(said);
        }
    }
}

#[test]
fn senders_that_lie_about_the_file_leave_nothing() {
    for fabric in FABRICS {
        let bench = Bench::new(fabric);
        for (written, said) in [(EMPTY, "the file was damaged on its way"), (b"not tensor", "not a safetensors file")] {
            let ended = against_receiver(&bench, |plane, peer| {
                write_and_claim(plane, peer, written, &checksums(1));
                let _ = plane.receive(peer, WAIT);
            });
            ended.failed_with(said);
        }
        against_receiver(&bench, |plane, peer| {
            offer_and_cut(plane, peer, "[10]");
            say(plane, peer, &checksums(1));
            std::thread::sleep(Duration::from_secs(1));
        })
        .failed_with("checksums before the last piece");
        against_receiver(&bench, |plane, peer| {
            say(plane, peer, &offer(EMPTY.len() as u64));
            say(plane, peer, &checksums(1));
            std::thread::sleep(Duration::from_secs(1));
        })
        .failed_with("it did not say how it cuts the file");
        for lengths in ["[]", "[9]", "[11]", "[5,0,5]", "[1,18446744073709551615,10]"] {
            let ended = against_receiver(&bench, |plane, peer| {
                offer_and_cut(plane, peer, lengths);
                let _ = plane.receive(peer, WAIT);
            });
            ended.failed_with("its pieces are not the file's");
        }
        for bytes in [0, u64::MAX, 1 << 62] {
            let ended = against_receiver(&bench, |plane, peer| {
                say(plane, peer, &offer(bytes));
                let _ = plane.receive(peer, WAIT);
            });
            ended.failed_with("is not written");
        }
        // One that says nothing at all.
        against_receiver(&bench, |_, _| std::thread::sleep(Duration::from_secs(3))).failed_with("has said nothing");
    }
}

#[test]
fn a_sender_that_takes_its_word_back_when_all_is_said_changes_nothing() {
    let file = XxHash3_64::oneshot(EMPTY);
    let abort = "{\"kind\":\"abort\",\"reason\":\"it was not meant so\"}";
    for fabric in FABRICS {
        for last in [Some(abort), None] {
            let bench = Bench::new(fabric);
            let (recv, place) = bench.recv(&["--patience", "2"]);
            let mut plane = Plane::open(Config::default()).unwrap();
            let peer = plane.connect(&format!("{fabric}:{place}"), WAIT).unwrap();
            write_and_claim(&mut plane, &peer, EMPTY, &checksums(file));
            if let Some(last) = last {
                say(&mut plane, &peer, last);
            }
            plane.disconnect(peer).unwrap();
            recv.end().succeeded();
            assert_eq!(std::fs::read(bench.out()).unwrap(), EMPTY, "{fabric}, {last:?}");
        }
    }
}

#[test]
fn receivers_that_break_the_protocol_are_named() {
    let grant = "{\"kind\":\"grant\",\"piece\":0,\"token\":\"00ff\"}";
    let cases: [(&[&str], &str); 5] = [
        (&["nonsense"], "speaks another protocol"),
        (&["{\"kind\":\"ready\",\"piece_bytes\":1}"], "pieces of an absurd size"),
        (&["{\"kind\":\"done\",\"file\":1}"], "it did not answer the offer"),
        (&["{\"kind\":\"abort\",\"reason\":\"no\"}"], "the receiver gave up: no"),
        (&["{\"kind\":\"ready\",\"piece_bytes\":65536}", grant], "claiming a lease"),
    ];
    for fabric in FABRICS {
        for (answers, said) in cases {
            let bench = Bench::new(fabric);
            files::write(&bench.path("model.safetensors"), 1);
            let mut plane = Plane::open(Config::default()).unwrap();
            let place = if fabric == "shm" { bench.text("socket") } else { "127.0.0.1:0".to_owned() };
            let (listener, address) = plane.listen(&format!("{fabric}:{place}")).unwrap();
            let place = address.split_once(':').unwrap().1;
            let send = bench.send(place, &bench.text("model.safetensors"), &["--patience", "2"]);
            let peer = plane.accept(&listener, WAIT).unwrap();
            assert_eq!(hear(&mut plane, &peer)["kind"], "offer");
            answers.iter().for_each(|answer| say(&mut plane, &peer, answer));
            send.end().failed_with(said);
        }
    }
}
