//! A byte-level tokenizer: a token is a byte, so that every text can be told without a vocabulary
//! file.

/// The tokens of a text: its UTF-8 bytes.
pub fn encode(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// The text of some tokens. What is no UTF-8, or no byte at all, becomes U+FFFD.
pub fn decode(tokens: &[u32]) -> String {
    // 0xFF occurs nowhere in UTF-8, so that it always decodes to U+FFFD.
    let bytes: Vec<u8> = tokens.iter().map(|&token| u8::try_from(token).unwrap_or(0xFF)).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a token alone is a visible character or a space.
pub(super) fn is_printable(token: usize) -> bool {
    u8::try_from(token).is_ok_and(|byte| byte == b' ' || byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_the_round_trip() {
        for text in ["", "Hello, world\n", "Kältekammer \u{1F9CA}", "\0"] {
            assert_eq!(decode(&encode(text)), text);
        }
        assert_eq!(encode("Az"), [65, 122]);
    }

    #[test]
    fn what_is_no_text_becomes_the_replacement_character() {
        assert_eq!(decode(&[65, 0xC3, 66]), "A\u{FFFD}B");
        assert_eq!(decode(&[65, 256, u32::MAX]), "A\u{FFFD}\u{FFFD}");
    }

    #[test]
    fn printable_are_the_95_visible_characters_of_ascii() {
        assert_eq!((0..1000).filter(|&token| is_printable(token)).count(), 95);
    }
}
