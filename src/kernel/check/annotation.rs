//! The attributes of `!@kernel` and `!@epilogue`.

use crate::kernel::diagnostics::{Code as Message, Diagnostic, Sink, suggestion};
use crate::kernel::span::Span;
use crate::kernel::syntax::{Annotation, Attribute, AttributeValue};
use crate::kernel::tree::{Contract, LocalSize};

/// The most points of a workgroup: OpenGL guarantees 1024, OpenGL ES 128.
pub(super) const MAX_LOCAL_SIZE: u64 = 1024;

/// The largest local size of an axis. OpenGL guarantees 1024, 1024 and 64.
const MAX_AXIS: [i64; 3] = [1024, 1024, 64];

/// The points of a workgroup where the source says nothing.
const DEFAULTS: [[u32; 3]; 3] = [[64, 1, 1], [8, 8, 1], [4, 4, 4]];

const KERNEL: [&str; 9] =
    ["local_size_x", "local_size_y", "local_size_z", "local_size", "dims", "base", "contract", "in", "out"];

/// What an annotation says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub dims: usize,
    pub base: i32,
    pub local_size: LocalSize,
    /// The attribute that gives the local size.
    pub local_size_span: Option<Span>,
    pub contract: Contract,
    pub inputs: Option<u32>,
    pub outputs: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            dims: 1,
            base: 0,
            local_size: LocalSize::Fixed(DEFAULTS[0]),
            local_size_span: None,
            contract: Contract::Fast,
            inputs: None,
            outputs: None,
        }
    }
}

/// What has been read of an annotation.
#[derive(Default)]
struct Reader<'s> {
    axes: [Option<u32>; 3],
    all: Option<LocalSize>,
    dims: Option<usize>,
    seen: Vec<(&'static str, Span)>,
    settings: Settings,
    sink: Option<&'s mut Sink>,
}

impl Reader<'_> {
    fn add(&mut self, diagnostic: Diagnostic) {
        if let Some(sink) = self.sink.as_mut() {
            sink.add(diagnostic);
        }
    }

    fn value(&mut self, attribute: &Attribute<'_>, expected: &str) {
        let message = format!("`{}` must be {expected}", attribute.name.text);
        self.add(Diagnostic::new(Message::AttributeValue, attribute.span, message));
    }

    fn integer(&mut self, attribute: &Attribute<'_>, least: i64, most: i64) -> Option<i64> {
        if let [AttributeValue::Integer(value)] = attribute.values[..]
            && (least..=most).contains(&value)
        {
            return Some(value);
        }
        self.value(attribute, &format!("a number from {least} to {most}"));
        None
    }

    fn sizes(&mut self, attribute: &Attribute<'_>) {
        if let [AttributeValue::Word(word)] = attribute.values[..]
            && word.text.eq_ignore_ascii_case("auto")
        {
            self.all = Some(LocalSize::Auto);
            return;
        }
        let mut sizes = [1; 3];
        let valid = (1..=3).contains(&attribute.values.len())
            && attribute.values.iter().enumerate().all(|(axis, value)| match value {
                AttributeValue::Integer(value) => {
                    sizes[axis] = *value as u32;
                    (1..=MAX_AXIS[axis]).contains(value)
                }
                AttributeValue::Word(_) => false,
            });
        if valid {
            self.all = Some(LocalSize::Fixed(sizes));
        } else {
            self.value(attribute, "`auto` or [x, y, z] with sizes of at least 1, at most [1024, 1024, 64]");
        }
    }

    fn attribute(&mut self, attribute: &Attribute<'_>, known: &[&'static str]) {
        let name = attribute.name;
        let Some(&word) = known.iter().find(|it| it.eq_ignore_ascii_case(name.text)) else {
            let message = format!("`{}` is not an attribute", name.text);
            let diagnostic = Diagnostic::new(Message::UnknownAttribute, name.span, message);
            let help = match suggestion(name.text, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the attributes are {}", known.join(", ")),
            };
            return self.add(diagnostic.help(help));
        };
        if let Some((_, first)) = self.seen.iter().find(|(it, _)| *it == word) {
            let message = format!("`{word}` is given twice");
            let diagnostic = Diagnostic::new(Message::RepeatedAttribute, attribute.span, message);
            let diagnostic = diagnostic.second(*first, "the first");
            return self.add(diagnostic);
        }
        self.seen.push((word, attribute.span));
        match word {
            "local_size_x" | "local_size_y" | "local_size_z" => {
                let axis = usize::from(word.as_bytes()[11] - b'x');
                self.settings.local_size_span = Some(attribute.span);
                self.axes[axis] = self.integer(attribute, 1, MAX_AXIS[axis]).map(|value| value as u32);
            }
            "local_size" => {
                self.settings.local_size_span = Some(attribute.span);
                self.sizes(attribute);
            }
            "dims" => self.dims = self.integer(attribute, 1, 3).map(|value| value as usize),
            "base" => self.settings.base = self.integer(attribute, 0, 1).unwrap_or(0) as i32,
            "in" => self.settings.inputs = self.integer(attribute, 0, 1000).map(|value| value as u32),
            "out" => self.settings.outputs = self.integer(attribute, 0, 1000).map(|value| value as u32),
            _ => match attribute.values[..] {
                [AttributeValue::Word(word)] if word.text.eq_ignore_ascii_case("fast") => {
                    self.settings.contract = Contract::Fast;
                }
                [AttributeValue::Word(word)] if word.text.eq_ignore_ascii_case("off") => {
                    self.settings.contract = Contract::Off;
                }
                _ => self.value(attribute, "`fast` or `off`"),
            },
        }
    }
}

/// Reads the attributes of an annotation.
pub(super) fn settings(annotation: &Annotation<'_>, sink: &mut Sink) -> Settings {
    let mut reader = Reader { sink: Some(sink), ..Reader::default() };
    let known: &[&'static str] = if annotation.is_epilogue { &["base", "contract"] } else { &KERNEL };
    for attribute in &annotation.attributes {
        reader.attribute(attribute, known);
    }
    let has_axes = reader.axes.iter().any(Option::is_some);
    if let (Some(span), true, true) = (reader.settings.local_size_span, has_axes, reader.all.is_some()) {
        let message = "`local_size` and `local_size_x`, `_y` or `_z` contradict each other";
        reader.add(Diagnostic::new(Message::RepeatedAttribute, span, message));
    }
    let given = match (has_axes, reader.all) {
        (true, _) => Some(LocalSize::Fixed(reader.axes.map(|size| size.unwrap_or(1)))),
        (false, all) => all,
    };
    let implied = match given {
        Some(LocalSize::Fixed([_, _, z])) if z > 1 => 3,
        Some(LocalSize::Fixed([_, y, _])) if y > 1 => 2,
        _ => 1,
    };
    let dims = reader.dims.unwrap_or(implied);
    let local_size = given.unwrap_or(LocalSize::Fixed(DEFAULTS[dims - 1]));
    if let LocalSize::Fixed(size) = local_size {
        let points: u64 = size.iter().map(|size| u64::from(*size)).product();
        if points > MAX_LOCAL_SIZE {
            let span = reader.settings.local_size_span.unwrap_or(annotation.span);
            let message = format!("a workgroup has {points} points; the limit is {MAX_LOCAL_SIZE}");
            reader.add(Diagnostic::new(Message::LocalSize, span, message));
        }
    }
    Settings { dims, local_size, ..reader.settings }
}
