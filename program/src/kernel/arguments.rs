//! The arguments of a launch from the command line: `NAME=VALUE` and `NAME=FILE.npy`.

use std::path::{Path, PathBuf};

use sparkle::kernel::bind::passed;
use sparkle::kernel::describe;
use sparkle::kernel::tree::{self, Argument, ArgumentKind, Buffer, BufferShape, Intent, Type, Value};
use sparkle::problem::exact::Random;
use sparkle::{Arg, Kernel};

use crate::failure::Failure;
use crate::memory;
use crate::npy::columns::{self, Logical, Stored};

/// What follows a name on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The name of an argument.
    pub name: String,
    /// A value or a file.
    pub value: String,
}

/// Parses `NAME=VALUE`.
///
/// # Errors
/// Says what is expected.
pub fn given(text: &str) -> Result<Given, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() && !value.is_empty() => {
            Ok(Given { name: name.trim().to_owned(), value: value.to_owned() })
        }
        _ => Err(format!("\"{text}\" is not NAME=VALUE")),
    }
}

/// Parses `N[,M[,K]]`.
///
/// # Errors
/// Says what is expected.
pub fn extents(text: &str) -> Result<Extents, String> {
    let numbers: Result<Vec<usize>, _> = text.split([',', 'x']).map(|it| it.trim().parse()).collect();
    match numbers {
        Ok(numbers) if numbers.len() <= 3 => Ok(Extents(numbers)),
        _ => Err(format!("\"{text}\" is not one to three whole numbers with commas between them")),
    }
}

/// The index space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extents(pub Vec<usize>);

/// The elements of an array, column-major.
#[derive(Debug, PartialEq)]
pub enum Elements {
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Real32(Vec<f32>),
    Real64(Vec<f64>),
    Logical(Vec<i32>),
}

impl Elements {
    fn zeros(ty: Type, len: usize, name: &str) -> Result<Self, Failure> {
        let what = format!("argument {name}");
        Ok(match ty {
            Type::Int32 => Elements::Int32(memory::filled(what, len, 0)?),
            Type::Int64 => Elements::Int64(memory::filled(what, len, 0)?),
            Type::Real32 => Elements::Real32(memory::filled(what, len, 0.0)?),
            Type::Real64 => Elements::Real64(memory::filled(what, len, 0.0)?),
            Type::Logical => Elements::Logical(memory::filled(what, len, 0)?),
        })
    }

    fn copied(&self, name: &str) -> Result<Self, Failure> {
        let what = format!("a copy of argument {name}");
        Ok(match self {
            Elements::Int32(values) => Elements::Int32(memory::copied(what, values)?),
            Elements::Int64(values) => Elements::Int64(memory::copied(what, values)?),
            Elements::Real32(values) => Elements::Real32(memory::copied(what, values)?),
            Elements::Real64(values) => Elements::Real64(memory::copied(what, values)?),
            Elements::Logical(values) => Elements::Logical(memory::copied(what, values)?),
        })
    }

    /// Random reals from -1 to 1. Integers and logicals stay zero, since they may be subscripts.
    fn randomise(&mut self, random: &mut Random) {
        match self {
            Elements::Real32(values) => random.fill_reals(values),
            Elements::Real64(values) => {
                values.iter_mut().for_each(|value| *value = random.reals(1)[0].into());
            }
            _ => {}
        }
    }

