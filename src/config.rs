//! The environment variables, read once.
//!
//! Only this file names the variables that Sparkle reads. A call of the API overrides them. [`Config::ignored`] lists
//! values that are invalid and unknown names that start with `SPARKLE_`: the first opened device logs them, `sparkle
//! info` shows them, and the program's other commands refuse to run with such a value.

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

pub use cache_sizes::{CacheSize, CacheSizes};

use crate::error::clipped;
use crate::problem::{Algorithm, Conv2d};

mod cache_sizes;

/// The importance of a log message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Level {
    /// A decision and its reason.
    Debug = 0,
    /// A fact that users may want to know: the chosen device, a fallback.
    Info = 1,
    /// A problem that the library worked around.
    Warn = 2,
}

/// The form of log messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object a message.
    Json,
}

/// A variable that has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredVariable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// What was expected; `None` if there is no such variable.
    pub expected: Option<&'static str>,
}

impl fmt::Display for IgnoredVariable {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (name, value) = (clipped(&self.name), clipped(&self.value));
        match self.expected {
            Some(expected) => write!(f, "{name}={value} is ignored: expected {expected}"),
            None => write!(f, "{name}={value} is ignored: unknown variable"),
        }
    }
}

/// How plans use measurements of their candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tune {
    /// Predict only. Plans that ask for measurements still measure.
    #[default]
    Off,
    /// Use the winner of an earlier measurement; measure nothing.
    Read,
    /// Like `Read`, and measure the best predicted candidates where no measurement exists.
    Full,
}

/// The settings from the environment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// `SPARKLE_DEVICE`: the device that `auto` selects.
    pub device: Option<String>,
    /// `SPARKLE_NUM_THREADS`: number of threads in the CPU pool.
    pub num_threads: Option<usize>,
    /// `SPARKLE_ISA`: the instruction set of the CPU kernels: `avx512`, `avx2` or `portable`. Default: the best one.
    pub isa: Option<String>,
    /// `SPARKLE_CACHES`: sizes of caches that the system misreports.
    pub caches: Option<CacheSizes>,
    /// `OMP_NUM_THREADS`: the default of `num_threads`, as users of OpenMP programs expect.
    pub omp_num_threads: Option<usize>,
    /// `SPARKLE_LOG`: the lowest level that goes to stderr if no callback is set.
    pub log: Option<Level>,
    /// `SPARKLE_LOG_FORMAT`: the form of messages, on stderr and for a callback.
    pub log_format: LogFormat,
    /// `SPARKLE_GL_TIMEOUT_MS`: time limit for GPU work, in milliseconds. Default: 10 s.
    pub gl_timeout_ms: Option<u64>,
    /// `SPARKLE_ALGORITHM`: the algorithm that `auto` selects for convolutions. `winograd` applies only to the
    /// convolutions that it supports.
    pub algorithm: Option<Algorithm>,
    /// `SPARKLE_TRACE`: the file that the process writes its trace to; `%p` in it stands for the process id.
    pub trace: Option<String>,
    /// `SPARKLE_CACHE_DIR`: the folder of the cache; empty or `off` disables it.
    pub cache_dir: Option<String>,
    /// `XDG_CACHE_HOME`: the user's folder for caches. The default cache is `sparkle` in it.
    pub xdg_cache_home: Option<String>,
    /// `HOME`: `.cache` in it is the default of `XDG_CACHE_HOME`.
    pub home: Option<String>,
    /// `SPARKLE_TUNE`: how plans use measurements.
    pub tune: Tune,
    /// `SPARKLE_DETERMINISTIC`: measurements influence neither the device nor the kernel.
    pub deterministic: bool,
    /// `SPARKLE_FLUSH_DENORMALS`: the CPU treats denormal numbers as zero.
    pub flush_denormals: bool,
    /// The variables that have no effect, and why.
    pub ignored: Vec<IgnoredVariable>,
}

impl Config {
    /// The time limit for GPU work, in milliseconds.
    pub fn gl_timeout_ms(&self) -> u64 {
        self.gl_timeout_ms.unwrap_or(10_000)
    }

    /// Whether measurements decide how `problem` is computed, and whether they are made.
    pub(crate) fn tune_for(&self, problem: &Conv2d) -> Tune {
        match self.tune {
            _ if self.deterministic => Tune::Off,
            _ if problem.is_measured() => Tune::Full,
            // A plan that runs once is not worth a measurement, but a recorded result costs nothing.
            Tune::Full if problem.is_once() => Tune::Read,
            tune => tune,
        }
    }

