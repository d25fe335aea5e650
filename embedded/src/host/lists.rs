//! Lists: the runs, copied once into private memory.

use super::{EmbeddedHost, ListMemory, Note};
use crate::runner::failed;
use dmaplane_engine::{Event, ListShape, OpId, Outcome};
use dmaplane_ring::abi::{Errno, Handle, Run};
use std::sync::Arc;

impl EmbeddedHost {
    pub(super) fn start_list_load(&mut self, op: OpId, list: u32, buffer: u32, offset: u64, runs: u64) -> Outcome {
        let region = match self.region(buffer) {
            Ok(region) => region,
            Err(errno) => return Outcome::failed(errno),
        };
        self.give(move |shared| {
            let mut bytes = vec![0; (runs * Run::BYTES) as usize];
            match region.read(offset, &mut bytes) {
                Ok(()) => shared.note(Note::ListLoaded { op, list, memory: ListMemory::of(&bytes) }),
                Err(errno) => shared.post(failed(op, errno)),
            }
        });
        Outcome::Started
    }

    pub(super) fn list_loaded(&mut self, op: OpId, list: u32, memory: ListMemory) {
        let index = list as usize;
        if self.lists.len() <= index {
            self.lists.resize_with(index + 1, || None);
        }
        self.lists[index] = Some(Arc::new(memory));
        self.report(Event::Finished { op, result: 0, word0: 0, word1: 0 });
    }

    /// Transfers may hold it still. The memory of a long list is given back by a worker.
    pub(super) fn end_list(&mut self, list: u32) {
        if let Some(memory) = self.lists.get_mut(list as usize).and_then(Option::take) {
            self.give(move |_| drop(memory));
        }
    }

    pub(super) fn list(&self, list: u32) -> Result<Arc<ListMemory>, Errno> {
        self.lists.get(list as usize).and_then(Clone::clone).ok_or(Errno::ESTALE)
    }
}

impl ListMemory {
    /// Runs as they were copied. Their segments are numbered and their buffers noted already, since that walks all of
    /// them; the numbers mean something once the engine has found all runs right.
    fn of(bytes: &[u8]) -> ListMemory {
        let mut first_segment = 0u32;
        let shape = |bytes: &[u8]| {
            let mut words = [0; Run::WORDS];
            for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
                *word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
            }
            let shape = ListShape { first_segment, run: Run::from_words(words) };
            first_segment = first_segment.wrapping_add(shape.run.count);
            shape
        };
        let shapes: Vec<ListShape> = bytes.chunks_exact(Run::BYTES as usize).map(shape).collect();
        let mut buffers: Vec<u32> = shapes.iter().map(|shape| Handle::from_bits(shape.run.buffer).index()).collect();
        buffers.sort_unstable();
        buffers.dedup();
        ListMemory { shapes, buffers }
    }
}
