//! The `dmaplane` command.
mod model;

fn main() {}
