//! The arguments of a launch: checked against the kernel before anything runs.

use std::any::Any;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::allocate;
use crate::error::{Error, Result};

use super::describe;
use super::tree::{Argument, ArgumentKind, Buffer, BufferShape, Intent, Kernel, Type, Unit, Value};

/// The purpose of allocations.
const PURPOSE: &str = "the arguments of a kernel";

/// An argument of a launch: a scalar, or an array or buffer that is borrowed for the launch. Index arguments are not
/// passed.
///
/// Elements of type `i32` serve for integers and for logical values: zero is false, and one is written for true.
#[derive(Debug)]
pub struct Arg<'a> {
    value: ArgValue,
    resident: Option<Resident<'a>>,
    borrowed: PhantomData<&'a mut [u8]>,
}

#[derive(Debug, Clone, Copy)]
enum ArgValue {
    Scalar(Value),
    Array(Elements),
}

/// Memory that lives on a device, as an argument or a part of it.
#[derive(Debug, Clone, Copy)]
pub struct Resident<'a> {
    /// The memory, a value that the engines know.
    pub memory: &'a (dyn Any + Send + Sync),
    /// Where the elements begin in it, in bytes.
    pub offset: usize,
    /// What identifies the engine that it belongs to, and the engine's device.
    pub owner: (usize, &'a str),
}

impl Resident<'_> {
    /// The address of the value, which identifies the memory.
    pub fn identity(&self) -> usize {
        std::ptr::from_ref(self.memory).addr()
    }
}

/// The memory of an array.
#[derive(Debug, Clone, Copy)]
pub struct Elements {
    /// The first element, aligned for its type; dangling if there are none, and if they are not in the host's memory
    /// ([`Launch::resident`]).
    pub address: *mut c_void,
    /// The number of elements.
    pub len: usize,
    /// Their type. In a launch it is `Int32` for logical values, too.
    pub ty: Type,
    /// Whether they may be written.
    pub is_writable: bool,
}

// SAFETY: whoever makes the value of an address promises that the launch may use the memory, from any thread, while
// the `Arg` that it comes from lives (`Arg::array`); slices of numbers can be sent and shared.
unsafe impl Send for Elements {}
// SAFETY: as above.
unsafe impl Sync for Elements {}

impl Elements {
    /// Bytes of all elements.
    pub fn bytes(&self) -> usize {
        self.len * self.ty.bytes()
    }

    fn overlaps(&self, other: &Elements) -> bool {
        let (a, b) = (self.address as usize, other.address as usize);
        self.len > 0
            && other.len > 0
            && a < b.saturating_add(other.bytes())
            && b < a.saturating_add(self.bytes())
    }
}

impl Arg<'_> {
    /// A scalar.
    pub fn scalar(value: Value) -> Self {
        Arg { value: ArgValue::Scalar(value), resident: None, borrowed: PhantomData }
    }

    /// An array of `len` elements at `address`. Elements of type `Logical` are those of `i32`, and only a dummy of type
    /// logical takes them.
    ///
    /// # Safety
    /// While the value lives, and for the lifetime that the caller gives it, the memory is valid for reads of `len`
    /// elements, aligned for them, initialised, and not written by others. If `is_writable`, it is also valid for
    /// writes and not used by others, except that two arguments of one launch may overlap: the launch is then refused.
    /// `len` elements are at most `isize::MAX` bytes.
    pub unsafe fn array(ty: Type, address: *mut c_void, len: usize, is_writable: bool) -> Self {
        let elements = Elements { address, len, ty, is_writable };
        Arg { value: ArgValue::Array(elements), resident: None, borrowed: PhantomData }
    }
}

impl<'a> Arg<'a> {
    /// A range of memory on a device. `address` is that of its first element if the device's memory is the host's.
    ///
    /// # Safety
    /// As [`Arg::array`], if there is an address; the caller of a launch locks the memory for it.
    pub(crate) unsafe fn resident(
        resident: Resident<'a>,
        (address, len): (Option<*mut c_void>, usize),
        ty: Type,
        is_writable: bool,
    ) -> Self {
        let address = address.unwrap_or(std::ptr::NonNull::<u64>::dangling().as_ptr().cast());
        let elements = Elements { address, len, ty, is_writable };
        Arg { value: ArgValue::Array(elements), resident: Some(resident), borrowed: PhantomData }
    }
}

