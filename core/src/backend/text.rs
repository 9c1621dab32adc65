//! The text of an answer, which may be padded: padding is written when it is sent, and never kept.

use std::borrow::Cow;

/// A text with so many dots in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    bytes: Vec<u8>,
    /// Where the dots are.
    at: usize,
    dots: usize,
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            at: 0,
            dots: 0,
        }
    }
}

impl Text {
    /// A text with so many dots behind the first of these words; at its end, if it has none.
    #[must_use]
    pub fn padded(bytes: Vec<u8>, words: &[u8], dots: usize) -> Self {
        let found = bytes
            .windows(words.len().max(1))
            .position(|part| part == words);
        let at = found.map_or(bytes.len(), |found| found + words.len());
        Self { bytes, at, dots }
    }

    /// Its length in bytes, the dots included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.dots
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// That many bytes from there on, or as many as there are.
    #[must_use]
    pub fn piece(&self, from: usize, length: usize) -> Cow<'_, [u8]> {
        let until = from.saturating_add(length).min(self.len());
        let after = self.at + self.dots;
        let part = |from: usize, until: usize| self.bytes.get(from..until).unwrap_or_default();
        if until <= self.at {
            return part(from, until).into();
        }
        if from >= after {
            return part(from - self.dots, until - self.dots).into();
        }
        let dots = until.min(after) - from.max(self.at);
        let mut piece = part(from, self.at).to_vec();
        piece.resize(piece.len() + dots, b'.');
        piece.extend_from_slice(part(self.at, until.saturating_sub(self.dots)));
        piece.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn whole(text: &Text, length: usize) -> String {
        let mut all = Vec::new();
        loop {
            let piece = text.piece(all.len(), length);
            if piece.is_empty() {
                return String::from_utf8(all).unwrap();
            }
            assert!(piece.len() == length || all.len() + piece.len() == text.len());
            all.extend_from_slice(&piece);
        }
    }

    #[rstest]
    #[case::plain("abc", "?", 0, "abc")]
    #[case::within("{\"a\":\"\"}", ":\"", 5, "{\"a\":\".....\"}")]
    #[case::nowhere("abc", "?", 2, "abc..")]
    #[case::empty("", "?", 3, "...")]
    fn pieces_of_any_length_are_the_whole(
        #[case] text: &str,
        #[case] words: &str,
        #[case] dots: usize,
        #[case] want: &str,
        #[values(1, 2, 3, 4, 7, 100)] length: usize,
    ) {
        let text = Text::padded(text.as_bytes().to_vec(), words.as_bytes(), dots);
        assert_eq!(whole(&text, length), want);
    }
}
