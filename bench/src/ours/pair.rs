//! Transfers between two processes, one at a time.

use super::connection::{Connection, Fabric, WAIT};
use super::workload::{
    self, ANSWER, ANSWERED_WRITES, BLOCK_BYTES, BLOCKS, LARGE_BYTES, QUESTION, SMALL_WRITES, STATEMENT,
};
use crate::plain::cpu_seconds;
use crate::sample::{Measurement, median_microseconds};
use anyhow::{Result, ensure};
use dmaplane::{Config, Import, IndexPair, List};
use std::time::Instant;

/// Blocks of one size on both sides, and the order in which they go.
pub struct Scattered {
    list: List,
    leased: Import,
    pairs: Vec<IndexPair>,
    bytes: u64,
}

/// Two connected processes, all memory of which is present and mapped.
pub struct Pair {
    connection: Connection,
}

impl Pair {
    pub fn open(fabric: Fabric) -> Result<Pair> {
        Ok(Pair { connection: Connection::open(fabric, Config::default(), LARGE_BYTES)? })
    }

    /// The list that the figures are about.
    pub fn scattered(&mut self) -> Result<Scattered> {
        self.scattered_blocks(BLOCK_BYTES, BLOCKS)
    }

    /// Prepares so many blocks of that size, and moves them once before anything is timed.
    pub fn scattered_blocks(&mut self, block_bytes: u64, blocks: u64) -> Result<Scattered> {
        let leased = self.connection.leased_list(block_bytes, blocks)?;
        let mut list = workload::list(&mut self.connection.plane, block_bytes, blocks)?;
        workload::fill(list.bytes_mut(0).unwrap_or_default());
        let scattered = Scattered { list, leased, pairs: workload::pairs(blocks), bytes: block_bytes * blocks };
        self.write_scattered(&scattered)?;
        Ok(scattered)
    }

    pub fn write_large(&mut self) -> Result<Measurement> {
        self.write_repeated(LARGE_BYTES, 1)
    }

    /// So many plain writes of that size, one after the other.
    pub fn write_repeated(&mut self, bytes: u64, count: u64) -> Result<Measurement> {
        self.transfer(bytes * count, |connection| {
            for _ in 0..count {
                connection.plane.write(&connection.source, 0, &connection.leased, 0, bytes)?;
            }
            Ok(())
        })
    }

    /// Until the other process's program has seen each write's immediate and its own message has come back.
    pub fn write_large_answered(&mut self) -> Result<Measurement> {
        self.transfer(LARGE_BYTES * ANSWERED_WRITES, |connection| {
            for _ in 0..ANSWERED_WRITES {
                ask(connection, LARGE_BYTES)?;
            }
            Ok(())
        })
    }

    pub fn write_scattered(&mut self, scattered: &Scattered) -> Result<Measurement> {
        let Scattered { list, leased, pairs, bytes } = scattered;
        self.transfer(*bytes, |connection| {
            connection.plane.write_list(list, leased, pairs, STATEMENT, b"")?;
            Ok(())
        })
    }

    /// Until the completion says that the bytes and the immediate have been delivered.
    pub fn write_small(&mut self) -> Result<Measurement> {
        median_microseconds(SMALL_WRITES, || write_imm(&mut self.connection, BLOCK_BYTES, STATEMENT))
    }

    /// Until the other process's program has seen the immediate and its own message has come back.
    pub fn write_small_answered(&mut self) -> Result<Measurement> {
        median_microseconds(SMALL_WRITES, || ask(&mut self.connection, BLOCK_BYTES))
    }

    /// Lets the receiver compare what has arrived with what was sent, and ends it.
    pub fn check(self) -> Result<()> {
        self.connection.check()
    }

    fn transfer(&mut self, bytes: u64, run: impl FnOnce(&mut Connection) -> Result<()>) -> Result<Measurement> {
        let cpu_start = cpu_seconds() + self.connection.receiver.cpu_seconds()?;
        let start = Instant::now();
        run(&mut self.connection)?;
        let wall_seconds = start.elapsed().as_secs_f64();
        let cpu_seconds = cpu_seconds() + self.connection.receiver.cpu_seconds()? - cpu_start;
        Ok(Measurement::transfer(bytes, wall_seconds, cpu_seconds))
    }
}

fn write_imm(connection: &mut Connection, bytes: u64, immediate: u32) -> Result<()> {
    let Connection { plane, source, leased, .. } = connection;
    plane.write_imm(source, 0, leased, 0, bytes, immediate)?;
    Ok(())
}

/// Writes, and waits for the answer of the program at the other end.
fn ask(connection: &mut Connection, bytes: u64) -> Result<()> {
    write_imm(connection, bytes, QUESTION)?;
    let arrival = connection.plane.receive(&connection.peer, WAIT)?;
    ensure!(arrival.payload == ANSWER, "{arrival:?} came where the answer was due");
    Ok(())
}
