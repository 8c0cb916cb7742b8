//! Messages for the person who runs the program: to a callback, or to stderr if `SPARKLE_LOG` asks for it.
//!
//! The library prints nothing by itself. It keeps its own callback and not a process-global logger, since it lives
//! inside other people's programs.

use std::fmt;
use std::io::Write;
use std::sync::{Arc, RwLock};

use crate::config::config;

/// How important a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Level {
    /// Decisions and their reasons.
    Debug = 0,
    /// What a user may want to know: a device was chosen, a fallback taken.
    Info = 1,
    /// Something is wrong but was dealt with.
    Warn = 2,
}

type Callback = Arc<dyn Fn(Level, &str) + Send + Sync>;

static CALLBACK: RwLock<Option<Callback>> = RwLock::new(None);

/// Sends all messages to `callback` from now on; `None` ends that. The callback may run on any thread and may call
/// back into Sparkle.
pub fn set_callback(callback: Option<Callback>) {
    *CALLBACK.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = callback;
}

/// Sends one message.
pub(crate) fn message(level: Level, text: fmt::Arguments) {
    // Cloned out, so that the callback runs without the lock and may set another one.
    let callback = CALLBACK.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    if let Some(callback) = callback {
        callback(level, &text.to_string());
    } else if config().log.is_some_and(|least| level >= least) {
        // A closed stderr is no reason to fail a computation.
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