    fn read(ty: Type, path: &Path) -> Result<(Vec<usize>, Self), Failure> {
        let name = type_name(ty);
        Ok(match ty {
            Type::Int32 => of(columns::read(path, name)?, Elements::Int32),
            Type::Int64 => of(columns::read(path, name)?, Elements::Int64),
            Type::Real32 => of(columns::read(path, name)?, Elements::Real32),
            Type::Real64 => of(columns::read(path, name)?, Elements::Real64),
            Type::Logical => {
                let (shape, values) = columns::read::<Logical>(path, name)?;
                (shape, Elements::Logical(values.into_iter().map(|it| it.0).collect()))
            }
        })
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Elements::Int32(values) | Elements::Logical(values) => values.len(),
            Elements::Int64(values) => values.len(),
            Elements::Real32(values) => values.len(),
            Elements::Real64(values) => values.len(),
        }
    }

    /// The first element.
    fn first(&self) -> Option<Value> {
        Some(match self {
            Elements::Int32(values) => Value::Int32(*values.first()?),
            Elements::Logical(values) => Value::Logical(*values.first()? != 0),
            Elements::Int64(values) => Value::Int64(*values.first()?),
            Elements::Real32(values) => Value::Real32(*values.first()?),
            Elements::Real64(values) => Value::Real64(*values.first()?),
        })
    }

    fn one(value: Value) -> Self {
        match value {
            Value::Int32(value) => Elements::Int32(vec![value]),
            Value::Int64(value) => Elements::Int64(vec![value]),
            Value::Real32(value) => Elements::Real32(vec![value]),
            Value::Real64(value) => Elements::Real64(vec![value]),
            Value::Logical(value) => Elements::Logical(vec![value.into()]),
        }
    }

    fn arg(&mut self) -> Arg<'_> {
        match self {
            Elements::Int32(values) | Elements::Logical(values) => values.into(),
            Elements::Int64(values) => values.into(),
            Elements::Real32(values) => values.into(),
            Elements::Real64(values) => values.into(),
        }
    }

    /// Writes a file of `shape`.
    ///
    /// # Errors
    /// Those of the file.
    pub fn write(&self, file: &mut dyn std::io::Write, shape: &[usize]) -> std::io::Result<()> {
        match self {
            Elements::Int32(all) => {
                columns::write(file, "<i4", (shape, all), |it, to| to.extend(it.to_le_bytes()))
            }
            Elements::Int64(all) => {
                columns::write(file, "<i8", (shape, all), |it, to| to.extend(it.to_le_bytes()))
            }
            Elements::Real32(all) => {
                columns::write(file, "<f4", (shape, all), |it, to| to.extend(it.to_le_bytes()))
            }
            Elements::Real64(all) => {
                columns::write(file, "<f8", (shape, all), |it, to| to.extend(it.to_le_bytes()))
            }
            Elements::Logical(all) => {
                columns::write(file, "|b1", (shape, all), |it, to| to.push((it != 0).into()))
            }
        }
    }
}

fn of<T>(
    (shape, values): (Vec<usize>, Vec<T>),
    make: impl FnOnce(Vec<T>) -> Elements,
) -> (Vec<usize>, Elements) {
    (shape, make(values))
}

/// A type as NumPy names it.
pub fn type_name(ty: Type) -> &'static str {
    match ty {
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::Real32 => "float32",
        Type::Real64 => "float64",
        Type::Logical => "bool",
    }
}

/// An argument of a launch.
#[derive(Debug, PartialEq)]
pub enum Content {
    Scalar(Value),
    Array { shape: Vec<usize>, elements: Elements },
}

/// An argument of a launch, with its name.
#[derive(Debug)]
pub struct Item {
    /// As declared.
    pub name: String,
    /// Its value.
    pub content: Content,
    /// The file that it comes from.
    pub file: Option<PathBuf>,
    /// Whether the kernel combines all points into it.
    pub is_reduction: bool,
}

impl Item {
    /// The same argument with elements of its own.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn copied(&self) -> Result<Self, Failure> {
        let content = match &self.content {
            Content::Scalar(value) => Content::Scalar(*value),
            Content::Array { shape, elements } => {
                Content::Array { shape: shape.clone(), elements: elements.copied(&self.name)? }
            }
        };
        Ok(Item {
            name: self.name.clone(),
            content,
            file: self.file.clone(),
            is_reduction: self.is_reduction,
        })
    }

    /// The result of a reduction.
    pub fn result(&self) -> Option<Value> {
        match &self.content {
            Content::Array { elements, .. } if self.is_reduction => elements.first(),
            _ => None,
        }
    }
}

/// What arrays contain that no argument is given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Zeros, for those whose contents do not matter; others are an error.
    OnlyWritten,
    /// Random numbers.
    Random,
}

/// The dummies that arguments are passed for.
fn dummies(kernel: &Kernel) -> impl Iterator<Item = &Argument> + Clone {
    passed(kernel.tree())
}

fn wrong(name: &str, what: impl std::fmt::Display) -> Failure {
    Failure::Input(format!("argument {name}: {what}"))
}

