//! A transport between ranks that C provides.

use std::collections::HashMap;
use std::ffi::{c_char, c_void};

use super::pointer::{self, Growing};
use super::status::{Failure, Outcome};
use crate::allocate;
use crate::error::{Error, Result};
use crate::ranks::{Exchange, Message, Started, Transport};

/// A message to or from another rank.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_message {
    /// The data; only read if the message is sent.
    pub data: *mut f32,
    /// How many floats; they may be more than an int counts.
    pub len: usize,
    /// The other rank.
    pub rank: i32,
    /// Tells messages of one pair of ranks apart; 0 to 99.
    pub tag: i32,
}

/// Starts to send and to receive messages, and does not wait. The arrays are valid during the call only; the data stays
/// valid and in place until `finish` returns for `*out_request`. Returns 0 or an error code.
pub type sparkle_transport_start = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        sends: *const sparkle_message,
        send_count: usize,
        receives: *const sparkle_message,
        receive_count: usize,
        out_request: *mut *mut c_void,
    ) -> i32,
>;

/// Waits until the messages of a request have been sent and received, and frees it. Returns 0 or an error code.
pub type sparkle_transport_finish =
    Option<unsafe extern "C" fn(user: *mut c_void, request: *mut c_void) -> i32>;

/// Lets messages go on without waiting for them. Returns 0 or an error code.
pub type sparkle_transport_progress = Option<unsafe extern "C" fn(user: *mut c_void) -> i32>;

/// Copies `data` of rank `root` to `data` of all ranks. Returns 0 or an error code.
pub type sparkle_transport_broadcast =
    Option<unsafe extern "C" fn(user: *mut c_void, root: i32, data: *mut f32, len: usize) -> i32>;

/// Replaces each of `count` values by its largest value on all ranks. Returns 0 or an error code.
pub type sparkle_transport_agree =
    Option<unsafe extern "C" fn(user: *mut c_void, values: *mut i64, count: usize) -> i32>;

/// Writes what an error code means to `text`, which holds `capacity` bytes, and ends it with a NUL.
pub type sparkle_transport_describe =
    Option<unsafe extern "C" fn(user: *mut c_void, code: i32, text: *mut c_char, capacity: usize)>;

/// Frees what belongs to `user`.
pub type sparkle_transport_release = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// How the ranks of a group reach each other. libsparkle contains no MPI: sparkle_mpi.c, which is installed as source,
/// fills this for a communicator of MPI.
///
/// The functions are called on the thread that calls the group, never two at once, and must return normally: no longjmp,
/// no C++ exception. Messages between two ranks that have the same tag arrive in the order in which both ranks start
/// them. `broadcast` and `agree` are called by all ranks in the same order.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_transport {
    /// sizeof(sparkle_transport), set by the caller.
    pub size: usize,
    /// Passed to each function.
    pub user: *mut c_void,
    /// This rank, from 0.
    pub rank: i32,
    /// The number of ranks.
    pub ranks: i32,
    /// Required.
    pub start: sparkle_transport_start,
    /// Required.
    pub finish: sparkle_transport_finish,
    /// May be NULL.
    pub progress: sparkle_transport_progress,
    /// Required.
    pub broadcast: sparkle_transport_broadcast,
    /// Required.
    pub agree: sparkle_transport_agree,
    /// May be NULL; errors are then known by their code.
    pub describe: sparkle_transport_describe,
    /// May be NULL. Called once, when the group and its plans are gone.
    pub release: sparkle_transport_release,
}

// SAFETY: repr(C), numbers, pointers and functions that may be NULL, size first.
unsafe impl Growing for sparkle_transport {
    const NAME: &'static str = "sparkle_transport";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, release) + size_of::<sparkle_transport_release>();
}

/// C's transport, with the messages that are under way.
pub(super) struct CTransport {
    functions: sparkle_transport,
    under_way: HashMap<u64, (Exchange, *mut c_void)>,
    next: u64,
    /// Memory for the messages of a start.
    sends: Vec<sparkle_message>,
    receives: Vec<sparkle_message>,
}

// SAFETY: the library passes the pointers to C's functions and does not dereference them; a group calls them on one thread at a
// time.
unsafe impl Send for CTransport {}

impl CTransport {
    /// The transport of C's struct.
    ///
    /// # Safety
    /// C's promise for the struct: its functions can be called with its `user`.
    pub(super) unsafe fn new(transport: *const sparkle_transport) -> Outcome<Self> {
        // SAFETY: as promised.
        let functions = unsafe { pointer::read_struct(transport)? };
        let missing = [
            ("transport.start", functions.start.is_none()),
            ("transport.finish", functions.finish.is_none()),
            ("transport.broadcast", functions.broadcast.is_none()),
            ("transport.agree", functions.agree.is_none()),
        ];
        if let Some((name, _)) = missing.into_iter().find(|(_, missing)| *missing) {
            return Err(Failure::null(name));
        }
        if functions.ranks < 1 {
            return Err(Error::invalid("transport.ranks", functions.ranks, "at least 1").into());
        }
        if functions.rank < 0 || functions.rank >= functions.ranks {
            let expected = format!("0 to {}", functions.ranks - 1);
            return Err(Error::invalid("transport.rank", functions.rank, expected).into());
        }
        let under_way = HashMap::new();
        Ok(CTransport { functions, under_way, next: 0, sends: vec![], receives: vec![] })
    }

