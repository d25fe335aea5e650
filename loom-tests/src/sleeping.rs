//! Two ways to sleep, made of loom's locks. A thread that sleeps for ever is a deadlock, which loom reports.

use dmaplane_ring::atomic::Word;
use loom::sync::{Condvar, Mutex};

/// As an eventfd: a ring is remembered until somebody waits.
#[derive(Debug)]
pub struct Doorbell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Doorbell {
    /// Not rung.
    pub fn new() -> Self {
        Doorbell { rung: Mutex::new(false), changed: Condvar::new() }
    }

    /// Rings.
    pub fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    /// Waits until it rings, or has rung.
    pub fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }

    /// Whether it has rung since the last look.
    pub fn has_rung(&self) -> bool {
        std::mem::take(&mut *self.rung.lock().unwrap())
    }
}

impl Default for Doorbell {
    fn default() -> Self {
        Self::new()
    }
}

/// As a futex: nothing is remembered, but the word is compared in one step with falling asleep.
#[derive(Debug)]
pub struct Futex {
    bucket: Mutex<()>,
    changed: Condvar,
}

impl Futex {
    /// With nobody asleep.
    pub fn new() -> Self {
        Futex { bucket: Mutex::new(()), changed: Condvar::new() }
    }

    /// Sleeps if the word is `expected`.
    pub fn sleep_while(&self, word: &impl Word<u32>, expected: u32) {
        let bucket = self.bucket.lock().unwrap();
        if word.load_relaxed() == expected {
            drop(self.changed.wait(bucket).unwrap());
        }
    }

    /// Wakes who sleeps.
    pub fn wake_all(&self) {
        let _bucket = self.bucket.lock().unwrap();
        self.changed.notify_all();
    }
}

impl Default for Futex {
    fn default() -> Self {
        Self::new()
    }
}
