//! Many requests at once over few blocks, some aborted by either side at any moment, their blocks reused at once: what
//! is whole is right, and in the end everything is free.

mod workers;

use dmaplane_kv::BlockTable;
use dmaplane_kv::exchange::Ticket;
use std::collections::HashMap;
use workers::{GROUPED, LAYERS, Outcome, Worker, compute, connect, is_right, model, outcomes, routed, turn};

const IN_FLIGHT: usize = 64;
const REQUESTS: u64 = 400;
const TOKENS: u32 = 40;
/// Of 16 tokens: hardly more than those in flight need, so that each is used again as soon as it is free.
const BLOCKS: u32 = 200;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % bound
    }
}

/// One request: the source's ticket and blocks, the destination's ticket, and how many layers are computed.
struct Request {
    name: u64,
    sender: Option<Ticket>,
    table: Option<BlockTable>,
    receiver: Option<Ticket>,
    layers: u32,
    is_aborted: bool,
}

fn storm(fabric: &str, pulls: bool) {
    let mut source = Worker::open("P", fabric, model(GROUPED, 16), 1, BLOCKS);
    let mut destination = Worker::open("D", fabric, model(GROUPED, 32), 1, BLOCKS * 2 / 3);
    connect(&mut source, &mut destination);
    let base = (source.shards[0].plane().usage(), destination.shards[0].plane().usage());
    let mut random = Random(if pulls { 11 } else { 7 });
    let mut running: Vec<Request> = Vec::new();
    let (mut next, mut whole, mut aborted, mut most) = (0, 0, 0, 0);
    turn(&mut source, &mut destination, |source, destination| {
        let (sender, receiver) = (&mut source.shards[0], &mut destination.shards[0]);
        let (to_receiver, to_sender) = (sender.peer("D.0").unwrap(), receiver.peer("P.0").unwrap());
        while running.len() < IN_FLIGHT && next < REQUESTS {
            let Ok(table) = sender.pool_mut().allocate(TOKENS) else { break };
            let (to, from) = (destination_side(1 + next as u32 % 2), source_side(1 + next as u32 % 2));
            let begun = if pulls {
                let (offer, manifests) = sender.offer(&table, &to, &[Some(to_receiver)], None).unwrap();
                match receiver.pull(&[(to_sender, &routed(&manifests[0].1))]) {
                    Ok(pull) => Some((offer, pull)),
                    Err(_) => {
                        sender.abort(offer).unwrap();
                        None
                    }
                }
            } else {
                let landed = receiver.land(TOKENS, &from, &[Some(to_sender)], None);
                landed.ok().map(|(landing, manifests)| {
                    (sender.push(to_receiver, &table, &routed(&manifests[0].1)).unwrap(), landing)
                })
            };
            let Some((of_sender, of_receiver)) = begun else {
                sender.pool_mut().release(table).unwrap();
                break;
            };
            let (sender, receiver) = (Some(of_sender), Some(of_receiver));
            running.push(Request { name: next, sender, table: Some(table), receiver, layers: 0, is_aborted: false });
            next += 1;
        }
        most = most.max(running.len());
        // Some go on by a layer; some are aborted, by either side, wherever they are.
        for request in &mut running {
            match random.below(80) {
                // However slow the machine makes the transfers, most of them end.
                0 if !request.is_aborted && aborted < REQUESTS / 8 => {
                    request.is_aborted = true;
                    aborted += 1;
                    let (exchange, ticket) = match random.below(2) {
                        0 => (&mut *receiver, request.receiver),
                        _ => (&mut *sender, request.sender),
                    };
                    if let Some(ticket) = ticket {
                        exchange.abort(ticket).unwrap();
                    }
                }
                1..60 if request.layers < LAYERS && request.sender.is_some() => {
                    let (layer, ticket) = (request.layers, request.sender.unwrap());
                    compute(sender.pool_mut(), request.table.as_ref().unwrap(), request.name, layer);
                    let sent = if pulls {
                        sender.ready_layers(ticket, layer..layer + 1, b"first")
                    } else {
                        sender.send_layers(ticket, layer..layer + 1, b"first")
                    };
                    assert!(sent.is_ok() || request.is_aborted, "{sent:?}");
                    request.layers += 1;
                }
                _ => {}
            }
        }
        let mut ended: HashMap<Ticket, Outcome> = HashMap::new();
        ended.extend(outcomes(source.poll()).into_iter().map(|((_, ticket), outcome)| (ticket, outcome)));
        for request in &mut running {
            if let Some(outcome) = request.sender.and_then(|ticket| ended.remove(&ticket)) {
                let is_whole = matches!(outcome, Outcome::Whole(..));
                assert!(is_whole || request.is_aborted, "request {}: {outcome:?}", request.name);
                request.sender = None;
                let table = request.table.take().unwrap();
                source.shards[0].pool_mut().release(table).unwrap();
            }
        }
        ended.clear();
        ended.extend(outcomes(destination.poll()).into_iter().map(|((_, ticket), outcome)| (ticket, outcome)));
        for request in &mut running {
            match request.receiver.and_then(|ticket| ended.remove(&ticket)) {
                None => continue,
                Some(Outcome::Whole(table, user)) => {
                    let (table, pool) = (table.unwrap(), destination.shards[0].pool_mut());
                    is_right(pool, &table, request.name).unwrap_or_else(|what| panic!("{fabric}: {what}"));
                    assert_eq!(user, b"first");
                    pool.release(table).unwrap();
                    whole += 1;
                }
                Some(outcome) => assert!(request.is_aborted, "request {}: {outcome:?}", request.name),
            }
            request.receiver = None;
        }
        running.retain(|request| request.sender.is_some() || request.receiver.is_some());
        running.is_empty() && next == REQUESTS
    });
    println!(
        "{fabric}, pulls {pulls}: {REQUESTS} requests, at most {most} at a time, {whole} whole, {aborted} aborted"
    );
    assert!(most == IN_FLIGHT && aborted > REQUESTS / 50 && whole > REQUESTS / 3, "{most}, {aborted}, {whole}");
    assert_eq!(source.shards[0].pool().free_blocks(), BLOCKS);
    assert_eq!(destination.shards[0].pool().free_blocks(), BLOCKS * 2 / 3);
    // What was dropped ends with later calls; lists of the pools by fragment are made once and stay.
    turn(&mut source, &mut destination, |source, destination| {
        source.poll();
        destination.poll();
        // A call of its own: what was dropped is ended by the next one.
        let mut ended = true;
        for (worker, base) in [(source, base.0), (destination, base.1)] {
            let plane = worker.shards[0].plane();
            let buffer = plane.alloc(4096).unwrap();
            plane.free(buffer).unwrap();
            let usage = plane.usage();
            ended &= (usage.leases, usage.imports) == (base.leases, base.imports) && usage.lists <= base.lists + 2;
        }
        ended
    });
}

fn source_side(part_layers: u32) -> dmaplane_kv::exchange::FarSide {
    dmaplane_kv::exchange::FarSide { shards: 1, block_tokens: 16, part_layers }
}

fn destination_side(part_layers: u32) -> dmaplane_kv::exchange::FarSide {
    dmaplane_kv::exchange::FarSide { shards: 1, block_tokens: 32, part_layers }
}

#[test]
fn sixty_four_pushes_at_once_with_aborts_over_shm() {
    storm("shm", false);
}

#[test]
fn sixty_four_pushes_at_once_with_aborts_over_tcp() {
    storm("tcp", false);
}

#[test]
fn sixty_four_pulls_at_once_with_aborts_over_shm() {
    storm("shm", true);
}

#[test]
fn sixty_four_pulls_at_once_with_aborts_over_tcp() {
    storm("tcp", true);
}

#[test]
#[ignore = "wants the kernel driver: cargo xtask vm test"]
fn sixty_four_pushes_at_once_with_aborts_over_local() {
    storm("local", false);
}

#[test]
#[ignore = "wants the kernel driver: cargo xtask vm test"]
fn sixty_four_pulls_at_once_with_aborts_over_local() {
    storm("local", true);
}
