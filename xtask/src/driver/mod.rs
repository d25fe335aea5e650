//! The kernel driver: its UAPI header, and building the module for a kernel.

pub mod build;
pub mod dist;
pub mod style;
pub mod uapi;
