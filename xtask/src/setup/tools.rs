//! The declared list of what the tests need beside the Rust toolchain.

/// Where a tool comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A package of Debian, which needs root.
    Debian {
        /// Its name.
        package: &'static str,
    },
    /// A crate, installed into this tree's target folder at one exact version.
    Crate {
        /// Its name.
        name: &'static str,
        /// Its version.
        version: &'static str,
    },
}

/// A program that some lanes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The program by which its presence is known.
    pub program: &'static str,
    /// Where it comes from.
    pub source: Source,
    /// The lanes that need it.
    pub lanes: &'static [&'static str],
    /// What they need it for.
    pub reason: &'static str,
}

impl Tool {
    /// Whether it comes as a Debian package.
    #[must_use]
    pub const fn is_debian(&self) -> bool {
        matches!(self.source, Source::Debian { .. })
    }
}

/// The lanes that build and check kernel objects: the unit tests do too, as a control.
const OBJECT_LANES: &[&str] = &["engine-object", "unit"];

/// All of them.
pub const TOOLS: &[Tool] = &[
    Tool {
        program: "git",
        source: Source::Debian { package: "git" },
        lanes: &["tidy"],
        reason: "lists the files that the project's own rules hold for",
    },
    Tool {
        program: "ld",
        source: Source::Debian { package: "binutils" },
        lanes: OBJECT_LANES,
        reason: "links ring, engine and glue into one kernel object",
    },
    Tool {
        program: "nm",
        source: Source::Debian { package: "binutils" },
        lanes: OBJECT_LANES,
        reason: "shows which symbols the kernel object leaves undefined",
    },
    Tool {
        program: "objcopy",
        source: Source::Debian { package: "binutils" },
        lanes: OBJECT_LANES,
        reason: "removes symbols that nothing in the kernel object refers to",
    },
    Tool {
        program: "objdump",
        source: Source::Debian { package: "binutils" },
        lanes: OBJECT_LANES,
        reason: "shows the kernel object's instructions and relocations",
    },
    Tool {
        program: "c++",
        source: Source::Debian { package: "g++" },
        lanes: &["fuzz"],
        reason: "compiles libFuzzer, which is C++",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes;

    #[test]
    fn every_tool_has_a_reason_and_lanes_that_exist() {
        for tool in TOOLS {
            assert!(!tool.reason.is_empty(), "{}", tool.program);
            assert!(!tool.lanes.is_empty(), "{}", tool.program);
            for lane in tool.lanes {
                assert!(lanes::names().contains(lane), "{} wants {lane}", tool.program);
            }
        }
    }
}
