//! `send` and `recv` when all goes well: the file arrives, byte for byte.

mod common;

use common::{Bench, FABRICS, files, number};
use std::fs;

fn mib() -> u64 {
    number("DMAPLANE_E2E_MIB", 64)
}

#[test]
fn a_file_of_mixed_types_arrives_byte_for_byte() {
    for fabric in FABRICS {
        let bench = Bench::new(fabric);
        let file = bench.text("model.safetensors");
        let tensors = files::write(&bench.path("model.safetensors"), mib());
        let (recv, place) = bench.recv(&["--json"]);
        let sent = bench.send(&place, &file, &["--json"]).end().succeeded().json();
        let received = recv.end().succeeded().json();
        assert!(files::same(file.as_ref(), &bench.out()), "{fabric}");
        assert_eq!(bench.received(), ["out.safetensors"]);
        let bytes = fs::metadata(&file).unwrap().len();
        for (report, role) in [(&sent, "send"), (&received, "recv")] {
            assert_eq!(report["role"], role);
            assert_eq!(report["bytes"], bytes);
            assert_eq!(report["tensors"], tensors);
            assert_eq!(report["fabric"], fabric);
            assert!(report["seconds"].as_f64().unwrap() > 0.0);
        }
        assert_eq!(sent["checksum"], received["checksum"]);
        assert_eq!(sent["checksum"].as_str().unwrap().len(), 16);
        println!("{fabric}: {bytes} bytes in {} s", received["seconds"]);
    }
}

/// Two tensors that a piece of 64 KiB has no room for beside each other, and small ones.
#[test]
fn pieces_end_where_tensors_do() {
    let sizes = [60_000, 10_000, 100_000, 7];
    let mut end = 0;
    let tensor = |(name, size): (usize, &u64)| {
        end += size;
        format!("\"t{name}\":{{\"dtype\":\"U8\",\"shape\":[{size}],\"data_offsets\":[{},{end}]}}", end - size)
    };
    let json = format!("{{{}}}", sizes.iter().enumerate().map(tensor).collect::<Vec<_>>().join(","));
    let head = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
    let bytes = [&head[..], &vec![1; end as usize]].concat();
    for fabric in FABRICS {
        let bench = Bench::logging(fabric);
        let file = bench.put("model.safetensors", &bytes);
        let (mut recv, place) = bench.recv(&[]);
        let send = bench.send(&place, &file, &[]);
        for (piece, length) in [head.len(), 60_000, 10_000, 65_536, 100_000 - 65_536, 7].into_iter().enumerate() {
            recv.log(&format!("a piece is here, its lease is over piece={piece} bytes={length}"));
        }
        send.end().succeeded();
        recv.end().succeeded();
        assert_eq!(fs::read(bench.out()).unwrap(), bytes);
    }
}

#[test]
fn small_and_empty_files_arrive_too() {
    for fabric in FABRICS {
        let bench = Bench::new(fabric);
        let empty = b"\x02\0\0\0\0\0\0\0{}";
        let file = bench.put("empty.safetensors", empty);
        bench.transfer(&file);
        let json = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
            "n":{"dtype":"F32","shape":[0],"data_offsets":[1,1]}}"#;
        let bytes = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), b"x"].concat();
        bench.transfer(&bench.put("one.safetensors", &bytes));
    }
}

/// TCP-3: two contexts with one key. (That the wire is sealed is not looked at.)
#[test]
fn with_a_key_tcp_is_encrypted_and_the_file_the_same() {
    let bench = Bench::new("tcp");
    files::write(&bench.path("model.safetensors"), mib().min(32));
    let file = bench.text("model.safetensors");
    let raw = bench.put("raw.key", &[0xa5; 32]);
    let digits = bench.put("digits.key", format!("{}\n", "a5".repeat(32)).as_bytes());
    let (recv, place) = bench.recv(&["--key-file", &raw, "--json"]);
    bench.send(&place, &file, &["--key-file", &digits]).end().succeeded();
    assert_eq!(recv.end().succeeded().json()["encrypted"], true);
    assert!(files::same(file.as_ref(), &bench.out()));
}

#[test]
fn an_existing_output_is_replaced_when_the_new_one_is_complete_and_not_before() {
    for fabric in FABRICS {
        let bench = Bench::new(fabric);
        files::write(&bench.path("model.safetensors"), 16);
        let file = bench.text("model.safetensors");
        fs::write(bench.out(), "the old one").unwrap();
        let (recv, place) = bench.recv(&[]);
        let mut send = bench.send(&place, &file, &["--limit-rate", "16"]);
        std::thread::sleep(std::time::Duration::from_millis(400));
        assert!(send.is_running());
        assert_eq!(fs::read(bench.out()).unwrap(), b"the old one");
        send.kill();
        recv.end().failed_with("the sender is gone");
        assert_eq!(fs::read(bench.out()).unwrap(), b"the old one");
        let (recv, place) = bench.recv(&[]);
        bench.send(&place, &file, &[]).end().succeeded();
        recv.end().succeeded();
        assert!(files::same(file.as_ref(), &bench.out()));
        assert_eq!(bench.received(), ["out.safetensors"]);
    }
}