macro_rules! arguments {
    ($($element:ty, $variant:ident);*) => {$(
        impl From<$element> for Arg<'_> {
            fn from(value: $element) -> Self {
                Arg::scalar(Value::$variant(value))
            }
        }

        impl<'a> From<&'a [$element]> for Arg<'a> {
            fn from(elements: &'a [$element]) -> Self {
                let address = elements.as_ptr().cast_mut().cast();
                // SAFETY: the slice is borrowed as long as the value lives, and only for reads.
                unsafe { Arg::array(Type::$variant, address, elements.len(), false) }
            }
        }

        impl<'a> From<&'a mut [$element]> for Arg<'a> {
            fn from(elements: &'a mut [$element]) -> Self {
                let address = elements.as_mut_ptr().cast();
                // SAFETY: the slice is borrowed mutably as long as the value lives.
                unsafe { Arg::array(Type::$variant, address, elements.len(), true) }
            }
        }

        impl<'a> From<&'a Vec<$element>> for Arg<'a> {
            fn from(elements: &'a Vec<$element>) -> Self {
                elements.as_slice().into()
            }
        }

        impl<'a> From<&'a mut Vec<$element>> for Arg<'a> {
            fn from(elements: &'a mut Vec<$element>) -> Self {
                elements.as_mut_slice().into()
            }
        }

        impl<'a, const N: usize> From<&'a [$element; N]> for Arg<'a> {
            fn from(elements: &'a [$element; N]) -> Self {
                elements.as_slice().into()
            }
        }

        impl<'a, const N: usize> From<&'a mut [$element; N]> for Arg<'a> {
            fn from(elements: &'a mut [$element; N]) -> Self {
                elements.as_mut_slice().into()
            }
        }

        impl<'a> From<&'a mut $element> for Arg<'a> {
            /// An array of one element, such as the result of a reduction.
            fn from(element: &'a mut $element) -> Self {
                std::slice::from_mut(element).into()
            }
        }
    )*};
}

arguments!(i32, Int32; i64, Int64; f32, Real32; f64, Real64);

impl From<bool> for Arg<'_> {
    fn from(value: bool) -> Self {
        Arg::scalar(Value::Logical(value))
    }
}

/// A launch whose arguments fit the kernel: what an engine gets. While it lives, the memory of its arrays is borrowed.
///
/// Each array has at least the elements that its shape states, those that are written may be written and overlap no
/// other array, and [`Access::Own`](super::tree::Access::Own) finds an element for every point. Subscripts may still
/// lie outside of an array.
#[derive(Debug)]
pub struct Launch<'a> {
    unit: Arc<Unit>,
    kernel: usize,
    extents: [usize; 3],
    scalars: Vec<Option<Value>>,
    lengths: Vec<usize>,
    buffers: Vec<Elements>,
    /// By slot: the memory of those that live on a device.
    residents: Vec<Option<Resident<'a>>>,
    borrowed: PhantomData<&'a mut [u8]>,
}

fn wrong(kernel: &Kernel, name: &str, given: impl std::fmt::Display, expected: impl Into<String>) -> Error {
    let what = if kernel.is_epilogue { "epilogue argument" } else { "kernel argument" };
    Error::invalid(what, format!("\"{name}\" with {given}"), expected)
}

/// The dummies that programs pass arguments for: all but the index arguments.
pub fn passed(kernel: &Kernel) -> impl Iterator<Item = &Argument> + Clone {
    kernel.arguments.iter().filter(|it| !matches!(it.kind, ArgumentKind::Index(_)))
}

/// Checks the number of arguments of a launch.
///
/// # Errors
/// [`Error::InvalidArgument`].
pub fn check_count(kernel: &Kernel, count: usize) -> Result<()> {
    let dummies = passed(kernel).count();
    let (what, called) = match kernel.is_epilogue {
        true => ("number of epilogue arguments", "epilogue"),
        false => ("number of kernel arguments", "kernel"),
    };
    if count == dummies {
        Ok(())
    } else {
        Err(Error::invalid(what, count, format!("{dummies} for {called} \"{}\"", kernel.name)))
    }
}

