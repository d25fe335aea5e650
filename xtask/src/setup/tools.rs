//! The declared list of what the tests need beside the Rust toolchain.

/// A program that some lanes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The program by which its presence is known.
    pub program: &'static str,
    /// The package of Debian that has it; installing it needs root.
    pub package: &'static str,
    /// The lanes that need it.
    pub lanes: &'static [&'static str],
    /// What they need it for.
    pub reason: &'static str,
}

/// The lanes that build and check kernel objects: the unit tests do too, as a control.
const OBJECT_LANES: &[&str] = &["engine-object", "unit", "vm"];

/// All of them.
pub const TOOLS: &[Tool] = &[
    Tool {
        program: "git",
        package: "git",
        lanes: &["tidy"],
        reason: "lists the files that the project's own rules hold for",
    },
    Tool {
        program: "ld",
        package: "binutils",
        lanes: OBJECT_LANES,
        reason: "links ring, engine and glue into one kernel object",
    },
    Tool {
        program: "nm",
        package: "binutils",
        lanes: OBJECT_LANES,
        reason: "shows which symbols the kernel object leaves undefined",
    },
    Tool {
        program: "objcopy",
        package: "binutils",
        lanes: OBJECT_LANES,
        reason: "removes symbols that nothing in the kernel object refers to",
    },
    Tool {
        program: "objdump",
        package: "binutils",
        lanes: OBJECT_LANES,
        reason: "shows the kernel object's instructions and relocations",
    },
    Tool {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
        lanes: &["vm"],
        reason: "boots the kernels that the driver is tested on",
    },
    Tool { program: "busybox", package: "busybox-static", lanes: &["vm"], reason: "is a machine's first program" },
    Tool { program: "modprobe", package: "kmod", lanes: &["vm"], reason: "knows which modules a kernel needs" },
    Tool { program: "xz", package: "xz-utils", lanes: &["vm"], reason: "unpacks those modules" },
    Tool { program: "udevadm", package: "udev", lanes: &["vm"], reason: "gives the device to its group, in a machine" },
    Tool { program: "perl", package: "perl", lanes: &["vm"], reason: "runs the kernel's checkpatch" },
    Tool {
        program: "debootstrap",
        package: "debootstrap",
        lanes: &["vm"],
        reason: "gets the compiler that the newest kernel wants",
    },
    Tool { program: "make", package: "make", lanes: &["vm"], reason: "builds the driver" },
    Tool { program: "dkms", package: "dkms", lanes: &["vm"], reason: "builds it where there is no rustc" },
    Tool {
        program: "cc",
        package: "gcc",
        lanes: &["vm", "unit"],
        reason: "compiles the driver, and checks its header",
    },
    Tool { program: "c++", package: "g++", lanes: &["fuzz"], reason: "compiles libFuzzer, which is C++" },
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
