//! Undocumented behaviour of drivers, where it was seen, and the workaround for it.
//!
//! | driver | behaviour | seen in | workaround |
//! | --- | --- | --- | --- |
//! | NVIDIA 580 | `glWaitSync` blocks the calling thread until the fence has signalled | streams of small jobs, `benchmarks/contexts` | `device/contexts.rs` measures which order of stages is faster |
//! | NVIDIA 580 | of two copy engines, a context gets one by the parity of large copies since the last idle time | 500 streams of a bare program, `benchmarks/contexts` | `pipeline/copy_engines.rs` adds a copy if the count is even |
//! | NVIDIA 580 | a timestamp at the head of a queue blocks kernels of other contexts | copies and kernels ran one at a time, `benchmarks/contexts` | `pipeline/command_stream.rs` puts no timestamps around copies in contexts of their own |
//! | NVIDIA 580 | a copy from a buffer that another context uses blocks the thread while a kernel runs | traces of streams | `pipeline/stages.rs` submits waiting kernels first |
//! | some | a program's binary is complete only after its first run | second starts compiled again | `execution/programs.rs` stores binaries once more after a run |
//! | some | deleting a program that still compiles blocks | the tuner exceeded its budget | `execution/programs.rs` keeps abandoned programs until they are ready |
//! | some | the compiler rewrites `?:`, `if` and `mix` to `max`, which loses NaN | ReLU of NaN gave 0 | `glsl/numbers.glsl` tests the bits |
//! | some | at exit, memory mapped by GL disappears while threads copy | crashes of processes that end while jobs are in flight | [`exit`](super::exit) counts copies and waits for them |
//! | libglvnd | at exit libEGL frees every thread's state, while a thread that ends frees its own | inferred from a core file: a double free, once in some hundred ends in mid-stream under load | [`exit::end_thread`](super::exit::end_thread) clears the thread's data first |
//! | Mesa 22.3 | a context forgets its shader when another context deletes a shared program | crashes with debug symbols, `tests/c/mixed.c` | [`forgotten`](super::forgotten): a rebind and a lock |
//! | Mesa llvmpipe | all loops of an invocation together end after 65,535 iterations, without an error | wrong sums, found by counting | `measure/iterations.rs` probes the limit; `shader/iterations.rs` keeps sums below it; texts of the kernel language tell if it was reached (`kernel/glsl`) |
//! | any | an idle GPU runs at a fraction of its clock | factors of five in first timings | [`tunables::WARM_UP`](crate::gl::tunables::WARM_UP) |
//! | any | `eglTerminate` by other code ends all contexts of a display | `tests/c/terminate.c` | [`context`](super::context) detects it, and the caller makes a new group |
//! | any | clocks of timestamp queries stand still, run backwards or count in other units | tests with simulated clocks | `execution/budget.rs` trusts them only as far as the host's clock allows |

use std::time::Duration;

/// The size of a copy from which NVIDIA's driver counts it when it assigns copy engines: 512 KiB counts, 256 KiB does
/// not.
pub const COUNTED_COPY: usize = 512 << 10;
/// The longest that uploads wait until the first download is submitted, so that no other copy comes between.
pub const UPLOAD_WAIT: Duration = Duration::from_millis(5);
