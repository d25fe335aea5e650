//! Our ring without an engine, beside rtrb: what the entries' way there and back costs by itself.

use super::BATCHED;
use crate::results::Results;
use crate::sample::Measurement;
use anyhow::{Result, anyhow, ensure};
use dmaplane_ring::abi::{Cqe, RingLayout};
use dmaplane_ring::build::Nop;
use dmaplane_ring::queue::HeapRing;
use rtrb::{Consumer, Producer, RingBuffer};
use std::hint::spin_loop;
use std::time::Instant;

const SQ_ENTRIES: u32 = 256;
const CQ_ENTRIES: u32 = 512;
const BATCH: u64 = BATCHED.batch;
const DEPTH: u64 = BATCHED.depth;

pub fn run(results: &mut Results, operations: u64) -> Result<()> {
    results.compare("bare_round_trip", || our_round_trip(operations), || rtrb_round_trip(operations));
    results.compare("bare_one_way", || our_one_way(operations), || rtrb_one_way(operations));
    Ok(())
}

fn layout() -> Result<RingLayout> {
    RingLayout::new(SQ_ENTRIES, CQ_ENTRIES).ok_or_else(|| anyhow!("a ring of {SQ_ENTRIES} and {CQ_ENTRIES}"))
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("the other end's thread has panicked"))
}

fn our_round_trip(operations: u64) -> Result<Measurement> {
    let (mut client, mut engine) = HeapRing::pair(layout()?);
    std::thread::scope(|scope| {
        let other = scope.spawn(move || {
            let mut done = 0;
            while done < operations {
                let batch = engine.submissions.available().min(BATCH as u32);
                if batch == 0 {
                    spin_loop();
                    continue;
                }
                for ahead in 0..batch {
                    if let Some(sqe) = engine.submissions.peek(ahead) {
                        // The CQ has room for all that is in flight.
                        let _ = engine.completions.push(&Cqe::new(sqe.user_data, 0));
                    }
                }
                engine.submissions.advance(batch);
                engine.completions.publish();
                done += u64::from(batch);
            }
        });
        let start = Instant::now();
        let (mut pushed, mut reaped, mut names) = (0, 0, 0u64);
        while reaped < operations {
            while pushed < operations && pushed - reaped + BATCH <= DEPTH {
                for _ in 0..BATCH {
                    if client.submitter.push(&Nop::new().user_data(pushed).sqe()).is_ok() {
                        pushed += 1;
                    }
                }
                let _asleep = client.submitter.publish();
            }
            reaped += u64::from(client.completer.reap(DEPTH as u32, |cqe| names = names.wrapping_add(cqe.user_data)));
        }
        let rate = Measurement::rate(operations, start);
        joined(other)?;
        ensure!(names == operations * (operations - 1) / 2, "entries were lost");
        Ok(rate)
    })
}

/// Takes what is there, at most a batch; the number of entries.
fn take<T: Copy>(from: &mut Consumer<T>, most: u64, mut each: impl FnMut(T)) -> u64 {
    let count = from.slots().min(most as usize);
    match from.read_chunk(count) {
        Ok(chunk) if count > 0 => {
            chunk.into_iter().for_each(&mut each);
            count as u64
        }
        _ => 0,
    }
}

/// Puts so many entries as one chunk, as soon as there is room.
fn put<T: Copy>(into: &mut Producer<T>, count: u64, entry: impl Fn(u64) -> T) {
    loop {
        if let Ok(chunk) = into.write_chunk_uninit(count as usize) {
            chunk.fill_from_iter((0..count).map(&entry));
            return;
        }
        spin_loop();
    }
}

fn rtrb_round_trip(operations: u64) -> Result<Measurement> {
    let (mut submit, mut take_submissions) = RingBuffer::<[u64; 8]>::new(SQ_ENTRIES as usize);
    let (mut complete, mut take_completions) = RingBuffer::<[u64; 4]>::new(CQ_ENTRIES as usize);
    std::thread::scope(|scope| {
        let other = scope.spawn(move || {
            let mut done = 0;
            let mut names = [0; BATCH as usize];
            while done < operations {
                let mut place = 0;
                let count = take(&mut take_submissions, BATCH, |entry| {
                    names[place] = entry[0];
                    place += 1;
                });
                if count == 0 {
                    spin_loop();
                    continue;
                }
                put(&mut complete, count, |n| [names[n as usize], 0, 0, 0]);
                done += count;
            }
        });
        let start = Instant::now();
        let (mut pushed, mut reaped, mut names) = (0, 0, 0u64);
        while reaped < operations {
            while pushed < operations && pushed - reaped + BATCH <= DEPTH {
                put(&mut submit, BATCH, |n| [pushed + n, 0, 0, 0, 0, 0, 0, 0]);
                pushed += BATCH;
            }
            reaped += take(&mut take_completions, DEPTH, |entry| names = names.wrapping_add(entry[0]));
        }
        let rate = Measurement::rate(operations, start);
        joined(other)?;
        ensure!(names == operations * (operations - 1) / 2, "entries were lost");
        Ok(rate)
    })
}

fn our_one_way(operations: u64) -> Result<Measurement> {
    let (mut client, mut engine) = HeapRing::pair(layout()?);
    std::thread::scope(|scope| {
        let other = scope.spawn(move || {
            let (mut done, mut names) = (0, 0u64);
            while done < operations {
                let batch = engine.submissions.available().min(BATCH as u32);
                for ahead in 0..batch {
                    names = names.wrapping_add(engine.submissions.peek(ahead).map_or(0, |sqe| sqe.user_data));
                }
                engine.submissions.advance(batch);
                done += u64::from(batch);
            }
            names
        });
        let start = Instant::now();
        let mut pushed = 0;
        while pushed < operations {
            for _ in 0..BATCH {
                while client.submitter.push(&Nop::new().user_data(pushed).sqe()).is_err() {
                    spin_loop();
                }
                pushed += 1;
            }
            let _asleep = client.submitter.publish();
        }
        let names = joined(other)?;
        let rate = Measurement::rate(operations, start);
        ensure!(names == operations * (operations - 1) / 2, "entries were lost");
        Ok(rate)
    })
}

fn rtrb_one_way(operations: u64) -> Result<Measurement> {
    let (mut producer, mut consumer) = RingBuffer::<u64>::new(SQ_ENTRIES as usize);
    std::thread::scope(|scope| {
        let other = scope.spawn(move || {
            let (mut done, mut names) = (0, 0u64);
            while done < operations {
                done += take(&mut consumer, BATCH, |name| names = names.wrapping_add(name));
            }
            names
        });
        let start = Instant::now();
        let mut pushed = 0;
        while pushed < operations {
            put(&mut producer, BATCH, |n| pushed + n);
            pushed += BATCH;
        }
        let names = joined(other)?;
        let rate = Measurement::rate(operations, start);
        ensure!(names == operations * (operations - 1) / 2, "entries were lost");
        Ok(rate)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_arrives_in_each_of_the_four() {
        for measure in [our_round_trip, rtrb_round_trip, our_one_way, rtrb_one_way] {
            assert!(measure(1 << 12).unwrap().value > 0.0);
        }
    }
}
