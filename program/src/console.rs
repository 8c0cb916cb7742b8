//! The program's two streams: results to standard output, progress and notes to standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::Failure;

/// Standard output and error, with at most one progress bar.
#[derive(Default)]
pub struct Console {
    bar: Option<ProgressBar>,
    /// Whether text is dropped, because standard output gets a document.
    no_text: bool,
    /// The first error of standard output. Nothing is written there after it.
    broken: Option<io::Error>,
}

impl Console {
    /// Drops all text from now on: standard output gets a document only.
    pub fn stop_text(&mut self) {
        self.no_text = true;
    }

    /// Writes one line of results.
    pub fn line(&mut self, text: impl Display) {
        if !self.no_text {
            self.write(text);
        }
    }

    fn write(&mut self, text: impl Display) {
        if self.broken.is_none() {
            let write = || writeln!(io::stdout().lock(), "{text}");
            let written = self.bar.as_ref().map_or_else(write, |bar| bar.suspend(write));
            self.broken = written.err();
        }
    }

    /// Writes a document.
    pub fn document(&mut self, document: &impl serde::Serialize) {
        self.write(serde_json::to_string_pretty(document).expect("reports have text keys only"));
    }

    /// Writes data to standard output.
    pub fn bytes(&mut self, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
        self.end_progress();
        if self.broken.is_none() {
            let mut stream = io::BufWriter::new(io::stdout().lock());
            self.broken = content(&mut stream).and_then(|()| stream.flush()).err();
        }
    }

    /// Writes a note, which is not a result, to stderr. A closed stderr is no failure.
    pub fn note(&self, text: &str) {
        let write = || drop(writeln!(io::stderr().lock(), "sparkle: {text}"));
        self.bar.as_ref().map_or_else(write, |bar| bar.suspend(write));
    }

    /// Starts a progress bar of `steps`. It shows only if stderr is a terminal. [`Console::end_progress`] removes it.
    pub fn progress(&mut self, steps: u64, label: &str) -> ProgressBar {
        self.end_progress();
        let terminal = io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{msg} [{wide_bar}] {pos}/{len} {elapsed}")
            .expect("the template is well-formed");
        let bar = ProgressBar::with_draw_target(Some(steps), target)
            .with_style(style.progress_chars("=> "))
            .with_message(label.to_owned());
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        self.bar = Some(bar.clone());
        bar
    }

    /// Removes the progress bar.
    pub fn end_progress(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Ends the output.
    ///
    /// # Errors
    /// If standard output could not be written. A reader that closes its pipe early, such as `head`, is no error.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.end_progress();
        let flushed = io::stdout().flush();
        match self.broken.take().or(flushed.err()) {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::Input(format!("cannot write to standard output: {error}")))
            }
            _ => Ok(()),
        }
    }
}

/// The columns of a terminal that text is made for.
const COLUMNS: usize = 80;

/// `first` and the words of `text` in lines of at most 80 columns, if no word is longer. Further lines are indented.
pub fn wrapped(first: &str, indent: usize, text: &str) -> String {
    let (mut lines, mut line) = (String::new(), first.to_owned());
    for word in text.split_whitespace() {
        let blank = line.chars().all(|it| it == ' ') || line.ends_with(' ');
        let width = line.chars().count() + usize::from(!blank) + word.chars().count();
        if width > COLUMNS && !line.trim().is_empty() {
            lines.push_str(line.trim_end());
            lines.push('\n');
            line = " ".repeat(indent) + word;
        } else {
            line.push_str(if blank { "" } else { " " });
            line.push_str(word);
        }
    }
    lines + line.trim_end()
}

/// Milliseconds, for people.
pub fn ms(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_wrapped_between_words() {
        assert_eq!(wrapped("  a  ", 4, "b c"), "  a  b c");
        let text = wrapped("  name      ", 4, &"seven77 ".repeat(20));
        assert!(text.lines().all(|line| line.len() <= 80) && text.lines().count() == 3, "{text}");
        assert!(text.starts_with("  name      seven77 ") && text.contains("\n    seven77 "), "{text}");
        assert_eq!(wrapped("", 2, &"x".repeat(100)), "x".repeat(100));
    }
}
