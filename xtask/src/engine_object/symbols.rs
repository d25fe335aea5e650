//! Reading an object's symbols with nm.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::process::capture;
use crate::workspace::Workspace;

/// One symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its name in the object.
    pub name: String,
    /// Its name in the source.
    pub demangled: String,
    /// nm's letter: `T` for a global function, `t` for a local one, `U` where it is undefined.
    pub kind: char,
}

impl Symbol {
    /// Whether another object has to define it.
    #[must_use]
    pub fn is_undefined(&self) -> bool {
        self.kind == 'U' || self.kind == 'w'
    }

    /// Whether it is a function of this object.
    #[must_use]
    pub fn is_function(&self) -> bool {
        matches!(self.kind, 'T' | 't' | 'W')
    }

    /// Whether C can call it: a global function whose name is not mangled.
    #[must_use]
    pub fn is_entry_point(&self) -> bool {
        self.kind == 'T' && !self.name.starts_with("_R") && !self.name.starts_with("_ZN")
    }
}

/// Reads all symbols of an object.
pub fn read(workspace: &Workspace, object: &Path) -> Result<Vec<Symbol>> {
    // Both lists are in the order of the symbol table.
    let list = |arguments: &[&str]| {
        let mut command = workspace.command("nm");
        command.arg("--no-sort").args(arguments).arg(object);
        capture(command)
    };
    let names = list(&["--format=posix"])?;
    let demangled = list(&["--demangle", "--format=just-symbols"])?;
    parse(&names, &demangled)
}

/// Joins `name kind value size` lines with the demangled names of the same symbols.
fn parse(names: &str, demangled: &str) -> Result<Vec<Symbol>> {
    let names: Vec<(&str, char)> = names.lines().filter_map(parse_posix_line).collect();
    let demangled: Vec<&str> = demangled.lines().filter(|line| !line.is_empty()).collect();
    ensure!(names.len() == demangled.len(), "nm lists as many symbols twice");
    let pairs = names.into_iter().zip(demangled);
    Ok(pairs
        .map(|((name, kind), demangled)| Symbol { name: name.to_owned(), demangled: demangled.to_owned(), kind })
        .collect())
}

fn parse_posix_line(line: &str) -> Option<(&str, char)> {
    let mut words = line.split_whitespace();
    let name = words.next()?;
    let kind = words.next()?.chars().next()?;
    Some((name, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_kinds_and_demangled_names_are_joined() {
        let names = "dmaplane_a T 10 96\n_RNvCs1_4ring3sum t 0 5\nmemcpy U         \n";
        let demangled = "dmaplane_a\nring::sum\nmemcpy\n";
        let symbols = parse(names, demangled).unwrap();
        assert!(symbols[0].is_entry_point() && symbols[0].is_function());
        assert_eq!(symbols[1].demangled, "ring::sum");
        assert!(symbols[1].is_function() && !symbols[1].is_entry_point());
        assert!(symbols[2].is_undefined() && !symbols[2].is_function());
    }

    #[test]
    fn lists_of_different_length_are_refused() {
        assert!(parse("a T 0 0\nb T 0 0\n", "a\n").is_err());
    }

    #[test]
    fn mangled_globals_are_no_entry_points() {
        let symbols = parse("_RNvCs1_4ring3sum T 0 5\n", "ring::sum\n").unwrap();
        assert!(!symbols[0].is_entry_point());
    }
}
