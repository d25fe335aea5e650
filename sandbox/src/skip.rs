//! Tests that cannot run where they are say so.

use std::io::Write;

/// Says why a test does nothing: to `cargo xtask test`, which counts it, and to who sees standard error.
///
/// # Panics
/// The file that `DMAPLANE_SKIPPED` names cannot be written: a skip that nobody hears of is none.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
    if let Some(path) = std::env::var_os("DMAPLANE_SKIPPED") {
        let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
        file.write_all(format!("{test}: {}\n", why.replace('\n', " ")).as_bytes()).unwrap();
    }
}
