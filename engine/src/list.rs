//! Lists: LIST_PREPARE, LIST_FREE, and where a segment lies (clauses LST-1 to LST-5).

use crate::engine::{Engine, Flow, Starting};
use crate::host::Host;
use crate::operation::{State, Through};
use crate::storage::Storage;
use crate::table::NONE;
use dmaplane_ring::abi::{Errno, Handle, HandleKind, MAX_LIST_SEGMENTS, Run};

/// Runs checked or given back in one turn.
pub(crate) const SLICE_RUNS: u32 = 4096;

/// A list.
#[derive(Clone, Copy, Debug, Hash)]
pub struct List {
    /// Checked and ready.
    pub(crate) live: bool,
    /// Runs loaded; those before `checked` hold a use of their buffer.
    pub(crate) runs: u32,
    pub(crate) checked: u32,
    /// Segments of the runs checked.
    pub(crate) segments: u64,
    /// Operations that use it.
    pub(crate) uses: u32,
    /// Live leases on it.
    pub(crate) leases: u32,
}

/// What a run needs to be looked up by segment number: the host keeps one beside each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListShape {
    /// Number of the run's first segment in the list.
    pub first_segment: u32,
    /// The run, checked by the engine.
    pub run: Run,
}

/// Where segment `segment` lies: buffer index, offset in bytes, length in bytes. `shapes` in order of their first
/// segment. `None`: there is no such segment.
pub fn locate_segment(shapes: &[ListShape], segment: u32) -> Option<(u32, u64, u32)> {
    // Lists of one run, which a paged pool mostly is, need no search.
    let position = if shapes.len() == 1 { 1 } else { shapes.partition_point(|shape| shape.first_segment <= segment) };
    let shape = shapes.get(position.checked_sub(1)?)?;
    let ahead = segment.checked_sub(shape.first_segment)?;
    if ahead >= shape.run.count {
        return None;
    }
    let offset = shape.run.offset_bytes.checked_add(shape.run.stride_bytes.checked_mul(ahead.into())?)?;
    Some((Handle::from_bits(shape.run.buffer).index(), offset, shape.run.length_bytes))
}

impl<S: Storage> Engine<S> {
    /// The index of a list that is checked.
    pub(crate) fn live_list(&self, handle: Handle) -> Result<u32, Errno> {
        let index = self.lists.find(handle, HandleKind::List)?;
        match self.lists.get(index) {
            Some(list) if list.live => Ok(index),
            _ => Err(Errno::ESTALE),
        }
    }