/// The dummy with a name: the exact spelling first, then any case.
///
/// # Errors
/// If there is none, or it is an index argument.
pub fn dummy<'k>(kernel: &'k Kernel, name: &str) -> Result<&'k Argument, Failure> {
    let all = &kernel.tree().arguments;
    let found = all.iter().find(|it| it.name == name);
    match found.or_else(|| all.iter().find(|it| it.name.eq_ignore_ascii_case(name))) {
        Some(it) if matches!(it.kind, ArgumentKind::Index(_)) => {
            Err(wrong(name, "is an index argument, which the launch itself sets"))
        }
        Some(it) => Ok(it),
        None => {
            let names = dummies(kernel).map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
            let kernel = kernel.name();
            Err(wrong(name, format_args!("is unknown; kernel {kernel} has {names}")))
        }
    }
}

/// A value of the command line for each dummy, in their order.
///
/// # Errors
/// For an unknown name, and one that is given twice.
pub fn by_dummy<'g>(kernel: &Kernel, all: &'g [Given]) -> Result<Vec<Option<&'g str>>, Failure> {
    let mut found = vec![None; dummies(kernel).count()];
    for given in all {
        let name = &dummy(kernel, &given.name)?.name;
        let place = dummies(kernel).zip(&mut found).find(|(it, _)| it.name == *name).map(|(_, place)| place);
        if let Some(place) = place
            && place.replace(given.value.as_str()).is_some()
        {
            return Err(wrong(name, "is given twice"));
        }
    }
    Ok(found)
}

/// A number as Fortran or other programs write it.
fn value(ty: Type, text: &str) -> Option<Value> {
    let text = text.trim();
    let real = || text.to_ascii_lowercase().replace('d', "e");
    Some(match ty {
        Type::Int32 => Value::Int32(text.parse().ok()?),
        Type::Int64 => Value::Int64(text.parse().ok()?),
        Type::Real32 => Value::Real32(real().parse().ok()?),
        Type::Real64 => Value::Real64(real().parse().ok()?),
        Type::Logical => match text.to_ascii_lowercase().as_str() {
            "true" | ".true." => Value::Logical(true),
            "false" | ".false." => Value::Logical(false),
            _ => return None,
        },
    })
}

fn is_file(text: &str) -> bool {
    text.to_ascii_lowercase().ends_with(".npy")
}

/// A single value, from text or from a file with one element.
fn single(argument: &Argument, text: &str) -> Result<Value, Failure> {
    let (name, ty) = (argument.name.as_str(), argument.ty);
    if !is_file(text) {
        let parsed = value(ty, text);
        let expected = || wrong(name, format_args!("\"{text}\" is no {}", ty.fortran()));
        return match parsed {
            Some(Value::Real32(it)) if it.is_infinite() && !text.to_ascii_lowercase().contains("inf") => {
                Err(expected())
            }
            Some(Value::Real64(it)) if it.is_infinite() && !text.to_ascii_lowercase().contains("inf") => {
                Err(expected())
            }
            Some(value) => Ok(value),
            None => Err(expected()),
        };
    }
    let (shape, elements) =
        Elements::read(ty, Path::new(text)).map_err(|it| it.at(format!("argument {name}")))?;
    match (elements.len(), elements.first()) {
        (1, Some(value)) => Ok(value),
        _ => Err(wrong(name, format_args!("{text} has shape {shape:?}; expected a single element"))),
    }
}

/// Whether the values of an array before the launch do not matter.
fn is_only_written(buffer: &Buffer) -> bool {
    match (&buffer.shape, buffer.intent) {
        (BufferShape::Reduction(_), intent) => intent == Intent::Out,
        (_, Intent::Out) => true,
        (_, Intent::InOut) => !buffer.is_read,
        (_, Intent::In) => false,
    }
}

