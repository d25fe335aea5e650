//! Rules about size: how long a line is, how long a file.

use super::{Finding, SourceFile};

/// Characters in one line.
const LINE_LENGTH_MAX: usize = 120;

/// A file of ring/ or engine/ stays below this many lines: each is about one concept.
const FILE_LINES_LIMIT: usize = 600;

/// Where files stay small.
const SMALL_FILE_FOLDERS: [&str; 2] = ["ring/src/", "engine/src/"];

/// Lines of Rust and Markdown that are too long. Links and rows of tables cannot be broken.
pub fn long_lines(file: &SourceFile) -> Vec<Finding> {
    if !file.is_rust() && !file.is_markdown() {
        return Vec::new();
    }
    let too_long = |line: &str| line.chars().count() > LINE_LENGTH_MAX && !line.contains("://") && !is_table_row(line);
    let lines = file.text.lines().enumerate().filter(|(_, line)| too_long(line));
    lines
        .map(|(index, line)| Finding {
            path: file.path.clone(),
            line: index + 1,
            message: format!("{} characters in a line, at most {LINE_LENGTH_MAX}", line.chars().count()),
        })
        .collect()
}

fn is_table_row(line: &str) -> bool {
    line.trim_start_matches(['/', '!', ' ']).starts_with('|')
}

/// A file that should be several.
pub fn long_file(file: &SourceFile) -> Option<Finding> {
    let lines = file.text.lines().count();
    let limited = SMALL_FILE_FOLDERS.iter().any(|folder| file.path.starts_with(folder));
    (limited && lines >= FILE_LINES_LIMIT).then(|| Finding {
        path: file.path.clone(),
        line: 0,
        message: format!("{lines} lines, has to stay under {FILE_LINES_LIMIT}: split it by concept"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_long_line_is_found_by_its_number_and_counted_in_characters() {
        let text = format!("short\n{}\n{}\n", "ä".repeat(120), "x".repeat(121));
        let findings = long_lines(&sample("a.rs", &text));
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 3);
        assert!(long_lines(&sample("a.txt", &text)).is_empty());
    }

    #[test]
    fn links_and_tables_may_be_long() {
        let filler = "x".repeat(121);
        let text = format!("see https://example.org/{filler}\n| {filler} |\n/// | {filler} |\n");
        assert!(long_lines(&sample("a.md", &text)).is_empty());
        assert!(long_lines(&sample("a.rs", &text)).is_empty());
    }

    #[test]
    fn only_ring_and_engine_are_kept_small() {
        let text = "\n".repeat(600);
        assert!(long_file(&sample("ring/src/a.rs", &text)).is_some());
        assert!(long_file(&sample("engine/src/b/c.rs", &text)).is_some());
        assert!(long_file(&sample("ring/src/a.rs", &text[1..])).is_none());
        assert!(long_file(&sample("kv/src/a.rs", &text)).is_none());
    }
}
