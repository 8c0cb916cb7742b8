//! Log messages. They go to a callback, or to stderr if `SPARKLE_LOG` asks for it.
//!
//! The library prints nothing by default. It has its own callback instead of a process-wide logger, because it runs
//! inside other programs.
//!
//! A message is a sentence, or a record: a name with fields, as each call writes one. `SPARKLE_LOG_FORMAT=json` makes
//! each a JSON object. `docs/log.md` lists the fields.

use std::fmt::{self, Write as _};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

pub use crate::config::Level;
use crate::config::{LogFormat, config};

type Callback = Arc<dyn Fn(Level, &str) + Send + Sync>;

static CALLBACK: RwLock<Option<Callback>> = RwLock::new(None);

/// Whether there is a callback, so that calls need no lock to know that nobody listens.
static HAS_CALLBACK: AtomicBool = AtomicBool::new(false);

/// Sends all further messages to `callback`; `None` removes the callback. The callback may run on any thread, and may
/// call Sparkle.
pub fn set_callback(callback: Option<Callback>) {
    let mut current = CALLBACK.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    HAS_CALLBACK.store(callback.is_some(), Ordering::Relaxed);
    *current = callback;
}

/// Whether messages of `level` go anywhere.
#[inline]
pub(crate) fn enabled(level: Level) -> bool {
    HAS_CALLBACK.load(Ordering::Relaxed) || config().log.is_some_and(|min_level| level >= min_level)
}

/// Sends one message.
pub(crate) fn message(level: Level, text: fmt::Arguments) {
    if !enabled(level) {
        return;
    }
    match config().log_format {
        LogFormat::Text => send(level, &text.to_string()),
        LogFormat::Json => {
            let mut line = opening(level);
            line.push_str(",\"message\":");
            quote(&mut line, &text.to_string());
            line.push('}');
            send(level, &line);
        }
    }
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    /// A size, a count, or 0 and 1 for no and yes.
    Count(i64),
    /// A factor.
    Number(f32),
    /// Milliseconds.
    Ms(f64),
    /// A name or a sentence.
    Text(&'a str),
}

/// Sends one record: `call=conv2d n=1 why="..."`, or the same as a JSON object.
pub(crate) fn record(level: Level, fields: &[(&str, Value)]) {
    if enabled(level) {
        send(level, &record_text(level, config().log_format, fields));
    }
}

fn record_text(level: Level, format: LogFormat, fields: &[(&str, Value)]) -> String {
    let json = format == LogFormat::Json;
    let mut line = if json { opening(level) } else { String::new() };
    for (index, (name, value)) in fields.iter().enumerate() {
        if json {
            line.push(',');
            quote(&mut line, name);
            line.push(':');
        } else {
            line.push_str(if index == 0 { "" } else { " " });
            line.push_str(name);
            line.push('=');
        }
        // Writing to a String cannot fail.
        let _ = match value {
            Value::Count(count) => write!(line, "{count}"),
            // JSON has no infinities and no NaN.
            Value::Number(number) if json && !number.is_finite() => write!(line, "null"),
            Value::Number(number) => write!(line, "{number}"),
            Value::Ms(ms) => write!(line, "{ms:.4}"),
            Value::Text(text) if json || text.is_empty() || text.contains([' ', '"', '=', '\\', '\n']) => {
                quote(&mut line, text);
                Ok(())
            }
            Value::Text(text) => line.write_str(text),
        };
    }
    if json {
        line.push('}');
    }
    line
}

fn opening(level: Level) -> String {
    let level = match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
    };
    format!("{{\"level\":\"{level}\"")
}

/// Appends `text` as a JSON string.
fn quote(line: &mut String, text: &str) {
    line.push('"');
    for character in text.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            control if (control as u32) < 0x20 => {
                // Writing to a String cannot fail.
                let _ = write!(line, "\\u{:04x}", control as u32);
            }
            other => line.push(other),
        }
    }
    line.push('"');
}

fn send(level: Level, text: &str) {
    // A clone, so that the callback runs without the lock and can replace itself.
    let callback = CALLBACK.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    if let Some(callback) = callback {
        callback(level, text);
    } else if config().log.is_some_and(|min_level| level >= min_level) {
        let prefix = if config().log_format == LogFormat::Json { "" } else { "sparkle: " };
        // One write, so that lines of several threads do not mix. A closed stderr must not fail a computation.
        let _ = std::io::stderr().lock().write_all(format!("{prefix}{text}\n").as_bytes());
    }
}

macro_rules! debug {
    ($($arg:tt)*) => { $crate::log::message($crate::log::Level::Debug, format_args!($($arg)*)) };
}
macro_rules! info {
    ($($arg:tt)*) => { $crate::log::message($crate::log::Level::Info, format_args!($($arg)*)) };
}
macro_rules! warning {
    ($($arg:tt)*) => { $crate::log::message($crate::log::Level::Warn, format_args!($($arg)*)) };
}
#[allow(unused_imports)] // Not every level is in use at all times.
pub(crate) use {debug, info, warning};

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [(&str, Value); 6] = [
        ("call", Value::Text("conv2d")),
        ("n", Value::Count(2)),
        ("alpha", Value::Number(f32::INFINITY)),
        ("ms", Value::Ms(1.5)),
        ("fallback", Value::Text("")),
        ("why", Value::Text("a \"quote\"\\\n\u{1}\u{e9}")),
    ];

    #[test]
    fn a_record_as_text() {
        let text = record_text(Level::Debug, LogFormat::Text, &FIELDS);
        assert_eq!(
            text,
            "call=conv2d n=2 alpha=inf ms=1.5000 fallback=\"\" why=\"a \\\"quote\\\"\\\\\\n\\u0001\u{e9}\""
        );
    }

    #[test]
    fn a_record_is_a_json_object() {
        let text = record_text(Level::Warn, LogFormat::Json, &FIELDS);
        let found: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "level": "warn", "call": "conv2d", "n": 2, "alpha": null, "ms": 1.5, "fallback": "",
            "why": "a \"quote\"\\\n\u{1}\u{e9}",
        });
        assert_eq!(found, expected);
    }
}
