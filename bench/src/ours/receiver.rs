//! The process that is written to: it leases memory, answers, and checks at the end what has arrived.

use super::workload::{ANSWER, BLOCK_BYTES, CHECK, LARGE_BYTES, QUESTION, fill, list, pairs};
use crate::plain::cpu_seconds;
use anyhow::{Result, ensure};
use dmaplane::{Config, Plane, Rights};
use std::io::BufRead;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(30);
const IDLE_WAIT: Duration = Duration::from_secs(3600);

/// Prints its address, then its CPU time for each line of input. When the input ends, the initiator is gone.
pub fn run(address: &str) -> Result<()> {
    let mut plane = Plane::open(Config::default())?;
    let (listener, address) = plane.listen(address)?;
    println!("{address}");
    std::thread::spawn(|| {
        for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
            println!("{}", cpu_seconds());
        }
        std::process::exit(0);
    });
    let peer = plane.accept(&listener, WAIT)?;
    let buffer = plane.alloc(LARGE_BYTES)?;
    let leased_buffer = plane.grant(buffer, Rights::WRITE)?;
    let list = list(&mut plane)?;
    let leased_list = plane.grant_list(list, Rights::WRITE, &peer)?;
    for token in [plane.token(&leased_buffer)?, plane.token(&leased_list)?] {
        plane.send_message(&peer, &token, WAIT)?;
    }
    loop {
        let arrival = plane.receive(&peer, IDLE_WAIT)?;
        if arrival.immediate == Some(QUESTION) {
            plane.send(&peer, ANSWER, WAIT)?;
        } else if arrival.payload == CHECK {
            break;
        }
    }
    let buffer = plane.revoke(leased_buffer)?;
    let list = plane.revoke(leased_list)?;
    let verdict = match check(buffer.as_slice(), list.buffers()[0].as_slice()) {
        Ok(()) => String::new(),
        Err(error) => format!("{error:#}"),
    };
    plane.send_message(&peer, verdict.as_bytes(), WAIT)?;
    // The initiator ends this process when it has read that.
    let _ = plane.receive(&peer, WAIT);
    Ok(())
}

fn check(large: &[u8], blocks: &[u8]) -> Result<()> {
    let mut expected = vec![0; blocks.len()];
    fill(&mut expected);
    ensure!(large == &expected[..large.len()], "the 64 MiB that arrived are not those that were sent");
    for pair in pairs() {
        let block = |of, n: u32| -> &[u8] {
            let of: &[u8] = of;
            &of[n as usize * BLOCK_BYTES as usize..][..BLOCK_BYTES as usize]
        };
        let (sent, arrived) = (block(&expected, pair.local), block(blocks, pair.remote));
        ensure!(sent == arrived, "block {} did not arrive as block {}", pair.local, pair.remote);
    }
    Ok(())
}
