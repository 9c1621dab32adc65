//! Colours, on a terminal only: `anstream` takes them out everywhere else and obeys `NO_COLOR`.

use std::fmt;

use anstyle::{AnsiColor, Style};

/// What stands out.
pub(crate) const STRONG: Style = Style::new().bold();
/// What may be skipped at first reading.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// What is as it should be.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// What is not.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What to do next.
pub(crate) const HINT: Style = AnsiColor::Cyan.on_default();

/// A piece of text in a style.
pub(crate) struct Painted<T>(Style, T);

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.0.render(), self.1, self.0.render_reset())
    }
}

/// Paints a piece of text.
pub(crate) fn paint<T: fmt::Display>(style: Style, text: T) -> Painted<T> {
    Painted(style, text)
}
