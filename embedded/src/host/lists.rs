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
                Ok(()) => shared.note(Note::ListLoaded { op, list, shapes: decode(&bytes) }),
                Err(errno) => shared.post(failed(op, errno)),
            }
        });
        Outcome::Started
    }

    pub(super) fn list_loaded(&mut self, op: OpId, list: u32, shapes: Vec<ListShape>) {
        let index = list as usize;
        if self.lists.len() <= index {
            self.lists.resize_with(index + 1, || None);
        }
        self.lists[index] = Some(Arc::new(ListMemory { shapes, buffers: Vec::new() }));
        self.report(Event::Finished { op, result: 0, word0: 0, word1: 0 });
    }

    /// The engine has checked all runs: number their segments, note their buffers.
    pub(super) fn seal_list(&mut self, list: u32) {
        let Some(Some(memory)) = self.lists.get_mut(list as usize) else { return };
        let Some(memory) = Arc::get_mut(memory) else { return };
        let mut first_segment = 0u32;
        for shape in &mut memory.shapes {
            shape.first_segment = first_segment;
            first_segment += shape.run.count;
        }
        memory.buffers = memory.shapes.iter().map(|shape| Handle::from_bits(shape.run.buffer).index()).collect();
        memory.buffers.sort_unstable();
        memory.buffers.dedup();
    }

    pub(super) fn list(&self, list: u32) -> Result<Arc<ListMemory>, Errno> {
        self.lists.get(list as usize).and_then(Clone::clone).ok_or(Errno::ESTALE)
    }
}

fn decode(bytes: &[u8]) -> Vec<ListShape> {
    let run = |bytes: &[u8]| {
        let mut words = [0; Run::WORDS];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        }
        ListShape { first_segment: 0, run: Run::from_words(words) }
    };
    bytes.chunks_exact(Run::BYTES as usize).map(run).collect()
}