    /// LIST_PREPARE: the host copies the runs once, off the engine; then they are checked, a slice a turn.
    pub(crate) fn list_prepare<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let (offset, runs) = (op.sqe.local_offset, op.sqe.length);
        if runs > MAX_LIST_SEGMENTS {
            return Err(Errno::EMSGSIZE);
        }
        if !offset.is_multiple_of(8) {
            return Err(Errno::EINVAL);
        }
        let buffer = self.buffer_range(Handle::from_bits(op.sqe.local), offset, runs * Run::BYTES)?;
        let blank = List { live: false, runs: runs as u32, checked: 0, segments: 0, uses: 0, leases: 0 };
        let (list, _) = self.lists.insert(blank).ok_or(Errno::ENFILE)?;
        self.use_buffer(buffer);
        Ok(self.start(host, op, list, |host, id| host.list_load(id, list, buffer, offset, runs)))
    }

    /// The runs are in private memory.
    pub(crate) fn list_loaded<H: Host>(&mut self, host: &mut H, index: u32, result: i32) -> Flow {
        let Some(operation) = self.operations.get(index) else {
            return Flow::Pending;
        };
        let (list, source) = (operation.object, Handle::from_bits(operation.sqe.local).index());
        self.move_to(host, index, State::CheckingList { next: 0 });
        self.unuse_buffer(source);
        if result < 0 {
            host.list_drop(list);
            self.lists.remove(list);
            return Flow::ok(result);
        }
        self.list_work.push_back(&mut self.operations, Through::State, index);
        Flow::Pending
    }

    /// Does one slice of what lists have to be done, the first that waits first.
    pub(crate) fn list_slice<H: Host>(&mut self, host: &mut H) {
        let mut left = SLICE_RUNS;
        while left > 0
            && let Some(operation) = self.operations.get(self.list_work.head).copied()
        {
            let index = self.list_work.head;
            let done = match operation.state {
                State::CheckingList { next } => self.check_list(host, index, next, left),
                State::DroppingList { next, result } => self.end_list(host, index, next, left, result),
                _ => return,
            };
            // A list without runs is work, too.
            left = left.saturating_sub(done.max(1));
        }
    }

    /// Checks at most `most` runs of the list that an operation prepares, from `next` on; returns how many.
    fn check_list<H: Host>(&mut self, host: &mut H, index: u32, next: u32, most: u32) -> u32 {
        let Some(operation) = self.operations.get(index).copied() else {
            return 0;
        };
        let list = operation.object;
        let runs = self.lists.get(list).map_or(0, |list| list.runs);
        let end = runs.min(next.saturating_add(most));
        let mut outcome = if operation.cancelled { Err(Errno::ECANCELED) } else { Ok(()) };
        for run in next..end {
            if outcome.is_err() {
                break;
            }
            outcome = self.check_run(host, list, run);
        }
        let state = match outcome {
            Ok(()) if end < runs => State::CheckingList { next: end },
            Ok(()) => {
                self.list_work.remove(&mut self.operations, Through::State, index);
                host.list_seal(list);
                let segments = self.lists.get_mut(list).map_or(0, |list| {
                    list.live = true;
                    list.segments
                });
                let handle = self.lists.handle(list, HandleKind::List);
                self.finish(host, index, 0, handle.bits(), segments);
                return end - next;
            }
            Err(errno) => State::DroppingList { next: 0, result: errno.as_result() },
        };
        self.move_to(host, index, state);
        end - next
    }

    /// Gives back at most `most` runs of the list that an operation ends, and with the last of them the list; returns
    /// how many.
    fn end_list<H: Host>(&mut self, host: &mut H, index: u32, next: u32, most: u32, result: i32) -> u32 {
        let list = self.operations.get(index).map_or(NONE, |operation| operation.object);
        let left = self.lists.get(list).map_or(0, |list| list.checked).saturating_sub(next);
        match self.drop_list(host, list, next, most) {
            Some(next) => self.move_to(host, index, State::DroppingList { next, result }),
            None => {
                self.list_work.remove(&mut self.operations, Through::State, index);
                self.finish(host, index, result, 0, 0);
            }
        }
        left.min(most)
    }

    /// Checks one run and takes a use of its buffer (clause LST-2).
    fn check_run<H: Host>(&mut self, host: &mut H, list: u32, run: u32) -> Result<(), Errno> {
        let run = host.list_run(list, run).ok_or(Errno::EIO)?;
        let overlaps = run.count > 1 && run.stride_bytes < run.length_bytes.into();
        if run.count == 0 || run.length_bytes == 0 || overlaps || run.reserved != 0 {
            return Err(Errno::EINVAL);
        }
        let before_last = run.stride_bytes.checked_mul(u64::from(run.count - 1)).ok_or(Errno::ERANGE)?;
        let length = before_last.checked_add(run.length_bytes.into()).ok_or(Errno::ERANGE)?;
        let buffer = self.buffer_range(Handle::from_bits(run.buffer), run.offset_bytes, length)?;
        let Some(list) = self.lists.get_mut(list) else {
            return Err(Errno::EIO);
        };
        // Segment numbers are 32 bits; an index array names at most 2^20 of them at a time.
        if list.segments + u64::from(run.count) > u64::from(u32::MAX) {
            return Err(Errno::EMSGSIZE);
        }
        list.segments += u64::from(run.count);
        list.checked += 1;
        self.use_buffer(buffer);
        Ok(())
    }

    /// LIST_FREE: the handle is gone at once, its runs go slice by slice.
    pub(crate) fn list_free<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let list = self.live_list(Handle::from_bits(op.sqe.local))?;
        let Some(state) = self.lists.get_mut(list) else {
            return Err(Errno::EBADF);
        };
        if state.uses > 0 || state.leases > 0 {
            return Err(Errno::EBUSY);
        }
        state.live = false;
        let index = self.place(host, op, State::DroppingList { next: 0, result: 0 });
        if let Some(operation) = self.operations.get_mut(index) {
            operation.object = list;
        }
        self.list_work.push_back(&mut self.operations, Through::State, index);
        Ok(Flow::Pending)
    }

    /// Gives back the uses that at most `most` of a list's runs hold, from `next` on: where to go on. `None`: that was
    /// the last of them, and the list is over.
    pub(crate) fn drop_list<H: Host>(&mut self, host: &mut H, list: u32, next: u32, most: u32) -> Option<u32> {
        let checked = self.lists.get(list).map_or(0, |list| list.checked);
        let end = checked.min(next.saturating_add(most));
        for run in next..end {
            if let Some(run) = host.list_run(list, run) {
                self.unuse_buffer(Handle::from_bits(run.buffer).index());
            }
        }
        if end < checked {
            return Some(end);
        }
        host.list_drop(list);
        self.lists.remove(list);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dmaplane_ring::abi::Handle;

    #[test]
    fn lst_3_segments_are_numbered_through_run_after_run() {
        let buffer = Handle::new(HandleKind::Buffer, 4, 1).bits();
        let run =
            |offset_bytes, count| Run { buffer, offset_bytes, stride_bytes: 100, length_bytes: 10, count, reserved: 0 };
        let shapes = [
            ListShape { first_segment: 0, run: run(0, 3) },
            ListShape { first_segment: 3, run: run(1000, 1) },
            ListShape { first_segment: 4, run: run(2000, 2) },
        ];
        let offsets = [0, 100, 200, 1000, 2000, 2100];
        for (segment, offset) in offsets.into_iter().enumerate() {
            assert_eq!(locate_segment(&shapes, segment as u32), Some((4, offset, 10)));
        }
        assert_eq!(locate_segment(&shapes, 6), None);
        assert_eq!(locate_segment(&shapes[..1], 3), None);
        assert_eq!(locate_segment(&[], 0), None);
    }
}
