//! Log messages. They go to a callback, or to stderr if `SPARKLE_LOG` asks for it.
//!
//! The library prints nothing by default. It has its own callback instead of a process-wide logger, because it runs
//! inside other programs.

use std::fmt;
use std::io::Write;
use std::sync::{Arc, RwLock};

pub use crate::config::Level;
use crate::config::config;

type Callback = Arc<dyn Fn(Level, &str) + Send + Sync>;

static CALLBACK: RwLock<Option<Callback>> = RwLock::new(None);

/// Sends all further messages to `callback`; `None` removes the callback. The callback may run on any thread, and may
/// call Sparkle.
pub fn set_callback(callback: Option<Callback>) {
    *CALLBACK.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = callback;
}

/// Sends one message.
pub(crate) fn message(level: Level, text: fmt::Arguments) {
    // A clone, so that the callback runs without the lock and can replace itself.
    let callback = CALLBACK.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    if let Some(callback) = callback {
        callback(level, &text.to_string());
    } else if config().log.is_some_and(|min_level| level >= min_level) {
        // A closed stderr must not fail a computation.
        let _ = writeln!(std::io::stderr().lock(), "sparkle: {text}");
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
