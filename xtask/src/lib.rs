//! The developer commands of dmaplane, run as `cargo xtask`.
//!
//! - [`setup`] installs what the tests need, and nothing where it is there already;
//! - [`test_command`] is the one test command; each of its [`lanes`] is one file and one row of a table;
//! - [`mod@bench`] measures beside the peers and writes the report;
//! - [`engine_object`] builds the engine as the kernel driver links it, and checks the machine code;
//! - [`driver`] makes the UAPI header and builds the kernel module;
//! - [`lab`] boots virtual machines in which the module is tested;
//! - [`sandbox`] starts a program as Docker would by default;
//! - [`tidy`] holds the project's own lint rules.

pub mod bench;
pub mod driver;
pub mod engine_object;
pub mod lab;
pub mod lanes;
pub mod process;
pub mod sandbox;
pub mod setup;
pub mod tally;
pub mod test_command;
pub mod test_output;
pub mod tidy;
pub mod toolchain;
pub mod workspace;

pub use tally::Tally;
pub use workspace::Workspace;