    /// The error for a code of a function.
    fn check(&self, call: &str, code: i32) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let mut reason = format!("code {code}");
        if let Some(describe) = self.functions.describe {
            let mut text = [0u8; 512];
            // SAFETY: C's promise for the function; `text` is writable with this length.
            unsafe { describe(self.functions.user, code, text.as_mut_ptr().cast(), text.len()) };
            let described = text.split(|&byte| byte == 0).next().unwrap_or_default();
            if !described.is_empty() {
                reason = format!("{} ({reason})", String::from_utf8_lossy(described));
            }
        }
        Err(Error::Transport { call: call.to_owned(), reason })
    }
}

fn missing(call: &str) -> Error {
    Error::Internal(format!("the transport has no {call}"))
}

/// What the arrays of messages are for.
const MESSAGES: &str = "messages";

/// Writes messages as C sees them to `to`.
fn for_c(messages: &mut [Message], to: &mut Vec<sparkle_message>) -> Result<()> {
    let message = |message: &mut Message| sparkle_message {
        data: message.data.as_mut_ptr(),
        len: message.data.len(),
        rank: message.rank as i32,
        tag: message.tag as i32,
    };
    to.clear();
    allocate::append(to, messages.iter_mut().map(message), MESSAGES)
}

impl Transport for CTransport {
    fn rank(&self) -> usize {
        self.functions.rank as usize
    }

    fn ranks(&self) -> usize {
        self.functions.ranks as usize
    }

    fn prepare(&mut self, sends: usize, receives: usize) -> Result<()> {
        for (array, len) in [(&mut self.sends, sends), (&mut self.receives, receives)] {
            array.clear();
            allocate::reserve(array, len, MESSAGES)?;
        }
        allocate::reserve_one(&mut self.under_way, "messages under way")
    }

    fn start(&mut self, mut exchange: Exchange) -> Result<Started> {
        let start = self.functions.start.ok_or_else(|| missing("start"))?;
        for_c(&mut exchange.sends, &mut self.sends)?;
        for_c(&mut exchange.receives, &mut self.receives)?;
        let mut request = std::ptr::null_mut();
        // SAFETY: C's promise for the function. The arrays do not change until it returns; the data is kept in `under_way`
        // until the request has finished, and for ever if this fails.
        let code = unsafe {
            start(
                self.functions.user,
                self.sends.as_ptr(),
                self.sends.len(),
                self.receives.as_ptr(),
                self.receives.len(),
                &mut request,
            )
        };
        if let Err(error) = self.check("start", code) {
            // Some messages may be under way.
            std::mem::forget(exchange);
            return Err(error);
        }
        self.next += 1;
        self.under_way.insert(self.next, (exchange, request));
        Ok(Started(self.next))
    }

    fn finish(&mut self, started: Started) -> Result<Exchange> {
        let finish = self.functions.finish.ok_or_else(|| missing("finish"))?;
        let unknown = || Error::Internal("an exchange that was not started".to_owned());
        let (exchange, request) = self.under_way.remove(&started.0).ok_or_else(unknown)?;
        // SAFETY: C's promise for the function; `start` returned the request, and it is finished once.
        let code = unsafe { finish(self.functions.user, request) };
        match self.check("finish", code) {
            Ok(()) => Ok(exchange),
            Err(error) => {
                // Some messages may still be under way.
                std::mem::forget(exchange);
                Err(error)
            }
        }
    }

    fn progress(&mut self) -> Result<()> {
        let Some(progress) = self.functions.progress else { return Ok(()) };
        // SAFETY: C's promise for the function.
        let code = unsafe { progress(self.functions.user) };
        self.check("progress", code)
    }

    fn broadcast(&mut self, root: usize, data: &mut [f32]) -> Result<()> {
        let broadcast = self.functions.broadcast.ok_or_else(|| missing("broadcast"))?;
        // SAFETY: C's promise for the function; `data` is writable with this length.
        let code = unsafe { broadcast(self.functions.user, root as i32, data.as_mut_ptr(), data.len()) };
        self.check("broadcast", code)
    }

    fn agree(&mut self, values: &mut [i64]) -> Result<()> {
        let agree = self.functions.agree.ok_or_else(|| missing("agree"))?;
        // SAFETY: C's promise for the function; `values` is writable with this length.
        let code = unsafe { agree(self.functions.user, values.as_mut_ptr(), values.len()) };
        self.check("agree", code)
    }
}

impl Drop for CTransport {
    fn drop(&mut self) {
        // Messages that nobody waited for, after an error, may still be under way.
        self.under_way.drain().for_each(|(_, (exchange, _))| std::mem::forget(exchange));
        if let Some(release) = self.functions.release {
            // SAFETY: C's promise for the function; nothing uses `user` afterwards.
            unsafe { release(self.functions.user) };
        }
    }
}