/// The arguments of a launch, in the order of the dummies.
///
/// # Errors
/// Names the argument: one that is missing, unknown, given twice, or of the wrong type or shape.
pub fn items(
    kernel: &Kernel,
    extents: &[usize],
    all: &[Given],
    missing: Missing,
) -> Result<Vec<Item>, Failure> {
    let tree = kernel.tree();
    if extents.len() != tree.dims {
        let (dims, name) = (tree.dims, kernel.name());
        let has = extents.len();
        return Err(Failure::Input(format!(
            "--extent has {has} number(s); kernel {name} has {dims} dimension(s)"
        )));
    }
    let given = by_dummy(kernel, all)?;
    let mut texts = given.into_iter();
    let count = tree.arguments.len();
    let mut world = World { tree, extents, scalars: vec![None; count], lengths: vec![0; count] };
    let mut contents = Vec::new();
    for (position, argument) in tree.arguments.iter().enumerate() {
        if matches!(argument.kind, ArgumentKind::Index(_)) {
            continue;
        }
        let text = texts.next().flatten();
        let content = given_content(argument, text)?;
        match &content {
            Some(Content::Scalar(value)) => world.scalars[position] = Some(*value),
            Some(Content::Array { elements, .. }) => world.lengths[position] = elements.len(),
            None => {
                let may_lack = match (&argument.kind, missing) {
                    (ArgumentKind::Buffer(_), Missing::Random) => true,
                    (ArgumentKind::Buffer(buffer), Missing::OnlyWritten) => is_only_written(buffer),
                    _ => false,
                };
                if !may_lack {
                    let what = match argument.kind {
                        ArgumentKind::Buffer(_) => "FILE.npy",
                        _ => "VALUE",
                    };
                    let name = &argument.name;
                    return Err(wrong(name, format_args!("is missing; give it with --arg {name}={what}")));
                }
            }
        }
        let file = text.filter(|text| is_file(text)).map(PathBuf::from);
        contents.push((position, content, file));
    }
    let mut random = Random::new(19);
    let finish = |(position, content, file): (usize, Option<Content>, Option<PathBuf>)| {
        let argument = &tree.arguments[position];
        let ArgumentKind::Buffer(buffer) = &argument.kind else {
            let content = content.expect("a scalar that is missing is an error");
            return Ok(Item { name: argument.name.clone(), content, file, is_reduction: false });
        };
        let content = match content {
            Some(Content::Array { shape, elements }) => {
                world.check(position, buffer, &shape)?;
                Content::Array { shape, elements }
            }
            _ => {
                let shape = world.declared(position, buffer)?;
                let len = shape.iter().try_fold(1usize, |all, side| all.checked_mul(*side));
                let len = len.ok_or_else(|| wrong(&argument.name, "has too many elements"))?;
                let mut elements = Elements::zeros(argument.ty, len, &argument.name)?;
                if missing == Missing::Random {
                    elements.randomise(&mut random);
                }
                Content::Array { shape, elements }
            }
        };
        let is_reduction = matches!(buffer.shape, BufferShape::Reduction(_));
        Ok(Item { name: argument.name.clone(), content, file, is_reduction })
    };
    contents.into_iter().map(finish).collect()
}

/// What the command line gives for a dummy.
fn given_content(argument: &Argument, text: Option<&str>) -> Result<Option<Content>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let name = &argument.name;
    match &argument.kind {
        ArgumentKind::Buffer(buffer) => match buffer.shape {
            BufferShape::Reduction(_) => {
                let elements = Elements::one(single(argument, text)?);
                Ok(Some(Content::Array { shape: vec![], elements }))
            }
            _ if is_file(text) => {
                let read = Elements::read(argument.ty, Path::new(text));
                let (shape, elements) = read.map_err(|it| it.at(format!("argument {name}")))?;
                Ok(Some(Content::Array { shape, elements }))
            }
            _ => Err(wrong(name, format_args!("is an array, and \"{text}\" is no FILE.npy"))),
        },
        _ => Ok(Some(Content::Scalar(single(argument, text)?))),
    }
}

/// What the shapes of arrays depend on.
struct World<'k> {
    tree: &'k tree::Kernel,
    extents: &'k [usize],
    scalars: Vec<Option<Value>>,
    lengths: Vec<usize>,
}

