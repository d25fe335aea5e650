//! The process that is written to: it leases memory, answers, and checks at the end what has arrived.

use super::child::answer_cpu_seconds;
use super::connection::WAIT;
use super::workload::{ANSWER, CHECK, LIST, QUESTION, fill, list, pairs};
use anyhow::{Context, Result, ensure};
use dmaplane::{Config, Errno, Leased, List, Peer, Plane, Rights};
use std::time::Duration;

const IDLE_WAIT: Duration = Duration::from_secs(3600);

/// A leased list: blocks of so many bytes, so many of them.
struct LeasedList {
    leased: Leased<List>,
    block_bytes: u64,
    blocks: u64,
}

/// Prints its address, leases a buffer of that many bytes, and lists as they are asked for.
pub fn run(address: &str, bytes: u64) -> Result<()> {
    let mut plane = Plane::open(Config::default())?;
    let (listener, address) = plane.listen(address)?;
    println!("{address}");
    answer_cpu_seconds();
    let peer = plane.accept(&listener, WAIT)?;
    let buffer = plane.alloc(bytes)?;
    let leased = plane.grant(buffer, Rights::READ.with(Rights::WRITE))?;
    let token = plane.token(&leased)?;
    plane.send_message(&peer, &token, WAIT)?;
    let mut lists = Vec::new();
    loop {
        let arrival = match plane.receive(&peer, IDLE_WAIT) {
            Ok(arrival) => arrival,
            // The initiator needs nothing checked, and has gone.
            Err(error) if error.errno() == Some(Errno::ECONNRESET) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if arrival.immediate == Some(QUESTION) {
            plane.send(&peer, ANSWER, WAIT)?;
        } else if let Some(sizes) = arrival.payload.strip_prefix(LIST) {
            lists.push(lease_list(&mut plane, &peer, sizes)?);
        } else if arrival.payload == CHECK {
            break;
        }
    }
    let buffer = plane.revoke(leased)?;
    let mut verdict = differs_plain(buffer.as_slice());
    for LeasedList { leased, block_bytes, blocks } in lists {
        let list = plane.revoke(leased)?;
        verdict = verdict.and_then(|()| check_blocks(list.buffers()[0].as_slice(), block_bytes, blocks));
    }
    let verdict = verdict.err().map_or_else(String::new, |error| format!("{error:#}"));
    plane.send_message(&peer, verdict.as_bytes(), WAIT)?;
    // The initiator ends this process when it has read that.
    let _ = plane.receive(&peer, WAIT);
    Ok(())
}

fn lease_list(plane: &mut Plane, peer: &Peer, sizes: &[u8]) -> Result<LeasedList> {
    let word = |place: usize| -> Result<u64> {
        let bytes = sizes.get(place * 8..place * 8 + 8).context("a request for a list is too short")?;
        Ok(u64::from_le_bytes(bytes.try_into()?))
    };
    let (block_bytes, blocks) = (word(0)?, word(1)?);
    let list = list(plane, block_bytes, blocks)?;
    let leased = plane.grant_list(list, Rights::WRITE, peer)?;
    let token = plane.token(&leased)?;
    plane.send_message(peer, &token, WAIT)?;
    Ok(LeasedList { leased, block_bytes, blocks })
}

fn differs_plain(arrived: &[u8]) -> Result<()> {
    let mut expected = vec![0; arrived.len()];
    fill(&mut expected);
    ensure!(arrived == expected, "the {} bytes that arrived are not those that were sent", arrived.len());
    Ok(())
}

fn check_blocks(arrived: &[u8], block_bytes: u64, blocks: u64) -> Result<()> {
    let mut expected = vec![0; arrived.len()];
    fill(&mut expected);
    for pair in pairs(blocks) {
        let range = |n: u32| n as usize * block_bytes as usize..(n as usize + 1) * block_bytes as usize;
        let (sent, arrived) = (&expected[range(pair.local)], &arrived[range(pair.remote)]);
        ensure!(sent == arrived, "block {} of {block_bytes} bytes did not arrive as block {}", pair.local, pair.remote);
    }
    Ok(())
}
