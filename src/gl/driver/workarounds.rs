//! What drivers do that no document says, where it was seen, and what is done about it.
//!
//! | driver | what it does | seen | what is done |
//! | --- | --- | --- | --- |
//! | NVIDIA 580 | `glWaitSync` keeps the calling thread until the fence has signalled | streams of small jobs, `benchmarks/contexts` | `device/contexts.rs` measures which order of stages is faster |
//! | NVIDIA 580 | of two copy engines, contexts get one by the parity of large copies since the last rest | 500 streams of a bare program, `benchmarks/contexts` | `pipeline/copy_engines.rs` adds a copy where the count is even |
//! | NVIDIA 580 | a timestamp at the head of a queue blocks kernels of other contexts | copies and kernels took turns, `benchmarks/contexts` | `pipeline/command_stream.rs` stamps no copies in contexts of their own |
//! | NVIDIA 580 | a copy from a buffer that another context uses blocks the thread while a kernel runs | traces of streams | `pipeline/stages.rs` submits waiting kernels first |
//! | some | a program's binary is complete only after its first run | second starts compiled again | `execution/programs.rs` stores binaries once more after a run |
//! | some | deleting a program blocks while it compiles | the tuner's budget was exceeded | `execution/programs.rs` keeps abandoned programs until they are ready |
//! | some | the compiler rewrites `?:`, `if` and `mix` to `max`, which loses NaN | ReLU of NaN gave 0 | `glsl/numbers.glsl` tests the bits |
//! | some | at exit, memory mapped by GL disappears while threads copy | crashes of processes that end in mid-stream | [`exit`](super::exit) counts copies and waits for them |
//! | Mesa 22.3 | a context forgets its shader when another context deletes a shared program | crashes with debug symbols, `tests/c/mixed.c` | [`forgotten`](super::forgotten): a rebind and a lock |
//! | Mesa llvmpipe | all loops of an invocation end after 65,535 iterations, without an error | wrong sums, found by counting | `measure/iterations.rs` probes the limit; `shader/iterations.rs` cuts sums below it |
//! | any | an idle GPU runs at a fraction of its clock | factors of five in first timings | [`tunables::WARM_UP`](crate::gl::tunables::WARM_UP) |
//! | any | `eglTerminate` by other code ends all contexts of a display | `tests/c/terminate.c` | [`context`](super::context) makes a new one and tries again |
//! | any | clocks of timestamp queries stand still, run backwards or count in other units | tests with invented clocks | `execution/budget.rs` believes them only as far as the host's clock allows |

use std::time::Duration;

/// Bytes of a copy that NVIDIA's driver counts when it gives contexts their copy engines: 512 KiB do, 256 KiB do not.
pub const COUNTED_COPY: usize = 512 << 10;
/// How long uploads wait at most until the first download is submitted, so that no copy comes between.
pub const UPLOAD_WAIT: Duration = Duration::from_millis(5);
