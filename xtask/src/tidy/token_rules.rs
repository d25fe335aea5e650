//! Finding `unsafe` and memory orderings in code.

use super::rust_source::{code_only, is_word};

/// Orderings that no other type is likely to have.
const DISTINCT: [&str; 3] = ["Relaxed", "AcqRel", "SeqCst"];

/// Orderings whose names are ordinary words: they count where they are named as orderings.
const ORDINARY: [&str; 2] = ["Acquire", "Release"];

/// The lines (from one) of a Rust file that hold the keyword `unsafe`, as a block or an attribute.
pub fn unsafe_lines(source: &str) -> Vec<usize> {
    lines_where(source, |tokens, index| tokens[index] == "unsafe")
}

/// The lines (from one) of a Rust file that name a memory ordering.
pub fn ordering_lines(source: &str) -> Vec<usize> {
    lines_where(source, |tokens, index| {
        let token = tokens[index];
        DISTINCT.contains(&token) || (ORDINARY.contains(&token) && names_ordering(tokens, index))
    })
}

/// Whether an ordinary word stands where an ordering does: after `Ordering::`, in the braces of an
/// import from it, or alone as the last argument of a call.
fn names_ordering(tokens: &[&str], index: usize) -> bool {
    let before = |count: usize| index.checked_sub(count).map_or("", |at| tokens[at]);
    let after = tokens.get(index + 1).copied().unwrap_or_default();
    let qualified = before(1) == ":" && before(3) == "Ordering";
    let argument = matches!(before(1), "(" | ",") && after == ")";
    qualified || argument || in_ordering_braces(&tokens[..index])
}

fn in_ordering_braces(before: &[&str]) -> bool {
    let Some(open) = before.iter().rposition(|token| matches!(*token, "{" | "}" | ";")) else {
        return false;
    };
    before[open] == "{" && open >= 3 && before[open - 3] == "Ordering" && before[open - 1] == ":"
}

fn lines_where(source: &str, wanted: impl Fn(&[&str], usize) -> bool) -> Vec<usize> {
    let code = code_only(source);
    let (tokens, lines): (Vec<&str>, Vec<usize>) = tokens(&code).into_iter().unzip();
    let mut found: Vec<usize> =
        (0..tokens.len()).filter(|index| wanted(&tokens, *index)).map(|index| lines[index]).collect();
    found.dedup();
    found
}

/// Words and single marks of blanked code, each with its line.
fn tokens(code: &str) -> Vec<(&str, usize)> {
    let mut tokens = Vec::new();
    for (index, mut line) in code.lines().enumerate() {
        while let Some(first) = line.chars().next() {
            let length =
                if is_word(first) { line.find(|c| !is_word(c)).unwrap_or(line.len()) } else { first.len_utf8() };
            if !first.is_whitespace() {
                tokens.push((&line[..length], index + 1));
            }
            line = &line[length..];
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_is_found_as_a_keyword_only() {
        let source = "#![forbid(unsafe_code)]\n// unsafe\nunsafe { f() }\n#[unsafe(no_mangle)]\n\"unsafe\"";
        assert_eq!(unsafe_lines(source), [3, 4]);
    }

    #[test]
    fn orderings_are_found_however_they_are_named() {
        for source in [
            "x.load(Ordering::Acquire)",
            "x.load(Acquire)",
            "x.store(1, Release)",
            "x.store(\n    1,\n    Release)",
            "use core::sync::atomic::Ordering::{Acquire, Release};",
            "use core::sync::atomic::Ordering::Release;",
            "x.load(Relaxed)",
            "fence(SeqCst)",
        ] {
            assert!(!ordering_lines(source).is_empty(), "{source}");
        }
    }

    #[test]
    fn other_things_of_the_same_names_are_not_orderings() {
        for source in [
            "match phase { Phase::Release => 1, Phase::Acquire => 2 }",
            "enum Phase { Acquire, Release }",
            "use core::cmp::Ordering::{Less, Greater};",
            "// Acquire pairs with the Release in reap\nfn f() {}",
            "struct Release;",
        ] {
            assert!(ordering_lines(source).is_empty(), "{source}");
        }
    }
}
