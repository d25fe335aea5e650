//! Signals that end the command: what must not be left behind goes first.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

static LEFT_BEHIND: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn left_behind() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    LEFT_BEHIND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the process on SIGINT, SIGTERM and SIGHUP, in an orderly way.
pub fn handle() -> std::io::Result<()> {
    // A file that grows beyond RLIMIT_FSIZE is an error, not the end.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let Some(signal) = signals.forever().next() else { return };
        let paths = left_behind();
        for path in paths.iter() {
            let _ = std::fs::remove_file(path);
        }
        let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
        let _ = writeln!(std::io::stderr(), "dmaplane: ended by {name} before the file was complete");
        // Still holding the lock: nobody adds a path now.
        std::process::exit(128 + signal);
    })?;
    Ok(())
}

/// A path that goes when a signal ends the process, as long as this lives.
#[derive(Debug)]
pub struct Removal(PathBuf);

/// Makes what will have that path. Signals wait meanwhile: it is there and will go, or it never was.
pub fn remove_on_signal<T, E>(path: PathBuf, make: impl FnOnce() -> Result<T, E>) -> Result<(T, Removal), E> {
    let mut paths = left_behind();
    let made = make()?;
    paths.push(path.clone());
    Ok((made, Removal(path)))
}

impl Drop for Removal {
    fn drop(&mut self) {
        left_behind().retain(|path| *path != self.0);
    }
}