    /// The folder where measurements are kept from run to run, if there is to be one.
    pub fn cache_folder(&self) -> Option<PathBuf> {
        match self.cache_dir.as_deref() {
            Some("" | "off") => None,
            Some(folder) => Some(folder.into()),
            None => {
                // The XDG base directory specification: relative paths are invalid and ignored.
                let absolute = |path: &Option<String>| {
                    path.as_deref().map(PathBuf::from).filter(|path| path.is_absolute())
                };
                let caches = absolute(&self.xdg_cache_home);
                caches.or_else(|| Some(absolute(&self.home)?.join(".cache"))).map(|it| it.join("sparkle"))
            }
        }
    }

    /// Reads `variables`, in the form of `std::env::vars`.
    fn read(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut config = Config::default();
        for (name, value) in variables {
            if let Err(expected) = config.set(&name, value.trim()) {
                config.ignored.push(IgnoredVariable { name, value, expected });
            }
        }
        config
    }

    /// Applies one variable.
    ///
    /// # Errors
    /// If it is ignored: what was expected, or nothing if there is no such variable.
    fn set(&mut self, name: &str, value: &str) -> Result<(), Option<&'static str>> {
        let positive = || value.parse::<usize>().ok().filter(|&count| count > 0);
        match name {
            "SPARKLE_CACHE_DIR" => self.cache_dir = Some(value.to_owned()),
            _ if value.is_empty() => return Ok(()),
            "XDG_CACHE_HOME" => self.xdg_cache_home = Some(value.to_owned()),
            "HOME" => self.home = Some(value.to_owned()),
            "SPARKLE_TUNE" => match value {
                "off" => self.tune = Tune::Off,
                "read" => self.tune = Tune::Read,
                "full" => self.tune = Tune::Full,
                _ => return Err(Some("off, read or full")),
            },
            "SPARKLE_DETERMINISTIC" => match value {
                "0" => self.deterministic = false,
                "1" => self.deterministic = true,
                _ => return Err(Some("0 or 1")),
            },
            "SPARKLE_FLUSH_DENORMALS" => match value {
                "0" => self.flush_denormals = false,
                "1" => self.flush_denormals = true,
                _ => return Err(Some("0 or 1")),
            },
            "SPARKLE_DEVICE" => self.device = Some(value.to_owned()),
            "SPARKLE_NUM_THREADS" => match positive() {
                Some(count) => self.num_threads = Some(count),
                None => return Err(Some("a number of threads of at least 1")),
            },
            "SPARKLE_ISA" => match value {
                "avx512" | "avx2" | "portable" => self.isa = Some(value.to_owned()),
                _ => return Err(Some("avx512, avx2 or portable")),
            },
            "SPARKLE_CACHES" => match CacheSizes::parse(value) {
                Some(sizes) => self.caches = Some(sizes),
                None => return Err(Some(CacheSizes::EXPECTED)),
            },
            // A list has one count per nesting level, the outermost first. Bad values are not our concern.
            "OMP_NUM_THREADS" => {
                let first = value.split(',').next().unwrap_or_default().trim();
                self.omp_num_threads = first.parse().ok().filter(|&count| count > 0);
            }
            "SPARKLE_LOG" => match value {
                "debug" => self.log = Some(Level::Debug),
                "info" => self.log = Some(Level::Info),
                "warn" => self.log = Some(Level::Warn),
                "off" => self.log = None,
                _ => return Err(Some("debug, info, warn or off")),
            },
            "SPARKLE_LOG_FORMAT" => match value {
                "text" => self.log_format = LogFormat::Text,
                "json" => self.log_format = LogFormat::Json,
                _ => return Err(Some("text or json")),
            },
            "SPARKLE_GL_TIMEOUT_MS" => match positive() {
                Some(limit) => self.gl_timeout_ms = Some(limit as u64),
                None => return Err(Some("a number of milliseconds of at least 1")),
            },
            "SPARKLE_TRACE" => self.trace = Some(value.to_owned()),
            "SPARKLE_ALGORITHM" => match value {
                "auto" => self.algorithm = None,
                "direct" => self.algorithm = Some(Algorithm::Direct),
                "winograd" => self.algorithm = Some(Algorithm::Winograd),
                _ => return Err(Some("auto, direct or winograd")),
            },
            _ if name.starts_with("SPARKLE_TEST_") => {}
            _ if name.starts_with("SPARKLE_") => return Err(None),
            _ => {}
        }
        Ok(())
    }
}

