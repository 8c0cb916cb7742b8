//! Reads the events of a trace in Chrome's format one by one, so that only what the caller keeps takes memory.

use std::borrow::Cow;
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::failure::Failure;
use crate::memory;

/// An event, as far as `SPARKLE_TRACE` uses the format.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Event<'a> {
    /// Its kind: X is an interval, M a name.
    #[serde(rename = "ph", borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// What it is an interval of: `engine`, `slot`, `call`, `step` or `job`.
    #[serde(rename = "cat", borrow)]
    pub category: Cow<'a, str>,
    /// Process and thread in the format's terms; the first is a device, together they are a track.
    pub pid: u64,
    pub tid: u64,
    /// When it began, in microseconds.
    pub ts: Option<f64>,
    /// How long it took, in microseconds.
    pub dur: Option<f64>,
    #[serde(borrow)]
    pub args: Arguments<'a>,
}

/// An event's further properties.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Arguments<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// The number of a pipeline; 0 is the queue of a device's calls.
    pub pipeline: Option<u64>,
    pub slot: Option<u64>,
    pub bytes: Option<u64>,
}

/// Reads the trace in the file `path` and passes each event to `take`.
///
/// # Errors
/// A file that cannot be read or is no trace; an error of `take`.
pub fn read(path: &Path, take: impl FnMut(Event) -> Result<(), Failure>) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        ErrorKind::OutOfMemory => {
            memory::lacking(path.display(), std::fs::metadata(path).map_or(0, |facts| facts.len() as usize))
        }
        _ => Failure::Input(format!("{}: {error}", path.display())),
    })?;
    // The parser copies texts with escapes into memory that it allocates without a check.
    if text.contains('\\') {
        memory::check(path.display(), text.len().saturating_mul(2))?;
    }
    parse(&text, take).map_err(|failure| failure.at(path.display()))
}

/// As [`read`], for a text. Failures do not name a file.
pub fn parse(text: &str, mut take: impl FnMut(Event) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut reader = EventReader { take: &mut take, failure: None, found: false };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let result = Document(&mut reader).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (reader.failure, result) {
        (Some(failure), _) => Err(failure),
        (None, Err(error)) => Err(Failure::Input(error.to_string())),
        (None, Ok(())) if !reader.found => {
            Err(Failure::Input("not a trace: it has no traceEvents".to_owned()))
        }
        (None, Ok(())) => Ok(()),
    }
}

struct EventReader<'f> {
    take: &'f mut dyn FnMut(Event) -> Result<(), Failure>,
    failure: Option<Failure>,
    found: bool,
}

/// The object with the events in it.
struct Document<'r, 'f>(&'r mut EventReader<'f>);

impl<'de> DeserializeSeed<'de> for Document<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a trace")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<str>>()? {
            if key == "traceEvents" {
                map.next_value_seed(Events(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The array of events.
struct Events<'r, 'f>(&'r mut EventReader<'f>);

impl<'de> DeserializeSeed<'de> for Events<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Events<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array of events")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut events: A) -> Result<(), A::Error> {
        self.0.found = true;
        while let Some(event) = events.next_element::<Event>()? {
            if let Err(failure) = (self.0.take)(event) {
                self.0.failure = Some(failure);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<String>, String> {
        let mut names = vec![];
        let taken = parse(text, |event| {
            names.push(format!("{} {} {:?}", event.kind, event.name, event.args.slot));
            Ok(())
        });
        taken.map(|()| names).map_err(|failure| failure.to_string())
    }

    #[test]
    fn events_come_one_by_one_and_other_content_is_skipped() {
        let text = r#"{"other":{"traceEvents":[1]},"traceEvents":[
            {"ph":"X","name":"a \"b\"","args":{"slot":3,"more":[{}]},"bind":["x"]},{}],"end":null}"#;
        assert_eq!(names(text).unwrap(), ["X a \"b\" Some(3)", "  None"]);
    }

    #[test]
    fn other_files_are_refused() {
        for text in [
            "",
            "{",
            "[]",
            "{\"traceEvents\":{}}",
            "{\"traceEvents\":[1]}",
            "{\"traceEvents\":[{\"ph\":1}]}",
            "{} {}",
        ] {
            assert!(names(text).is_err(), "{text}");
        }
        assert_eq!(names("{}").unwrap_err(), "not a trace: it has no traceEvents");
    }

    #[test]
    fn a_reader_may_refuse() {
        let mut seen = 0;
        let refused = parse(r#"{"traceEvents":[{},{},{}]}"#, |_| {
            seen += 1;
            if seen < 2 { Ok(()) } else { Err(Failure::Input("enough".to_owned())) }
        });
        assert_eq!((refused.unwrap_err().to_string(), seen), ("enough".to_owned(), 2));
    }
}
