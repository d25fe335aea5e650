//! The control of the search for leaks: something is lost on purpose, and the lab has to find it and nothing else.
//!
//! It asks the kernel when all tests are done: a scan of all memory takes a quarter of a minute, and there are two.

use crate::importer::Loaded;
use crate::kernel_log::LOST_ON_PURPOSE;
use anyhow::Result;

/// Loses memory of the importer's, which stays loaded: with it the memory would be given back.
pub fn lose() -> Result<()> {
    let loaded = Loaded::new()?;
    loaded.open()?.lose()?;
    std::mem::forget(loaded);
    println!("{LOST_ON_PURPOSE}");
    Ok(())
}
