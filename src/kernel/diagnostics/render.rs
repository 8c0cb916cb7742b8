//! Messages as text with excerpts of the source.

use std::fmt::Write;

use super::{Diagnostic, Severity};
use crate::kernel::source::Source;
use crate::kernel::span::Span;

/// The most characters of a line that are shown.
const MAX_SHOWN: usize = 120;

/// Characters before a caret in a line that is cut.
const BEFORE: usize = 60;

impl Diagnostic {
    /// The message as text, with an excerpt of the source.
    pub(in crate::kernel) fn draw(&self, name: &str, source: Option<&Source<'_>>) -> String {
        let kind = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut text = format!("{kind}[{}]: {}\n", self.code, self.message);
        if self.span.line == 0 {
            let _ = writeln!(text, "  --> {}", crate::error::clipped(name));
        } else {
            let column = source.map_or(self.span.column, |source| source.column(self.span));
            let second = self.second.as_ref();
            let last = self.span.line.max(second.map_or(0, |second| second.span.line));
            let gutter = last.to_string().len();
            let name = crate::error::clipped(name);
            let _ = writeln!(text, "{:gutter$}--> {name}:{}:{column}", "", self.span.line);
            if let Some(source) = source {
                let _ = writeln!(text, "{:gutter$} |", "");
                let mut marks = vec![(self.span, '^', self.label.as_str())];
                marks.extend(second.map(|second| (second.span, '-', second.label.as_str())));
                marks.sort_by_key(|(span, mark, _)| (span.line, *mark != '^'));
                let mut shown = 0;
                for (span, mark, label) in marks {
                    if span.line != shown {
                        if shown != 0 && span.line > shown + 1 {
                            let _ = writeln!(text, "{:.<gutter$}", "");
                        }
                        excerpt(&mut text, gutter, source.line(span.line), span);
                    }
                    carets(&mut text, gutter, source.line(span.line), span, mark, label, shown == span.line);
                    shown = span.line;
                }
            }
            if let Some(help) = &self.help {
                let _ = writeln!(text, "{:gutter$} = help: {help}", "");
            }
            return text;
        }
        if let Some(help) = &self.help {
            let _ = writeln!(text, "  = help: {help}");
        }
        text
    }
}

/// The first character that is shown of `line`, and the number of characters.
fn window(line: &str, span: Span) -> (usize, usize) {
    if line.len() <= MAX_SHOWN {
        return (0, MAX_SHOWN);
    }
    let caret = characters(line, span.column);
    (caret.saturating_sub(BEFORE), MAX_SHOWN)
}

/// The characters of `line` before a column in bytes.
fn characters(line: &str, column: u32) -> usize {
    let bytes = (column.max(1) - 1) as usize;
    line.char_indices().take_while(|(at, _)| *at < bytes).count()
}

/// The line itself. Tabs and other control characters become blanks.
fn excerpt(text: &mut String, gutter: usize, line: &str, span: Span) {
    let (from, count) = window(line, span);
    let cleaned = line.chars().skip(from).take(count).map(|it| if it.is_control() { ' ' } else { it });
    let shown: String = cleaned.collect();
    let drawn = format!("{:gutter$} | {shown}", span.line);
    let _ = writeln!(text, "{}", drawn.trim_end());
}

/// The marks below a line. If another line of marks precedes them, `second` moves nothing: both refer to one window.
fn carets(
    text: &mut String,
    gutter: usize,
    line: &str,
    span: Span,
    mark: char,
    label: &str,
    same_line: bool,
) {
    let (from, count) = window(line, span);
    let from = if same_line && line.len() > MAX_SHOWN { return } else { from };
    let start = characters(line, span.column).saturating_sub(from).min(count);
    let end = characters(line, span.end).saturating_sub(from).clamp(start + 1, count.max(start + 1));
    let marks: String = std::iter::repeat_n(mark, end - start).collect();
    let drawn = format!("{:gutter$} | {:start$}{marks} {label}", "", "");
    let _ = writeln!(text, "{}", drawn.trim_end());
}

#[cfg(test)]
mod tests {
    use super::super::Code;
    use super::*;

    fn drawn(text: &str, diagnostic: &Diagnostic) -> String {
        diagnostic.draw("f.f90", Some(&Source::new(text.as_bytes()).unwrap().unwrap()))
    }

    fn at(line: u32, column: u32, end: u32) -> Span {
        Span { line, column, end }
    }

    #[test]
    fn places_on_two_lines_and_on_one() {
        let message = Diagnostic::new(Code::DeclaredTwice, at(12, 5, 6), "twice").label("here");
        let text = "\n".repeat(8) + "one\n\n\n\ttwo x\n";
        let far = message.clone().second(at(9, 1, 4), "the first").help("rename it");
        let expected = "error[K208]: twice
  --> f.f90:12:5
   |
 9 | one
   | --- the first
..
12 |  two x
   |     ^ here
   = help: rename it
";
        // The gutter is as wide as the longest number.
        assert_eq!(drawn(&text, &far), expected);
        let near = message.second(at(12, 2, 5), "the first");
        assert!(drawn(&text, &near).ends_with("12 |  two x\n   |     ^ here\n   |  --- the first\n"));
    }

    #[test]
    fn columns_count_characters_and_long_lines_are_cut() {
        let text = "\u{e9}\u{e9} x\n";
        let message = Diagnostic::new(Code::Expected, at(1, 6, 7), "x");
        assert!(drawn(text, &message).contains("f.f90:1:4\n  |\n1 | \u{e9}\u{e9} x\n  |    ^\n"));
        let text = "a".repeat(500) + "!" + &"b".repeat(500);
        let message = Diagnostic::new(Code::Expected, at(1, 501, 900), "x");
        let drawn = drawn(&text, &message);
        assert!(drawn.contains("f.f90:1:501"), "{drawn}");
        assert!(drawn.contains(&format!("1 | {}!{}\n", "a".repeat(60), "b".repeat(59))), "{drawn}");
        assert!(drawn.contains(&format!("  | {}{}\n", " ".repeat(60), "^".repeat(60))), "{drawn}");
    }

    #[test]
    fn messages_without_a_place_have_no_excerpt() {
        let message = Diagnostic::new(Code::NoKernel, Span::default(), "none").help("write one");
        assert_eq!(drawn("x", &message), "error[K219]: none\n  --> f.f90\n  = help: write one\n");
        let message = Diagnostic::new(Code::NotUtf8, at(3, 4, 5), "bad");
        assert_eq!(message.draw("f.f90", None), "error[K002]: bad\n --> f.f90:3:4\n");
    }
}
