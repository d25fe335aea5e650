//! What the kernel object must and must not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use super::disassembly::{Function, Instruction, Relocation, Section, read_functions, read_relocations, read_sections};
use super::symbols::{self, Symbol};
use super::variants::Variant;
use crate::workspace::Workspace;

/// Functions of the kernel that compilers call on their own.
const KERNEL_FUNCTIONS: [&str; 5] = ["memcpy", "memmove", "memset", "memcmp", "bcmp"];

/// Where functions return to in variants with return thunks.
const RETURN_THUNK: &str = "__x86_return_thunk";

/// How the functions of the driver's C glue begin.
const GLUE_PREFIX: &str = "dmaplane_glue_";

/// Relocations that the module loader of x86-64 kernels knows.
const LOADER_RELOCATIONS: [&str; 7] =
    ["R_X86_64_NONE", "R_X86_64_64", "R_X86_64_32", "R_X86_64_32S", "R_X86_64_PC32", "R_X86_64_PLT32", "R_X86_64_PC64"];

/// What an object holds.
pub struct Object {
    /// All symbols, also those that are undefined.
    pub symbols: Vec<Symbol>,
    /// All code.
    pub functions: Vec<Function>,
    /// All relocations.
    pub relocations: Vec<Relocation>,
    /// All sections.
    pub sections: Vec<Section>,
}

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What it looks at.
    pub name: &'static str,
    /// What was found that must not be, or is missing; empty where the check passed.
    pub violations: Vec<String>,
}

impl Object {
    /// Reads an object with nm and objdump.
    pub fn read(workspace: &Workspace, path: &Path) -> Result<Self> {
        Ok(Self {
            symbols: symbols::read(workspace, path)?,
            functions: read_functions(workspace, path)?,
            relocations: read_relocations(workspace, path)?,
            sections: read_sections(workspace, path)?,
        })
    }

    /// Runs every check that applies to the variant.
    #[must_use]
    pub fn check(&self, variant: &Variant) -> Vec<Check> {
        let check = |name, violations| Check { name, violations };
        let mut checks = vec![
            check("undefined symbols", self.foreign_symbols(variant)),
            check("panic paths", self.panic_paths()),
            check("vector registers", self.instructions(Instruction::uses_vector_register)),
            check("indirect branches", self.instructions(Instruction::is_indirect_branch)),
            check("relocations", self.foreign_relocations()),
        ];
        if variant.branch_tracking {
            checks.push(check("branch target marks", self.unmarked_entry_points()));
        }
        if variant.return_thunk {
            checks.push(check("bare returns", self.instructions(Instruction::is_return)));
        }
        if variant.padding {
            checks.push(check("padding", self.missing_padding()));
        }
        checks
    }

    /// The bytes of a section, zero where there is none.
    #[must_use]
    pub fn section_bytes(&self, name: &str) -> u64 {
        self.sections.iter().filter(|section| section.name == name).map(|it| it.bytes).sum()
    }

    /// The names of what the object leaves to others to define.
    pub fn undefined_names(&self) -> impl Iterator<Item = &str> {
        let undefined = self.symbols.iter().filter(|symbol| symbol.is_undefined());
        undefined.map(|symbol| symbol.name.as_str())
    }