/// The configuration, read from the environment at first use.
pub fn config() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Config::read(std::env::vars_os().filter_map(unicode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Config {
        Config::read(variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())))
    }

    #[test]
    fn good_values_are_taken() {
        let config = read(&[
            ("SPARKLE_DEVICE", "gl:1"),
            ("SPARKLE_NUM_THREADS", " 3 "),
            ("OMP_NUM_THREADS", "8,2"),
            ("SPARKLE_ISA", "avx2"),
            ("SPARKLE_CACHES", "l3=32M/8"),
            ("SPARKLE_LOG", "debug"),
            ("SPARKLE_LOG_FORMAT", "json"),
            ("SPARKLE_GL_TIMEOUT_MS", "250"),
            ("SPARKLE_ALGORITHM", "winograd"),
            ("SPARKLE_TRACE", "t.json"),
            ("SPARKLE_CACHE_DIR", "/tmp/there"),
            ("XDG_CACHE_HOME", "/caches"),
            ("HOME", "/home/me"),
            ("SPARKLE_TUNE", "full"),
            ("SPARKLE_DETERMINISTIC", "1"),
            ("SPARKLE_FLUSH_DENORMALS", "1"),
            ("PATH", "/bin"),
        ]);
        let expected = Config {
            device: Some("gl:1".into()),
            num_threads: Some(3),
            isa: Some("avx2".into()),
            caches: CacheSizes::parse("l3=32M/8"),
            omp_num_threads: Some(8),
            log: Some(Level::Debug),
            log_format: LogFormat::Json,
            gl_timeout_ms: Some(250),
            algorithm: Some(Algorithm::Winograd),
            trace: Some("t.json".into()),
            cache_dir: Some("/tmp/there".into()),
            xdg_cache_home: Some("/caches".into()),
            home: Some("/home/me".into()),
            tune: Tune::Full,
            deterministic: true,
            flush_denormals: true,
            ignored: vec![],
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn bad_values_are_ignored_and_explained() {
        let config = read(&[
            ("SPARKLE_NUM_THREADS", "0"),
            ("OMP_NUM_THREADS", "many"),
            ("SPARKLE_LOG", "loud"),
            ("SPARKLE_LOG_FORMAT", "xml"),
            ("SPARKLE_GL_TIMEOUT_MS", "-1"),
            ("SPARKLE_DEVISE", "cpu"),
            ("SPARKLE_ALGORITHM", "fft"),
            ("SPARKLE_ISA", "avx1024"),
            ("SPARKLE_CACHES", "32M"),
            ("SPARKLE_TUNE", "always"),
            ("SPARKLE_DETERMINISTIC", "yes"),
            ("SPARKLE_FLUSH_DENORMALS", "2"),
        ]);
        assert_eq!((&config.isa, config.caches), (&None, None));
        assert_eq!((config.num_threads, config.omp_num_threads, config.log), (None, None, None));
        assert_eq!(config.gl_timeout_ms(), 10_000);
        assert_eq!((config.ignored.len(), config.algorithm, config.log_format), (11, None, LogFormat::Text));
        assert_eq!(
            config.ignored[0].to_string(),
            "SPARKLE_NUM_THREADS=0 is ignored: expected a number of threads of at least 1"
        );
        assert_eq!(config.ignored[4].to_string(), "SPARKLE_DEVISE=cpu is ignored: unknown variable");
    }

    #[test]
    fn the_folder_of_the_cache() {
        fn folder(variables: &[(&str, &str)]) -> Option<String> {
            Some(read(variables).cache_folder()?.to_str().unwrap().to_owned())
        }
        let home = ("HOME", "/home/me");
        assert_eq!(folder(&[home]).as_deref(), Some("/home/me/.cache/sparkle"));
        assert_eq!(folder(&[home, ("XDG_CACHE_HOME", "/x")]).as_deref(), Some("/x/sparkle"));
        assert_eq!(folder(&[home, ("XDG_CACHE_HOME", "x")]).as_deref(), Some("/home/me/.cache/sparkle"));
        assert_eq!(folder(&[home, ("SPARKLE_CACHE_DIR", "here")]).as_deref(), Some("here"));
        for off in [[home, ("SPARKLE_CACHE_DIR", "")], [home, ("SPARKLE_CACHE_DIR", "off")]] {
            assert_eq!(folder(&off), None);
        }
        assert_eq!(folder(&[]), None);
        assert_eq!(folder(&[("HOME", "me")]), None);
    }
}
