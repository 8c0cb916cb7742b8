!> The C interface of libsparkle: the declarations of `include/sparkle.h` in Fortran. Those of functions for kernels,
!> epilogues and buffers are in `sparkle_c_kernels`.
!>
!> Programs use module `sparkle`, which is built on this one. Arrays are assumed-size, so that the compiler packs a
!> strided actual argument before C sees it. An absent optional array is passed as NULL. The C function `sparkle_conv2d`
!> is missing: its binding label would be the same global identifier as the reference module `sparkle_conv2d`, which
!> Fortran forbids in one program. A plan that runs once replaces it.
module sparkle_c
  use, intrinsic :: iso_c_binding, only: c_char, c_double, c_float, c_funptr, c_int, c_int32_t, &
    c_int64_t, c_null_ptr, c_ptr, c_size_t
  implicit none
  public

  ! A compiler flag that promotes explicit kinds changes the sizes of C's types, which then no longer match the library.
  ! With such a flag one of these lines does not compile. Flags for default kinds (-fdefault-real-8,
  ! -fdefault-integer-8) are fine.
  integer, parameter :: &
    c_float_must_have_32_bits = 1 / merge(1, 0, storage_size(1.0_c_float) == 32), & ! compile without -freal-4-real-8
    c_double_must_have_64_bits = 1 / merge(1, 0, storage_size(1.0_c_double) == 64), & ! compile without -freal-8-real-4
    c_int_must_have_32_bits = 1 / merge(1, 0, storage_size(0_c_int) == 32), & ! compile without -finteger-4-integer-8
    c_int32_t_must_have_32_bits = 1 / merge(1, 0, storage_size(0_c_int32_t) == 32) ! compile without -finteger-4-integer-8

  integer, parameter :: SPARKLE_OK = 0
  integer, parameter :: SPARKLE_ERROR_INVALID_ARGUMENT = 1
  integer, parameter :: SPARKLE_ERROR_NULL_POINTER = 2
  integer, parameter :: SPARKLE_ERROR_INVALID_HANDLE = 3
  integer, parameter :: SPARKLE_ERROR_UNSUPPORTED = 4
  integer, parameter :: SPARKLE_ERROR_NO_DEVICE = 5
  integer, parameter :: SPARKLE_ERROR_OUT_OF_MEMORY = 6
  integer, parameter :: SPARKLE_ERROR_SHADER = 7
  integer, parameter :: SPARKLE_ERROR_DEVICE_LOST = 8
  integer, parameter :: SPARKLE_ERROR_DRIVER = 9
  integer, parameter :: SPARKLE_ERROR_TIMEOUT = 10
  integer, parameter :: SPARKLE_ERROR_FORKED = 11
  integer, parameter :: SPARKLE_ERROR_INTERNAL = 12
  integer, parameter :: SPARKLE_ERROR_CANCELLED = 13
  integer, parameter :: SPARKLE_ERROR_BUSY = 14
  integer, parameter :: SPARKLE_ERROR_ENDING = 15
  integer, parameter :: SPARKLE_ERROR_CONTENTS_LOST = 16
  integer, parameter :: SPARKLE_ERROR_OTHER_RANK = 17
  integer, parameter :: SPARKLE_ERROR_TRANSPORT = 18

  integer, parameter :: SPARKLE_ALGORITHM_AUTO = 0
  integer, parameter :: SPARKLE_ALGORITHM_DIRECT = 1
  integer, parameter :: SPARKLE_ALGORITHM_WINOGRAD = 2

  integer, parameter :: SPARKLE_PADDING_SYMMETRIC = 0
  integer, parameter :: SPARKLE_PADDING_SIDES = 1
  integer, parameter :: SPARKLE_PADDING_SAME = 2
  integer, parameter :: SPARKLE_TENSOR_NCHW = 0
  integer, parameter :: SPARKLE_TENSOR_NHWC = 1
  integer, parameter :: SPARKLE_WEIGHTS_OIHW = 0
  integer, parameter :: SPARKLE_WEIGHTS_HWIO = 1
  integer, parameter :: SPARKLE_WEIGHTS_OHWI = 2

  integer(c_int32_t), parameter :: C_COL_MAJOR = 102
  integer(c_int32_t), parameter :: C_NO_TRANS = 111
  integer(c_int32_t), parameter :: C_TRANS = 112

  type, bind(C) :: c_device_info
    integer(c_size_t) :: size = 0
    integer(c_int32_t) :: kind = 0
    integer(c_int32_t) :: usable = 0
    integer(c_int32_t) :: software = 0
    character(kind=c_char) :: id(32)
    character(kind=c_char) :: name(256)
    character(kind=c_char) :: reason(512)
  end type c_device_info

  type, bind(C) :: c_loops
    integer(c_size_t) :: size = 0
    integer(c_int32_t) :: kind = 0
    integer(c_int32_t) :: shape = 0
    integer(c_int64_t) :: extents(3) = 1
    integer(c_int32_t) :: radius(3) = 0
    integer(c_int32_t) :: reads = 0
    integer(c_int32_t) :: writes = 1
    integer(c_int32_t) :: element_bytes = 4
    integer(c_int32_t) :: threads = 1
    integer(c_int32_t) :: reserved = 0
    real(c_double) :: flops = 0.0_c_double
  end type c_loops

  type, bind(C) :: c_loop_plan
    integer(c_size_t) :: size = 0
    integer(c_int64_t) :: tile(2) = 0
    integer(c_int64_t) :: block(3) = 0
    integer(c_int64_t) :: tasks = 0
    real(c_double) :: seconds = 0.0_c_double
    real(c_double) :: naive_seconds = 0.0_c_double
    real(c_double) :: arithmetic_seconds = 0.0_c_double
    real(c_double) :: level_seconds(4) = 0.0_c_double
    real(c_double) :: level_bytes(4) = 0.0_c_double
    real(c_double) :: naive_bytes(4) = 0.0_c_double
    integer(c_int32_t) :: binds = 0
    integer(c_int32_t) :: naive_binds = 0
    character(kind=c_char) :: why(512)
  end type c_loop_plan

  type, bind(C) :: c_conv2d_desc
    integer(c_size_t) :: size = 0
    integer(c_int64_t) :: n = 1
    integer(c_int64_t) :: c = 1
    integer(c_int64_t) :: h = 1
    integer(c_int64_t) :: w = 1
    integer(c_int64_t) :: k = 1
    integer(c_int64_t) :: r = 1
    integer(c_int64_t) :: s = 1
    integer(c_int64_t) :: stride_h = 1
    integer(c_int64_t) :: stride_w = 1
    integer(c_int64_t) :: pad_h = 0
    integer(c_int64_t) :: pad_w = 0
    integer(c_int64_t) :: dilation_h = 1
    integer(c_int64_t) :: dilation_w = 1
    integer(c_int64_t) :: groups = 1
    integer(c_int32_t) :: bias = 0
    integer(c_int32_t) :: relu = 0
    integer(c_int32_t) :: algorithm = SPARKLE_ALGORITHM_AUTO
    integer(c_int32_t) :: reserved = 0
    integer(c_int32_t) :: padding = SPARKLE_PADDING_SYMMETRIC
    integer(c_int32_t) :: input_layout = SPARKLE_TENSOR_NCHW
    integer(c_int32_t) :: output_layout = SPARKLE_TENSOR_NCHW
    integer(c_int32_t) :: weights_layout = SPARKLE_WEIGHTS_OIHW
    integer(c_int64_t) :: pad_bottom = 0
    integer(c_int64_t) :: pad_right = 0
  end type c_conv2d_desc

  type, bind(C) :: c_gemm_desc
    integer(c_size_t) :: size = 0
    integer(c_int32_t) :: layout = C_COL_MAJOR
    integer(c_int32_t) :: trans_a = C_NO_TRANS
    integer(c_int32_t) :: trans_b = C_NO_TRANS
    integer(c_int64_t) :: m = 0
    integer(c_int64_t) :: n = 0
    integer(c_int64_t) :: k = 0
    integer(c_int64_t) :: lda = 1
    integer(c_int64_t) :: ldb = 1
    integer(c_int64_t) :: ldc = 1
    real(c_float) :: alpha = 1.0_c_float
    real(c_float) :: beta = 0.0_c_float
  end type c_gemm_desc

  type, bind(C) :: c_timing
    integer(c_size_t) :: size = 0
    real(c_double) :: kernel_ms = 0.0_c_double
    real(c_double) :: wall_ms = 0.0_c_double
    integer(c_int32_t) :: dispatches = 0
    integer(c_int32_t) :: fell_back = 0
    character(kind=c_char) :: device(32)
    character(kind=c_char) :: kernel(96)
    character(kind=c_char) :: fallback(256)
  end type c_timing

  type, bind(C) :: c_share
    integer(c_size_t) :: size = 0
    integer(c_int64_t) :: first = 0
    integer(c_int64_t) :: count = 0
    real(c_double) :: predicted_ms = 0.0_c_double
    real(c_double) :: measured_ms = 0.0_c_double
    integer(c_int32_t) :: dimension = 0
    integer(c_int32_t) :: reserved = 0
    character(kind=c_char) :: device(32)
  end type c_share

  !> Zero in a field means its default.
  type, bind(C) :: c_pipeline_options
    integer(c_size_t) :: size = 0
    integer(c_int32_t) :: slots = 0
    integer(c_int32_t) :: queue = 0
    integer(c_int64_t) :: piece_bytes = 0
    integer(c_int32_t) :: one_context = 0
    integer(c_int32_t) :: reserved = 0
  end type c_pipeline_options

  integer(c_int32_t), parameter :: SPARKLE_TYPE_INT32 = 0
  integer(c_int32_t), parameter :: SPARKLE_TYPE_INT64 = 1
  integer(c_int32_t), parameter :: SPARKLE_TYPE_REAL32 = 2
  integer(c_int32_t), parameter :: SPARKLE_TYPE_REAL64 = 3
  integer(c_int32_t), parameter :: SPARKLE_TYPE_LOGICAL = 4

  integer(c_int32_t), parameter :: C_ARG_SCALAR = 0
  integer(c_int32_t), parameter :: C_ARG_INPUT = 1
  integer(c_int32_t), parameter :: C_ARG_ARRAY = 2
  integer(c_int32_t), parameter :: C_ARG_BUFFER = 3

  integer(c_int32_t), parameter :: C_ARGUMENT_INDEX = 0
  integer(c_int32_t), parameter :: C_ARGUMENT_SCALAR = 1
  integer(c_int32_t), parameter :: C_ARGUMENT_ELEMENT = 2
  integer(c_int32_t), parameter :: C_ARGUMENT_ARRAY = 3
  integer(c_int32_t), parameter :: C_ARGUMENT_REDUCTION = 4

  integer(c_int32_t), parameter :: C_INTENT_IN = 0
  integer(c_int32_t), parameter :: C_INTENT_OUT = 1
  integer(c_int32_t), parameter :: C_INTENT_INOUT = 2

  integer(c_int32_t), parameter :: C_GLSL_310_ES = 310
  integer(c_int32_t), parameter :: C_GLSL_430 = 430

  integer(c_int32_t), parameter :: C_PARAMETERS_UNIFORM = 0
  integer(c_int32_t), parameter :: C_PARAMETERS_BUFFER = 1
  integer(c_int32_t), parameter :: C_PARAMETERS_INLINE = 2

  type, bind(C) :: c_kernel_info
    integer(c_size_t) :: size = 0
    integer(c_int32_t) :: dims = 0
    integer(c_int32_t) :: base = 0
    integer(c_int32_t) :: local_size(3) = 0
    integer(c_int32_t) :: arguments = 0
    integer(c_int32_t) :: buffers = 0
    integer(c_int32_t) :: exact = 0
    integer(c_int32_t) :: cooperative = 0
    integer(c_int32_t) :: legacy = 0
    integer(c_int64_t) :: parameter_bytes = 0
    character(kind=c_char) :: name(64)
  end type c_kernel_info

  type, bind(C) :: c_argument_info
    integer(c_size_t) :: size = 0
    integer(c_int32_t) :: type = 0
    integer(c_int32_t) :: kind = 0
    integer(c_int32_t) :: intent = 0
    integer(c_int32_t) :: rank = 0
    integer(c_int32_t) :: slot = 0
    integer(c_int32_t) :: offset = 0
    character(kind=c_char) :: name(64)
  end type c_argument_info

  !> `value` has the bytes of a scalar, the first in memory first.
  type, bind(C) :: c_kernel_arg
    integer(c_size_t) :: size = 0
    integer(c_int32_t) :: type = 0
    integer(c_int32_t) :: form = C_ARG_SCALAR
    type(c_ptr) :: address = c_null_ptr
    integer(c_size_t) :: length = 0
    integer(c_int64_t) :: value = 0
    type(c_ptr) :: buffer = c_null_ptr
    integer(c_size_t) :: offset = 0
  end type c_kernel_arg

  interface
    function c_version() bind(C, name="sparkle_version") result(number)
      import :: c_int32_t
      integer(c_int32_t) :: number
    end function c_version

    function c_version_string() bind(C, name="sparkle_version_string") result(text)
      import :: c_ptr
      type(c_ptr) :: text
    end function c_version_string

    function c_last_error() bind(C, name="sparkle_last_error") result(text)
      import :: c_ptr
      type(c_ptr) :: text
    end function c_last_error

    function c_set_log_callback(callback, user) bind(C, name="sparkle_set_log_callback") result(status)
      import :: c_funptr, c_int32_t, c_ptr
      type(c_funptr), value :: callback
      type(c_ptr), value :: user
      integer(c_int32_t) :: status
    end function c_set_log_callback

    function c_set_num_threads(count) bind(C, name="sparkle_set_num_threads") result(status)
      import :: c_int32_t
      integer(c_int32_t), value :: count
      integer(c_int32_t) :: status
    end function c_set_num_threads

    function c_get_num_threads() bind(C, name="sparkle_get_num_threads") result(count)
      import :: c_int32_t
      integer(c_int32_t) :: count
    end function c_get_num_threads

    function c_finalize() bind(C, name="sparkle_finalize") result(status)
      import :: c_int32_t
      integer(c_int32_t) :: status
    end function c_finalize

    function c_device_count(count) bind(C, name="sparkle_device_count") result(status)
      import :: c_int32_t, c_size_t
      integer(c_size_t), intent(inout) :: count
      integer(c_int32_t) :: status
    end function c_device_count

    function c_device_describe(index, info) bind(C, name="sparkle_device_describe") result(status)
      import :: c_device_info, c_int32_t, c_size_t
      integer(c_size_t), value :: index
      type(c_device_info), intent(inout) :: info
      integer(c_int32_t) :: status
    end function c_device_describe

    function c_device_open(selector, device) bind(C, name="sparkle_device_open") result(status)
      import :: c_char, c_int32_t, c_ptr
      character(kind=c_char), intent(in) :: selector(*)
      type(c_ptr), intent(inout) :: device
      integer(c_int32_t) :: status
    end function c_device_open

    function c_device_close(device) bind(C, name="sparkle_device_close") result(status)
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: device
      integer(c_int32_t) :: status
    end function c_device_close

    function c_conv2d_output_size(desc, p, q) bind(C, name="sparkle_conv2d_output_size") result(status)
      import :: c_conv2d_desc, c_int32_t, c_int64_t
      type(c_conv2d_desc), intent(in) :: desc
      integer(c_int64_t), intent(inout) :: p
      integer(c_int64_t), intent(inout) :: q
      integer(c_int32_t) :: status
    end function c_conv2d_output_size

    function c_plan_create(device, desc, weights, weights_len, bias, bias_len, plan) &
      bind(C, name="sparkle_plan_create") result(status)
      import :: c_conv2d_desc, c_float, c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: device
      type(c_conv2d_desc), intent(in) :: desc
      real(c_float), intent(in) :: weights(*)
      integer(c_size_t), value :: weights_len
      real(c_float), intent(in), optional :: bias(*)
      integer(c_size_t), value :: bias_len
      type(c_ptr), intent(inout) :: plan
      integer(c_int32_t) :: status
    end function c_plan_create

    function c_plan_execute(plan, input, input_len, output, output_len) &
      bind(C, name="sparkle_plan_execute") result(status)
      import :: c_float, c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: plan
      real(c_float), intent(in) :: input(*)
      integer(c_size_t), value :: input_len
      real(c_float), intent(inout) :: output(*)
      integer(c_size_t), value :: output_len
      integer(c_int32_t) :: status
    end function c_plan_execute

    function c_plan_set_weights(plan, weights, weights_len, bias, bias_len) &
      bind(C, name="sparkle_plan_set_weights") result(status)
      import :: c_float, c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: plan
      real(c_float), intent(in) :: weights(*)
      integer(c_size_t), value :: weights_len
      real(c_float), intent(in), optional :: bias(*)
      integer(c_size_t), value :: bias_len
      integer(c_int32_t) :: status
    end function c_plan_set_weights

    function c_conv2d_f64(device, desc, input, input_len, weights, weights_len, bias, bias_len, output, output_len) &
      bind(C, name="sparkle_conv2d_f64") result(status)
      import :: c_conv2d_desc, c_double, c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: device
      type(c_conv2d_desc), intent(in) :: desc
      real(c_double), intent(in) :: input(*)
      integer(c_size_t), value :: input_len
      real(c_double), intent(in) :: weights(*)
      integer(c_size_t), value :: weights_len
      real(c_double), intent(in), optional :: bias(*)
      integer(c_size_t), value :: bias_len
      real(c_double), intent(inout) :: output(*)
      integer(c_size_t), value :: output_len
      integer(c_int32_t) :: status
    end function c_conv2d_f64

    !> It has no effect but the output: a failure makes that NaN.
    pure subroutine c_conv2d_or_nan(desc, input, input_len, weights, weights_len, bias, bias_len, output, output_len) &
      bind(C, name="sparkle_conv2d_or_nan")
      import :: c_conv2d_desc, c_float, c_size_t
      type(c_conv2d_desc), intent(in) :: desc
      real(c_float), intent(in) :: input(*)
      integer(c_size_t), intent(in), value :: input_len
      real(c_float), intent(in) :: weights(*)
      integer(c_size_t), intent(in), value :: weights_len
      real(c_float), intent(in), optional :: bias(*)
      integer(c_size_t), intent(in), value :: bias_len
      real(c_float), intent(inout) :: output(*)
      integer(c_size_t), intent(in), value :: output_len
    end subroutine c_conv2d_or_nan

    function c_plan_memory(plan, packed, workspace) bind(C, name="sparkle_plan_memory") result(status)
      import :: c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: plan
      integer(c_size_t), intent(inout) :: packed
      integer(c_size_t), intent(inout) :: workspace
      integer(c_int32_t) :: status
    end function c_plan_memory

    function c_plan_destroy(plan) bind(C, name="sparkle_plan_destroy") result(status)
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: plan
      integer(c_int32_t) :: status
    end function c_plan_destroy

    function c_pipeline_create(device, options, pipeline) bind(C, name="sparkle_pipeline_create") result(status)
      import :: c_int32_t, c_pipeline_options, c_ptr
      type(c_ptr), value :: device
      type(c_pipeline_options), intent(in) :: options
      type(c_ptr), intent(inout) :: pipeline
      integer(c_int32_t) :: status
    end function c_pipeline_create

    function c_pipeline_destroy(pipeline) bind(C, name="sparkle_pipeline_destroy") result(status)
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: pipeline
      integer(c_int32_t) :: status
    end function c_pipeline_destroy

    function c_pipeline_flush(pipeline) bind(C, name="sparkle_pipeline_flush") result(status)
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: pipeline
      integer(c_int32_t) :: status
    end function c_pipeline_flush

    function c_submit(pipeline, plan, input, input_len, output, output_len, wait, ticket) &
      bind(C, name="sparkle_submit") result(status)
      import :: c_float, c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: pipeline
      type(c_ptr), value :: plan
      real(c_float), intent(in), asynchronous :: input(*)
      integer(c_size_t), value :: input_len
      real(c_float), intent(inout), asynchronous :: output(*)
      integer(c_size_t), value :: output_len
      integer(c_int32_t), value :: wait
      type(c_ptr), intent(inout) :: ticket
      integer(c_int32_t) :: status
    end function c_submit

    function c_ticket_poll(ticket, done) bind(C, name="sparkle_ticket_poll") result(status)
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: ticket
      integer(c_int32_t), intent(inout) :: done
      integer(c_int32_t) :: status
    end function c_ticket_poll

    function c_ticket_wait(ticket, timeout_ms) bind(C, name="sparkle_ticket_wait") result(status)
      import :: c_int32_t, c_int64_t, c_ptr
      type(c_ptr), value :: ticket
      integer(c_int64_t), value :: timeout_ms
      integer(c_int32_t) :: status
    end function c_ticket_wait

    function c_ticket_cancel(ticket, cancelled) bind(C, name="sparkle_ticket_cancel") result(status)
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: ticket
      integer(c_int32_t), intent(inout) :: cancelled
      integer(c_int32_t) :: status
    end function c_ticket_cancel

    function c_ticket_release(ticket) bind(C, name="sparkle_ticket_release") result(status)
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: ticket
      integer(c_int32_t) :: status
    end function c_ticket_release

    function c_sgemm(device, desc, a, a_len, b, b_len, c, c_len) bind(C, name="sparkle_sgemm") result(status)
      import :: c_float, c_gemm_desc, c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: device
      type(c_gemm_desc), intent(in) :: desc
      real(c_float), intent(in) :: a(*)
      integer(c_size_t), value :: a_len
      real(c_float), intent(in) :: b(*)
      integer(c_size_t), value :: b_len
      real(c_float), intent(inout) :: c(*)
      integer(c_size_t), value :: c_len
      integer(c_int32_t) :: status
    end function c_sgemm

    function c_last_timing(timing) bind(C, name="sparkle_last_timing") result(status)
      import :: c_int32_t, c_timing
      type(c_timing), intent(inout) :: timing
      integer(c_int32_t) :: status
    end function c_last_timing

    function c_plan_loops(device, loops, plan) bind(C, name="sparkle_plan_loops") result(status)
      import :: c_int32_t, c_loop_plan, c_loops, c_ptr
      type(c_ptr), value :: device
      type(c_loops), intent(in) :: loops
      type(c_loop_plan), intent(inout) :: plan
      integer(c_int32_t) :: status
    end function c_plan_loops

    function c_last_shares(shares, capacity, count) bind(C, name="sparkle_last_shares") result(status)
      import :: c_int32_t, c_share, c_size_t
      type(c_share), intent(inout) :: shares(*)
      integer(c_size_t), value :: capacity
      integer(c_size_t), intent(out) :: count
      integer(c_int32_t) :: status
    end function c_last_shares

    function c_strlen(text) bind(C, name="strlen") result(length)
      import :: c_ptr, c_size_t
      type(c_ptr), value :: text
      integer(c_size_t) :: length
    end function c_strlen
  end interface
end module sparkle_c