impl<'a> Launch<'a> {
    /// Checks a launch of the kernel `unit.kernels[kernel]`. There is an extent for each dimension of its index space,
    /// and an argument for each dummy that is not an index argument, in their order.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the argument: a wrong number of extents or arguments, an extent over
    /// `i32::MAX`, an argument of the wrong type or kind, an array that is too short, one that is written and cannot
    /// be or overlaps another one. [`Error::OutOfMemory`].
    pub fn new(unit: &Arc<Unit>, kernel: usize, extents: &[usize], args: &'a mut [Arg<'_>]) -> Result<Self> {
        let (unit, position) = (unit.clone(), kernel);
        let Some(kernel) = unit.kernels.get(position) else {
            return Err(Error::Internal("a kernel's index is wrong".to_owned()));
        };
        if extents.len() != kernel.dims {
            let expected = format!("{} for kernel \"{}\"", kernel.dims, kernel.name);
            return Err(Error::invalid("number of extents", extents.len(), expected));
        }
        if let Some(extent) = extents.iter().find(|&&extent| i32::try_from(extent).is_err()) {
            return Err(Error::invalid("extent", extent, format!("at most {}", i32::MAX)));
        }
        let mut all = [1; 3];
        all.iter_mut().zip(extents).for_each(|(to, from)| *to = *from);
        check_count(kernel, args.len())?;
        let mut launch = Launch {
            unit: unit.clone(),
            kernel: position,
            extents: all,
            scalars: allocate::with_capacity(kernel.arguments.len(), PURPOSE)?,
            lengths: allocate::with_capacity(kernel.arguments.len(), PURPOSE)?,
            buffers: allocate::with_capacity(args.len(), PURPOSE)?,
            residents: allocate::with_capacity(args.len(), PURPOSE)?,
            borrowed: PhantomData,
        };
        launch.bind(kernel, args)?;
        launch.check_lengths(kernel)?;
        launch.check_overlaps(kernel)?;
        Ok(launch)
    }

    /// Sorts the arguments and checks their types.
    fn bind(&mut self, kernel: &Kernel, args: &'a [Arg<'_>]) -> Result<()> {
        let mut args = args.iter();
        let mut buffers = allocate::with_capacity(args.len(), PURPOSE)?;
        for argument in &kernel.arguments {
            let (mut scalar, mut length) = (None, 0);
            let (name, ty) = (argument.name.as_str(), argument.ty);
            let passed = if matches!(argument.kind, ArgumentKind::Index(_)) { None } else { args.next() };
            match (&argument.kind, passed.map(|arg| arg.value)) {
                (ArgumentKind::Index(_), _) | (_, None) => {}
                (ArgumentKind::Scalar, Some(ArgValue::Scalar(value))) => {
                    if value.ty() != ty {
                        let given = format!("type {}", value.ty().fortran());
                        return Err(wrong(kernel, name, given, ty.fortran()));
                    }
                    scalar = Some(value);
                }
                (ArgumentKind::Scalar, Some(ArgValue::Array(elements))) => {
                    let given = format!("an array of {}", elements.ty.fortran());
                    return Err(wrong(kernel, name, given, format!("a scalar of {}", ty.fortran())));
                }
                (ArgumentKind::Buffer(_), Some(ArgValue::Scalar(value))) => {
                    let given = format!("a scalar of {}", value.ty().fortran());
                    return Err(wrong(kernel, name, given, format!("an array of {}", ty.fortran())));
                }
                (ArgumentKind::Buffer(buffer), Some(ArgValue::Array(mut elements))) => {
                    let stored = if ty == Type::Logical { Type::Int32 } else { ty };
                    if elements.ty != ty && elements.ty != stored {
                        let given = format!("elements of type {}", elements.ty.fortran());
                        return Err(wrong(kernel, name, given, stored.fortran()));
                    }
                    elements.ty = stored;
                    if Self::is_written(buffer) && !elements.is_writable {
                        return Err(wrong(
                            kernel,
                            name,
                            "read-only elements",
                            "elements that may be written",
                        ));
                    }
                    length = elements.len;
                    let resident = passed.and_then(|arg| arg.resident);
                    allocate::push(&mut buffers, (buffer.slot, elements, resident), PURPOSE)?;
                }
            }
            allocate::push(&mut self.scalars, scalar, PURPOSE)?;
            allocate::push(&mut self.lengths, length, PURPOSE)?;
        }
        // Slots follow the declarations, whose order need not be that of the arguments.
        buffers.sort_unstable_by_key(|(slot, ..)| *slot);
        allocate::append(&mut self.residents, buffers.iter().map(|(.., resident)| *resident), PURPOSE)?;
        allocate::append(&mut self.buffers, buffers.into_iter().map(|(_, elements, _)| elements), PURPOSE)
    }

    fn check_lengths(&self, kernel: &Kernel) -> Result<()> {
        for (position, argument) in kernel.arguments.iter().enumerate() {
            let ArgumentKind::Buffer(buffer) = &argument.kind else { continue };
            let len = self.lengths[position];
            let expected = match &buffer.shape {
                BufferShape::Element { own: true } => self.points(),
                BufferShape::Element { own: false } => 0,
                BufferShape::Reduction(_) if len > 1 => {
                    return Err(wrong(kernel, &argument.name, format!("{len} elements"), "1"));
                }
                BufferShape::Reduction(_) => 1,
                BufferShape::Array(_) => {
                    let extents = self.shape(position)?.into_iter().filter_map(|(_, extent)| extent);
                    extents.map(u128::from).fold(1, u128::saturating_mul)
                }
            };
            if (len as u128) < expected {
                let given = format!("{len} elements");
                return Err(wrong(kernel, &argument.name, given, format!("at least {expected}")));
            }
        }
        Ok(())
    }

    fn check_overlaps(&self, kernel: &Kernel) -> Result<()> {
        let buffers = || {
            let named = kernel.arguments.iter().filter_map(|argument| match &argument.kind {
                ArgumentKind::Buffer(buffer) => Some((&argument.name, buffer)),
                _ => None,
            });
            named.filter_map(|(name, buffer)| Some(((name, buffer), self.buffers.get(buffer.slot)?)))
        };
        let overlap = |slot: usize, elements: &Elements, other_slot: usize, others: &Elements| {
            match (self.resident(slot), self.resident(other_slot)) {
                (Some(a), Some(b)) => {
                    let both = elements.len > 0 && others.len > 0;
                    both && a.identity() == b.identity()
                        && a.offset < b.offset + others.bytes()
                        && b.offset < a.offset + elements.bytes()
                }
                (None, None) => elements.overlaps(others),
                // The library gives nobody the addresses of buffers.
                _ => false,
            }
        };
        for (at, ((name, buffer), elements)) in buffers().enumerate() {
            for ((other_name, other), others) in buffers().take(at) {
                let written = Self::is_written(buffer) || Self::is_written(other);
                if written && overlap(buffer.slot, elements, other.slot, others) {
                    let given = format!("memory of \"{other_name}\"");
                    return Err(wrong(
                        kernel,
                        name,
                        given,
                        "arrays that do not overlap where one is written",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether a launch may write a buffer.
    fn is_written(buffer: &Buffer) -> bool {
        buffer.is_written || buffer.intent != Intent::In
    }

    /// The lower bound and the extent of each dimension of the array at a position in [`Kernel::arguments`]. The last
    /// dimension of `(*)` has no extent, a buffer without shape no dimensions.
    ///
    /// # Errors
    /// As [`describe::bounds`].
    pub fn shape(&self, position: usize) -> Result<Vec<(i32, Option<u64>)>> {
        let kernel = self.kernel();
        describe::bounds(&kernel.arguments, &kernel.code, position, &self.scalars, &self.lengths)
    }

    /// The file.
    pub fn unit(&self) -> &Arc<Unit> {
        &self.unit
    }

    /// The kernel.
    pub fn kernel(&self) -> &Kernel {
        &self.unit.kernels[self.kernel]
    }

    /// The index of the kernel in [`Unit::kernels`].
    pub fn kernel_index(&self) -> usize {
        self.kernel
    }

    /// The extents of the index space, each at most `i32::MAX`; 1 for dimensions that it lacks.
    pub fn extents(&self) -> [usize; 3] {
        self.extents
    }

    /// The number of points.
    pub fn points(&self) -> u128 {
        self.extents.iter().map(|&extent| extent as u128).product()
    }

    /// The scalars, each at the position of its argument in [`Kernel::arguments`]; nothing for other arguments.
    pub fn scalars(&self) -> &[Option<Value>] {
        &self.scalars
    }

    /// The lengths of arrays in elements, each at the position of its argument; 0 for other arguments.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// The arrays by slot.
    pub fn buffers(&self) -> &[Elements] {
        &self.buffers
    }

    /// The memory of the array at a slot, if it lives on a device.
    pub fn resident(&self, slot: usize) -> Option<Resident<'a>> {
        self.residents.get(slot).copied().flatten()
    }

    /// Checks that memory on a device belongs to the engine `owner`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the argument.
    pub fn check_owner(&self, owner: (usize, &str)) -> Result<()> {
        for (slot, resident) in self.residents.iter().enumerate() {
            if let Some(Resident { owner: (its, device), .. }) = resident
                && *its != owner.0
            {
                let expected = format!("the host's memory, or a buffer of the opened {}", owner.1);
                return Err(wrong(self.kernel(), self.name(slot), format!("a buffer of {device}"), expected));
            }
        }
        Ok(())
    }

    /// Checks that the arrays of an epilogue share no memory with the output that it is applied to: `bytes` bytes at
    /// `address`, or memory on a device, by its identity and the offset of its first byte.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the argument.
    pub fn check_output(
        &self,
        (address, bytes): (usize, usize),
        resident: Option<(usize, usize)>,
    ) -> Result<()> {
        let apart = |start: usize, len: usize, other: usize| {
            len == 0
                || bytes == 0
                || start >= other.saturating_add(bytes)
                || other >= start.saturating_add(len)
        };
        for (slot, elements) in self.buffers.iter().enumerate() {
            let is_apart = match (self.resident(slot), resident) {
                (Some(it), Some((identity, offset))) => {
                    it.identity() != identity || apart(it.offset, elements.bytes(), offset)
                }
                (None, None) => apart(elements.address as usize, elements.bytes(), address),
                // The library gives nobody the addresses of buffers.
                _ => true,
            };
            if !is_apart {
                return Err(wrong(
                    self.kernel(),
                    self.name(slot),
                    "memory of the output",
                    "memory of its own",
                ));
            }
        }
        Ok(())
    }

    /// The name of the argument at a slot.
    pub fn name(&self, slot: usize) -> &str {
        self.buffer(slot).map_or("", |(position, _)| &self.kernel().arguments[position].name)
    }

    /// Whether a launch may write the array at a slot, so that a copy of it must go back.
    pub fn writes(&self, slot: usize) -> bool {
        self.buffer(slot).is_some_and(|(_, buffer)| Self::is_written(buffer))
    }

    /// Whether the contents that the array at a slot has before the launch matter to the launch's results. They do not
    /// if it has `intent(out)` and every element is written.
    pub fn reads(&self, slot: usize) -> bool {
        let Some((position, buffer)) = self.buffer(slot) else { return true };
        if buffer.intent != Intent::Out || buffer.is_read || !buffer.written_by_every_point {
            return !matches!((&buffer.shape, buffer.intent), (BufferShape::Reduction(_), Intent::Out));
        }
        let len = self.lengths[position] as u128;
        if len != self.points() {
            return true;
        }
        match self.shape(position) {
            Ok(shape) => !shape
                .iter()
                .zip(self.extents)
                .all(|((_, it), extent)| it.is_none_or(|it| it == extent as u64)),
            Err(_) => true,
        }
    }

    fn buffer(&self, slot: usize) -> Option<(usize, &Buffer)> {
        let all = self.kernel().arguments.iter().enumerate();
        let mut buffers = all.filter_map(|(position, argument)| match &argument.kind {
            ArgumentKind::Buffer(buffer) => Some((position, buffer)),
            _ => None,
        });
        buffers.find(|(_, buffer)| buffer.slot == slot)
    }
}
