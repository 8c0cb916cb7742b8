//! The loops over lanes. They are plain loops that the compiler vectorises, once for each instruction set
//! ([`super::isa`]).

/// Lanes that are read, computed and written together. Blocks are multiples of it.
pub const CHUNK: usize = 16;

/// An operation of a program: the result, up to three operands, and the number of lanes, a multiple of [`CHUNK`].
///
/// Operands and result may be the same memory, and each lane of a result depends on that lane of the operands alone.
/// Chunks are read before they are written.
pub type Function = unsafe fn(to: *mut u8, a: *const u8, b: *const u8, c: *const u8, lanes: usize);

/// What an operation computes in a lane. Operands that it lacks are `()`.
pub trait Lanewise {
    type A: Copy;
    type B: Copy;
    type C: Copy;
    type R: Copy + Default;
    fn apply(a: Self::A, b: Self::B, c: Self::C) -> Self::R;
}

/// Computes all lanes.
///
/// # Safety
/// The result is valid for writes, and the operands for reads, of `lanes` elements of the operation's types.
#[inline(always)]
pub unsafe fn chunks<O: Lanewise>(to: *mut u8, a: *const u8, b: *const u8, c: *const u8, lanes: usize) {
    let (to, a, b, c) = (to.cast::<O::R>(), a.cast::<O::A>(), b.cast::<O::B>(), c.cast::<O::C>());
    let mut lane = 0;
    while lane < lanes {
        // SAFETY: `lanes` is a multiple of a chunk, and the caller vouches for so many elements.
        unsafe {
            let a = a.add(lane).cast::<[O::A; CHUNK]>().read();
            let b = b.add(lane).cast::<[O::B; CHUNK]>().read();
            let c = c.add(lane).cast::<[O::C; CHUNK]>().read();
            let mut results = [O::R::default(); CHUNK];
            for (at, result) in results.iter_mut().enumerate() {
                *result = O::apply(a[at], b[at], c[at]);
            }
            to.add(lane).cast::<[O::R; CHUNK]>().write(results);
        }
        lane += CHUNK;
    }
}

/// As [`chunks`], where `a` is the same in all lanes.
///
/// # Safety
/// As [`chunks`]; the first chunk of `a` holds its value.
#[inline(always)]
pub unsafe fn chunks_with<O: Lanewise>(to: *mut u8, a: *const u8, b: *const u8, c: *const u8, lanes: usize) {
    let (to, b, c) = (to.cast::<O::R>(), b.cast::<O::B>(), c.cast::<O::C>());
    // SAFETY: the caller vouches for it.
    let a = unsafe { a.cast::<O::A>().read() };
    let mut lane = 0;
    while lane < lanes {
        // SAFETY: as in `chunks`.
        unsafe {
            let b = b.add(lane).cast::<[O::B; CHUNK]>().read();
            let c = c.add(lane).cast::<[O::C; CHUNK]>().read();
            let mut results = [O::R::default(); CHUNK];
            for (at, result) in results.iter_mut().enumerate() {
                *result = O::apply(a, b[at], c[at]);
            }
            to.add(lane).cast::<[O::R; CHUNK]>().write(results);
        }
        lane += CHUNK;
    }
}

/// Computes the lanes of the mask `c` one by one: for functions that no vector instruction computes.
///
/// # Safety
/// As [`chunks`]; `c` is a mask.
#[inline(always)]
pub unsafe fn each<O: Lanewise<C = ()>>(to: *mut u8, a: *const u8, b: *const u8, c: *const u8, lanes: usize) {
    let (to, a, b, mask) = (to.cast::<O::R>(), a.cast::<O::A>(), b.cast::<O::B>(), c.cast::<i32>());
    for lane in 0..lanes {
        // SAFETY: the caller vouches for so many elements.
        unsafe {
            if *mask.add(lane) != 0 {
                to.add(lane).write(O::apply(*a.add(lane), *b.add(lane), ()));
            }
        }
    }
}

/// Whether no lane is in a mask.
///
/// # Safety
/// The mask is valid for reads of `lanes` elements, a multiple of [`CHUNK`].
pub unsafe fn is_none(mask: *const i32, lanes: usize) -> bool {
    let mut chunks = (0..lanes).step_by(CHUNK);
    chunks.all(|lane| {
        // SAFETY: the caller vouches for the mask.
        let values = unsafe { mask.add(lane).cast::<[i32; CHUNK]>().read() };
        values.iter().fold(0, |some, it| some | it) == 0
    })
}

/// Whether all lanes are in a mask.
///
/// # Safety
/// As [`is_none`].
pub unsafe fn is_all(mask: *const i32, lanes: usize) -> bool {
    let mut chunks = (0..lanes).step_by(CHUNK);
    chunks.all(|lane| {
        // SAFETY: the caller vouches for the mask.
        let values = unsafe { mask.add(lane).cast::<[i32; CHUNK]>().read() };
        values.iter().fold(-1, |all, it| all & it) == -1
    })
}

/// A logical value of a register.
#[inline(always)]
pub fn mask(value: bool) -> i32 {
    -i32::from(value)
}
