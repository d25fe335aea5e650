//! Writes between two processes, beside a plain memcpy and a plain socket.

use crate::sample::{Sample, alternate, line};
use anyhow::Result;
use dmaplane::{Config, IndexPair, Plane, Rights, Run};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(30);
const LARGE: u64 = 64 << 20;
const BLOCK: u64 = 4096;
const BLOCKS: u64 = 81_920;

fn list(plane: &mut Plane, blocks: u64) -> Result<dmaplane::List> {
    let buffer = plane.alloc(blocks * BLOCK)?;
    let run = Run { stride_bytes: BLOCK, length_bytes: BLOCK as u32, count: blocks as u32, ..Run::default() };
    Ok(plane.prepare_list(vec![buffer], &[(0, run)])?)
}

/// The other process: leases a buffer and a list, and waits for the end.
pub fn receive(address: &str) -> Result<()> {
    let mut plane = Plane::open(Config::default())?;
    let (listener, address) = plane.listen(address)?;
    println!("{address}");
    let peer = plane.accept(&listener, WAIT)?;
    let buffer = plane.alloc(LARGE)?;
    let lease = plane.grant(buffer, Rights::WRITE)?;
    let list = list(&mut plane, BLOCKS)?;
    let leased_list = plane.grant_list(list, Rights::WRITE, &peer)?;
    let token = plane.token(&lease)?;
    plane.send_message(&peer, &token, WAIT)?;
    let token = plane.token(&leased_list)?;
    plane.send_message(&peer, &token, WAIT)?;
    // Immediates arrive and are taken, so that their receives are posted anew; then the peer goes.
    while plane.receive(&peer, Duration::from_secs(600)).is_ok() {}
    drop((lease, leased_list));
    Ok(())
}

/// Bytes per second of one way through a loopback socket, in GB/s.
fn plain_socket(bytes: &[u8]) -> Result<f64> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let length = bytes.len();
    let reader = std::thread::spawn(move || -> Result<()> {
        let (mut socket, _) = listener.accept()?;
        let mut into = vec![0; length];
        socket.read_exact(&mut into)?;
        Ok(socket.write_all(&[1])?)
    });
    let mut socket = std::net::TcpStream::connect(address)?;
    let start = Instant::now();
    socket.write_all(bytes)?;
    socket.read_exact(&mut [0])?;
    let seconds = start.elapsed().as_secs_f64();
    let _ = reader.join();
    Ok(length as f64 / seconds / 1e9)
}

pub fn run(rounds: usize, fabric: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let address = match fabric {
        "shm" => format!("shm:{}", directory.path().join("bench").display()),
        _ => "tcp:127.0.0.1:0".to_owned(),
    };
    let mut child =
        Command::new(std::env::current_exe()?).args(["receive", &address]).stdout(Stdio::piped()).spawn()?;
    let mut address = String::new();
    if let Some(output) = &mut child.stdout {
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut address)?;
    }
    let mut plane = Plane::open(Config::default())?;
    let peer = plane.connect(address.trim(), WAIT)?;
    let token = plane.receive_message(&peer, 4096, WAIT)?;
    let import = plane.import(&peer, &token)?;
    let token = plane.receive_message(&peer, 4096, WAIT)?;
    let leased_list = plane.import(&peer, &token)?;
    let source = plane.alloc(LARGE)?;
    let blocks = list(&mut plane, BLOCKS)?;
    // Scattered on both sides, by two permutations.
    let scattered = |factor: u64, n: u64| (n * factor % BLOCKS) as u32;
    let pairs: Vec<_> =
        (0..BLOCKS).map(|n| IndexPair { local: scattered(7919, n), remote: scattered(104_729, n) }).collect();
    // Memory is faulted in and mapped on both sides before anything is timed.
    plane.write(&source, 0, &import, 0, LARGE)?;
    plane.write_list(&blocks, &leased_list, &pairs, 1, b"warm")?;

    let from = vec![1u8; LARGE as usize];
    let mut into = vec![0u8; LARGE as usize];
    let rate = |bytes: u64, seconds: f64| bytes as f64 / seconds / 1e9;
    let mut beside = |plain: &str| -> Result<f64> {
        if plain == "tcp" {
            return plain_socket(&from);
        }
        let start = Instant::now();
        into.copy_from_slice(&from);
        std::hint::black_box(&into);
        Ok(rate(LARGE, start.elapsed().as_secs_f64()))
    };
    let name = if fabric == "tcp" { "plain socket, 64 MiB" } else { "memcpy, 64 MiB" };
    let large = alternate(
        rounds,
        || {
            let start = Instant::now();
            plane.write(&source, 0, &import, 0, LARGE)?;
            Ok(rate(LARGE, start.elapsed().as_secs_f64()))
        },
        || beside(fabric),
    )?;
    line(&format!("{fabric}: 64 MiB WRITE"), "GB/s", name, large);
    let scattered = alternate(
        rounds,
        || {
            let start = Instant::now();
            plane.write_list(&blocks, &leased_list, &pairs, 1, b"")?;
            Ok(rate(BLOCKS * BLOCK, start.elapsed().as_secs_f64()))
        },
        || beside(fabric),
    )?;
    line(&format!("{fabric}: one WRITE_LIST of 81,920 scattered 4 KiB blocks"), "GB/s", name, scattered);
    // Nothing runs beside this one yet: Mooncake and NIXL are not among the peers.
    let mut small = Vec::new();
    for _ in 0..rounds.max(1) {
        let start = Instant::now();
        for n in 0..200 {
            plane.write_imm(&source, 0, &import, 0, 4096, n)?;
        }
        small.push(start.elapsed().as_secs_f64() / 200.0 * 1e6);
    }
    let small = Sample::of(small);
    println!("| {fabric}: 4 KiB WRITE_IMM, there and answered | {} | nothing yet | |", small.show("us"));
    plane.disconnect(peer)?;
    let _ = child.kill();
    let _ = child.wait();
    Ok(())
}
