//! The thread that checks the pieces in their order and puts them into the file, and how the receiver talks to it.

use super::digest::{Checksums, FileDigest, Summary};
use super::output::Output;
use anyhow::{Context, Result, anyhow};
use dmaplane::Buffer;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long a file that nobody wants any more may keep the command from ending.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// What the thread is told.
enum Work {
    /// The next piece, so many bytes of it.
    Piece(Buffer, usize),
    /// That was all: check it, and give the file its name.
    Commit(Checksums),
}

/// What it answers.
enum Written {
    Piece(Buffer),
    All(Box<Summary>),
}

/// A file under way on its thread. When this goes, so does the file, unless it is complete.
pub struct Disk {
    give: Option<Sender<Work>>,
    written: Receiver<Result<Written>>,
    /// Gone: what is not written yet need not be.
    wanted: Option<Arc<()>>,
    partial: Option<PathBuf>,
    /// Pieces that the thread has not answered.
    waiting: u32,
}

impl Disk {
    /// Starts the thread, for a file of so many bytes.
    pub fn start(output: Output, bytes: u64) -> std::io::Result<Disk> {
        let (give, work) = channel();
        let (done, written) = channel();
        let wanted = Arc::new(());
        let still_wanted = Arc::downgrade(&wanted);
        let partial = output.partial().map(PathBuf::from);
        std::thread::Builder::new().name("write".into()).spawn(move || {
            // The file goes before `done` does, whose end says so.
            if let Err(error) = write(output, bytes, &work, &done, &still_wanted) {
                // Nobody listens any more when the transfer has ended.
                let _ = done.send(Err(error));
            }
        })?;
        Ok(Disk { give: Some(give), written, wanted: Some(wanted), partial, waiting: 0 })
    }

    /// Whether pieces wait for the disk.
    pub fn is_busy(&self) -> bool {
        self.waiting > 0
    }

    /// Hands on the next piece.
    pub fn write(&mut self, piece: Buffer, length: u64) -> Result<()> {
        self.give(Work::Piece(piece, length as usize))?;
        self.waiting += 1;
        Ok(())
    }

    /// A buffer whose piece is written, if there is one.
    pub fn written(&mut self) -> Result<Option<Buffer>> {
        match self.written.try_recv() {
            Ok(Ok(Written::Piece(buffer))) => {
                self.waiting -= 1;
                Ok(Some(buffer))
            }
            Ok(Err(error)) => Err(error),
            Ok(Ok(Written::All(_))) | Err(TryRecvError::Disconnected) => Err(gone()),
            Err(TryRecvError::Empty) => Ok(None),
        }
    }

    /// Checks the whole file and gives it its name: from here on it ends by itself, well or badly. `meanwhile` is
    /// called again and again, `every` so often.
    pub fn commit(mut self, sent: Checksums, every: Duration, mut meanwhile: impl FnMut()) -> Result<Summary> {
        self.give(Work::Commit(sent))?;
        loop {
            match self.written.recv_timeout(every) {
                Ok(Ok(Written::Piece(_))) => {}
                Ok(Ok(Written::All(summary))) => return Ok(*summary),
                Ok(Err(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => meanwhile(),
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            }
        }
    }

    /// Gives the thread its next work; where it has ended, with the reason that it left.
    fn give(&mut self, work: Work) -> Result<()> {
        if self.give.as_ref().is_some_and(|give| give.send(work).is_ok()) {
            return Ok(());
        }
        Err(self.written.iter().find_map(Result::err).unwrap_or_else(gone))
    }

    /// Waits until the thread has let go of the file, or so long; then the file's name goes without it.
    fn end(&mut self, patience: Duration) {
        self.give = None;
        self.wanted = None;
        let deadline = Instant::now() + patience;
        loop {
            match self.written.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        if let Some(partial) = &self.partial {
            let _ = std::fs::remove_file(partial);
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.end(END_PATIENCE);
    }
}

fn gone() -> anyhow::Error {
    anyhow!("the writing thread is gone")
}

/// The thread.
fn write(
    output: Output,
    bytes: u64,
    work: &Receiver<Work>,
    written: &Sender<Result<Written>>,
    wanted: &Weak<()>,
) -> Result<()> {
    let mut digest = FileDigest::new(bytes);
    let mut offset = 0;
    loop {
        match work.recv()? {
            Work::Piece(..) if wanted.strong_count() == 0 => return Ok(()),
            Work::Piece(buffer, length) => {
                let piece = buffer.as_slice().get(..length).context("a buffer is shorter than its piece")?;
                digest.update(piece)?;
                output.write_at(piece, offset)?;
                offset += length as u64;
                written.send(Ok(Written::Piece(buffer)))?;
            }
            Work::Commit(sent) => {
                let summary = digest.finish()?;
                summary.check(&sent).map_err(anyhow::Error::msg)?;
                output.commit()?;
                written.send(Ok(Written::All(Box::new(summary))))?;
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dmaplane::{Config, Plane};
    use std::path::Path;

    const PIECE: u64 = 4 << 20;

    /// A disk that has much to do.
    fn busy(folder: &Path) -> Disk {
        let output = Output::create_named(&folder.join("out"));
        let mut plane = Plane::open(Config::default()).unwrap();
        // A header that is long enough not to be looked into.
        let mut head = plane.alloc(PIECE).unwrap();
        head.as_mut_slice()[..9].copy_from_slice(b"\0\0\0\x04\0\0\0\0{");
        let mut disk = Disk::start(output, 1 << 30).unwrap();
        disk.write(head, PIECE).unwrap();
        for _ in 0..15 {
            disk.write(plane.alloc(PIECE).unwrap(), PIECE).unwrap();
        }
        disk
    }

    fn names(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_partial_file_does_not_outlive_a_transfer_that_ends_while_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = busy(folder.path());
        // Wherever the thread is just then.
        while disk.written().unwrap().is_none() {}
        assert_eq!(names(folder.path()), 1);
        drop(disk);
        assert_eq!(names(folder.path()), 0);
    }

    #[test]
    fn a_disk_that_hangs_is_not_waited_for_and_its_partial_file_goes_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = busy(folder.path());
        disk.end(Duration::ZERO);
        assert_eq!(names(folder.path()), 0);
    }
}
