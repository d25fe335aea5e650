//! Telling code from comments and text in Rust source.

/// The same text with comments, strings and characters blanked, so that what is left is code. Lines and
/// columns (in characters) stay where they are.
#[must_use]
pub fn code_only(source: &str) -> String {
    let mut scanner = Scanner { rest: source, code: String::with_capacity(source.len()) };
    while let Some(next) = scanner.rest.chars().next() {
        let length = scanner.skipped_length();
        if length > 0 {
            scanner.blank(length);
        } else if is_word(next) {
            scanner.keep(word_length(scanner.rest));
        } else {
            scanner.keep(next.len_utf8());
        }
    }
    scanner.code
}

/// Whether a character may be part of an identifier.
pub fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn word_length(text: &str) -> usize {
    text.find(|character| !is_word(character)).unwrap_or(text.len())
}

struct Scanner<'a> {
    rest: &'a str,
    code: String,
}

impl Scanner<'_> {
    fn keep(&mut self, length: usize) {
        let (kept, rest) = self.rest.split_at(length);
        self.code.push_str(kept);
        self.rest = rest;
    }

    fn blank(&mut self, length: usize) {
        let (blanked, rest) = self.rest.split_at(length);
        self.code.extend(blanked.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        self.rest = rest;
    }

    /// Bytes of the comment, string or character that starts here; zero where none does.
    fn skipped_length(&self) -> usize {
        let rest = self.rest;
        if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_length(rest)
        } else if rest.starts_with('\'') {
            character_length(rest)
        } else {
            string_length(rest)
        }
    }
}

fn block_comment_length(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut position = 0;
    while position < text.len() {
        let rest = &text.as_bytes()[position..];
        if rest.starts_with(b"/*") {
            depth += 1;
            position += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            position += 2;
            if depth == 0 {
                return position;
            }
        } else {
            position += 1;
        }
    }
    text.len()
}

/// A character literal, but not a lifetime: `'a'` and `'\n'`, not `'a`.
fn character_length(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => {
            // The escaped character may itself be a quote.
            let after_escape = characters.nth(1).map_or(text.len(), |(index, _)| index);
            text[after_escape..].find('\'').map_or(text.len(), |end| after_escape + end + 1)
        }
        Some(_) => match characters.next() {
            Some((index, '\'')) => index + 1,
            _ => 0,
        },
        None => 0,
    }
}

/// A string with any prefix, raw or not.
fn string_length(text: &str) -> usize {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let rest = text.strip_prefix(prefix).unwrap_or_default();
        rest.starts_with('"') || (prefix.ends_with('r') && is_raw_start(rest))
    });
    let Some(prefix) = prefix else { return 0 };
    let body = &text[prefix.len()..];
    if !prefix.ends_with('r') {
        return prefix.len() + plain_string_length(body);
    }
    let hashes = body.len() - body.trim_start_matches('#').len();
    let end = format!("\"{}", "#".repeat(hashes));
    let content = hashes + 1;
    let found = body[content..].find(&end).map(|at| content + at + end.len());
    prefix.len() + found.unwrap_or(body.len())
}

fn is_raw_start(text: &str) -> bool {
    text.starts_with('#') && text.trim_start_matches('#').starts_with('"')
}

fn plain_string_length(text: &str) -> usize {
    let mut escaped = false;
    for (index, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a line, without the blanks.
    fn left(source: &str) -> String {
        code_only(source).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_go() {
        assert_eq!(left("a // unsafe\nb"), "a b");
        assert_eq!(left("a /* x /* unsafe */ y */ b"), "a b");
        assert_eq!(left("/// unsafe\nfn f() {}"), "fn f() {}");
        assert_eq!(left("a /* never closed"), "a");
    }

    #[test]
    fn strings_and_characters_go() {
        assert_eq!(left(r#"f("unsafe \" unsafe", 1)"#), "f( , 1)");
        assert_eq!(left("f(r#\"unsafe \" unsafe\"#, 1)"), "f( , 1)");
        assert_eq!(left("f(br\"unsafe\\\", b\"x\", c\"y\", 1)"), "f( , , , 1)");
        assert_eq!(left(r"f('\'', '\\', '\u{41}', '/', '/', 1)"), "f( , , , , , 1)");
    }

    #[test]
    fn lifetimes_and_raw_identifiers_stay() {
        assert_eq!(left("fn f<'a>(x: &'a str) -> &'static str"), "fn f<'a>(x: &'a str) -> &'static str");
        assert_eq!(left("mod r#loom; bar\"x\""), "mod r#loom; bar");
    }

    #[test]
    fn lines_stay_where_they_are() {
        let source = "a\n/* b\nc */ d\n\"e\nf\" g\n";
        let code = code_only(source);
        assert_eq!(code.lines().count(), source.lines().count());
        assert_eq!(code.lines().nth(2).unwrap().trim(), "d");
        assert_eq!(code.lines().nth(4).unwrap().trim(), "g");
    }
}