    /// The functions that C calls.
    pub fn entry_points(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.is_entry_point())
    }

    fn foreign_symbols(&self, variant: &Variant) -> Vec<String> {
        let allowed = |name: &str| {
            KERNEL_FUNCTIONS.contains(&name)
                || name.starts_with(GLUE_PREFIX)
                || (variant.return_thunk && name == RETURN_THUNK)
        };
        let undefined = self.symbols.iter().filter(|symbol| symbol.is_undefined());
        let foreign = undefined.filter(|symbol| !allowed(&symbol.name));
        foreign.map(|symbol| self.with_users(symbol)).collect()
    }

    fn panic_paths(&self) -> Vec<String> {
        let panics = |symbol: &&Symbol| {
            // The second form in case the demangler does not know a new form of mangling.
            symbol.demangled.contains("core::panicking") || symbol.name.contains("4core9panicking")
        };
        self.symbols.iter().filter(panics).map(|symbol| self.with_users(symbol)).collect()
    }

    fn instructions(&self, forbidden: impl Fn(&Instruction) -> bool) -> Vec<String> {
        let mut violations = Vec::new();
        for function in &self.functions {
            let found = function.instructions.iter().filter(|instruction| forbidden(instruction));
            let place = self.demangle(&function.name);
            violations.extend(found.map(|instruction| format!("{place}: {}", instruction.text)));
        }
        violations
    }

    fn foreign_relocations(&self) -> Vec<String> {
        let foreign = |it: &&Relocation| !LOADER_RELOCATIONS.contains(&it.kind.as_str());
        let found = self.relocations.iter().filter(foreign);
        found
            .map(|relocation| {
                let Relocation { section, kind, symbol, offset } = relocation;
                let users = self.users_of(symbol);
                format!("{kind} of {symbol} at {section}+{offset:#x} (in {users})")
            })
            .collect()
    }

    fn unmarked_entry_points(&self) -> Vec<String> {
        let entries: BTreeSet<&str> = self.entry_points().map(|it| it.name.as_str()).collect();
        let marked =
            |function: &Function| function.instructions.first().is_some_and(Instruction::is_branch_target_mark);
        let unmarked =
            self.functions.iter().filter(|function| entries.contains(function.name.as_str()) && !marked(function));
        unmarked.map(|function| format!("{} does not begin with endbr64", function.name)).collect()
    }

    fn missing_padding(&self) -> Vec<String> {
        const ENTRY_BYTES: u64 = 8;
        let padded = self.section_bytes("__patchable_function_entries") / ENTRY_BYTES;
        let names: BTreeSet<&str> =
            self.symbols.iter().filter(|symbol| symbol.is_function()).map(|symbol| symbol.name.as_str()).collect();
        // Of several names for one address objdump shows one, so functions are counted by headers.
        let functions = self.functions.iter().filter(|it| names.contains(it.name.as_str())).count();
        if padded >= functions as u64 {
            return Vec::new();
        }
        vec![format!("{functions} functions, but only {padded} are recorded as padded")]
    }

    fn with_users(&self, symbol: &Symbol) -> String {
        format!("{} (in {})", symbol.demangled, self.users_of(&symbol.name))
    }

    /// The functions that refer to a symbol; where there are none, the sections that do.
    fn users_of(&self, symbol: &str) -> String {
        let refers = |function: &&Function| function.references.iter().any(|it| it == symbol);
        let functions = self.functions.iter().filter(refers);
        let mut users: Vec<String> = functions.map(|function| self.demangle(&function.name)).collect();
        if users.is_empty() {
            let sections = self.relocations.iter().filter(|it| it.symbol == symbol);
            let names: BTreeSet<&str> = sections.map(|it| it.section.as_str()).collect();
            users.extend(names.into_iter().map(|name| format!("section {name}")));
        }
        match users.len() {
            0 => "no code".to_owned(),
            1..=4 => users.join(", "),
            more => format!("{} and {} more", users[..3].join(", "), more - 3),
        }
    }

    fn demangle(&self, name: &str) -> String {
        let symbol = self.symbols.iter().find(|symbol| symbol.name == name);
        symbol.map_or_else(|| name.to_owned(), |symbol| symbol.demangled.clone())
    }

    /// How many functions each crate has in the object, by the crate's name.
    #[must_use]
    pub fn functions_by_crate(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for symbol in self.symbols.iter().filter(|symbol| symbol.is_function()) {
            *counts.entry(crate_of(symbol)).or_default() += 1;
        }
        counts
    }
}

/// The crate that a function is written in: the first path of its demangled name.
fn crate_of(symbol: &Symbol) -> String {
    if symbol.demangled == symbol.name {
        return "exported".to_owned();
    }
    let path = symbol.demangled.trim_start_matches(['<', '&', '(', '[']);
    let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(path.len());
    path[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str, demangled: &str, kind: char) -> Symbol {
        Symbol { name: name.to_owned(), demangled: demangled.to_owned(), kind }
    }

    #[test]
    fn functions_are_counted_by_crate() {
        let symbols = [
            ("_RNv1", "dmaplane_engine::lease::revoke", 'T'),
            ("_RNv2", "<dmaplane_engine::lease::Table>::new", 't'),
            ("_RNv3", "dmaplane_ring::sum", 't'),
            ("dmaplane_engine_run", "dmaplane_engine_run", 'T'),
            ("memcpy", "memcpy", 'U'),
        ];
        let object = Object {
            symbols: symbols.map(|(name, path, kind)| symbol(name, path, kind)).into(),
            functions: Vec::new(),
            relocations: Vec::new(),
            sections: Vec::new(),
        };
        let counts = object.functions_by_crate();
        let counts: Vec<(&str, usize)> = counts.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(counts, [("dmaplane_engine", 2), ("dmaplane_ring", 1), ("exported", 1)]);
    }
}