impl World<'_> {
    fn name(&self, position: usize) -> &str {
        &self.tree.arguments[position].name
    }

    /// The declared sides of an array; nothing for the last one of `(*)`.
    fn sides(&self, position: usize) -> Result<Vec<Option<u64>>, Failure> {
        let (arguments, code) = (&self.tree.arguments, &self.tree.code);
        let sides = describe::extents(arguments, code, position, &self.scalars, &self.lengths);
        sides.map_err(|error| Failure::from(error).at(format_args!("argument {}", self.name(position))))
    }

    /// Checks the shape of a given array.
    fn check(&self, position: usize, buffer: &Buffer, shape: &[usize]) -> Result<(), Failure> {
        let (fits, expected) = match &buffer.shape {
            BufferShape::Reduction(_) => (true, String::new()),
            BufferShape::Element { own } => {
                let points = self.extents.iter().map(|it| *it as u128).product::<u128>();
                let is_row = shape.len() == 1 && (!own || shape[0] as u128 >= points);
                (is_row || shape == self.extents, format!("{:?} or ({points},)", self.extents))
            }
            BufferShape::Array(_) => {
                let sides = self.sides(position)?;
                let same = |(side, has): (&Option<u64>, &usize)| side.is_none_or(|side| side == *has as u64);
                let fits = sides.len() == shape.len() && sides.iter().zip(shape).all(same);
                let text = sides.iter().map(|side| side.map_or("any".to_owned(), |side| side.to_string()));
                (fits, format!("[{}]", text.collect::<Vec<_>>().join(", ")))
            }
        };
        if fits {
            return Ok(());
        }
        Err(wrong(self.name(position), format_args!("has shape {shape:?}; expected {expected}")))
    }

    /// The shape of an array that is not given.
    fn declared(&self, position: usize, buffer: &Buffer) -> Result<Vec<usize>, Failure> {
        let name = self.name(position);
        let open = || wrong(name, format_args!("has no declared size; give it with --arg {name}=FILE.npy"));
        match &buffer.shape {
            BufferShape::Reduction(_) => Ok(vec![]),
            BufferShape::Element { own: true } => Ok(self.extents.to_vec()),
            BufferShape::Element { own: false } => Err(open()),
            BufferShape::Array(dimensions) => {
                let variable = self.tree.arguments[position].variable;
                let is_assumed = dimensions.iter().any(|it| {
                    let operation = it.extent.map(|id| &self.tree.code.expression(id).operation);
                    matches!(operation, Some(tree::Operation::Length(of)) if *of == variable)
                });
                if is_assumed {
                    return Err(open());
                }
                let sides = self.sides(position)?;
                let side = |side: Option<u64>| side.and_then(|it| usize::try_from(it).ok()).ok_or_else(open);
                sides.into_iter().map(side).collect()
            }
        }
    }
}

/// The arguments as the library takes them.
pub fn args(items: &mut [Item]) -> Vec<Arg<'_>> {
    let args = items.iter_mut().map(|item| match &mut item.content {
        Content::Scalar(value) => Arg::scalar(*value),
        Content::Array { elements, .. } => elements.arg(),
    });
    args.collect()
}

/// A value for people.
pub fn text(value: Value) -> String {
    match value {
        Value::Int32(value) => value.to_string(),
        Value::Int64(value) => value.to_string(),
        Value::Real32(value) => Stored::Real32(value).to_string(),
        Value::Real64(value) => Stored::Real64(value).to_string(),
        Value::Logical(value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(given("x=a=b"), Ok(Given { name: "x".into(), value: "a=b".into() }));
        assert!(["x", "=1", "x=", " =1"].iter().all(|text| given(text).is_err()));
        assert_eq!(extents("3, 4x5"), Ok(Extents(vec![3, 4, 5])));
        assert!(["", "1,", "a", "-1", "1,2,3,4"].iter().all(|text| extents(text).is_err()));
        assert_eq!(value(Type::Real64, "-1.5D3"), Some(Value::Real64(-1500.0)));
        assert_eq!(value(Type::Real32, "1"), Some(Value::Real32(1.0)));
        assert_eq!(value(Type::Int32, "-7"), Some(Value::Int32(-7)));
        assert_eq!((value(Type::Int32, "1.0"), value(Type::Int32, "2147483648")), (None, None));
        assert_eq!(value(Type::Int64, "2147483648"), Some(Value::Int64(1 << 31)));
        assert_eq!(
            (value(Type::Logical, ".TRUE."), value(Type::Logical, "1")),
            (Some(Value::Logical(true)), None)
        );
    }
}
