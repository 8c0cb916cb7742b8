!> The reference OpenGL convolution with the interface of existing programs: the C functions of the reference interface,
!> which libsparkle exports, with assumed-shape arrays.
!>
!> Functions return the kernel's milliseconds, or -1 with `output` untouched. After a successful call the GL context is
!> current on the calling thread, so the program may make GL calls of its own.
module gpu_opengl_interface
  use, intrinsic :: iso_c_binding, only: c_char, c_float, c_int, c_null_char
  use, intrinsic :: iso_fortran_env, only: int64, real32
  use sparkle_reference_support, only: arrays_suffice
  use sparkle_support, only: narrowed
  implicit none
  private
  public :: gpu_conv2d_params
  public :: gpu_init, gpu_cleanup, gpu_compile_shaders, gpu_get_program_id
  public :: gpu_execute_conv2d_ref
  public :: gpu_compile_custom_shader_fortran, gpu_execute_conv2d_custom_fortran

  !> The parameter block of the kernel, at SSBO index 3. Note the order: C is fourth here, but second in argument lists.
  type, bind(C) :: gpu_conv2d_params
    integer(c_int) :: N, H, W, C, K
    integer(c_int) :: kernel_size, stride, pad
    integer(c_int) :: H_out, W_out
  end type gpu_conv2d_params

  interface
    function c_initialize() bind(C, name="gpu_initialize_opengl") result(succeeded)
      import :: c_int
      integer(c_int) :: succeeded
    end function c_initialize

    subroutine c_cleanup() bind(C, name="gpu_cleanup_opengl")
    end subroutine c_cleanup

    function c_compile() bind(C, name="gpu_compile_conv2d_shader") result(succeeded)
      import :: c_int
      integer(c_int) :: succeeded
    end function c_compile

    function c_program() bind(C, name="gpu_get_compute_program") result(program_id)
      import :: c_int
      integer(c_int) :: program_id
    end function c_program

    function c_execute(input, weights, output, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) &
      bind(C, name="gpu_execute_conv2d_fortran") result(milliseconds)
      import :: c_float, c_int
      real(c_float), intent(in) :: input(*)
      real(c_float), intent(in) :: weights(*)
      real(c_float), intent(inout) :: output(*)
      integer(c_int), value :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
      real(c_float) :: milliseconds
    end function c_execute

    function c_compile_custom(source) bind(C, name="gpu_compile_custom_shader") result(program_id)
      import :: c_char, c_int
      character(kind=c_char), intent(in) :: source(*)
      integer(c_int) :: program_id
    end function c_compile_custom

    function c_execute_custom(program_id, input, weights, output, &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) &
      bind(C, name="gpu_execute_conv2d_custom") result(milliseconds)
      import :: c_float, c_int
      integer(c_int), value :: program_id
      real(c_float), intent(in) :: input(*)
      real(c_float), intent(in) :: weights(*)
      real(c_float), intent(inout) :: output(*)
      integer(c_int), value :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
      real(c_float) :: milliseconds
    end function c_execute_custom
  end interface

contains

  !> Makes a context current on this thread and builds the convolution program. If the build fails it cleans up.
  logical function gpu_init()
    gpu_init = c_initialize() /= 0
    if (.not. gpu_init) return
    gpu_init = gpu_compile_shaders()
    if (.not. gpu_init) call gpu_cleanup()
  end function gpu_init

  !> Ends the interface for the whole process, however often it was initialised: destroys context and program, and
  !> invalidates all buffers. `gpu_init` initialises it again.
  subroutine gpu_cleanup()
    call c_cleanup()
  end subroutine gpu_cleanup

  !> Builds the convolution program; requires a context.
  logical function gpu_compile_shaders()
    gpu_compile_shaders = c_compile() /= 0
  end function gpu_compile_shaders

  !> The program's GL name; 0 if there is none.
  integer function gpu_get_program_id()
    gpu_get_program_id = int(c_program())
  end function gpu_get_program_id

  !> Convolves on the GPU; initialises it if necessary.
  function gpu_execute_conv2d_ref(input, weights, output, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) result(milliseconds)
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(out) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    real(real32) :: milliseconds

    milliseconds = -1.0_real32
    if (.not. arrays_suffice(size(input, kind=int64), size(weights, kind=int64), size(output, kind=int64), &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)) return
    milliseconds = c_execute(input, weights, output, narrowed(N), narrowed(C), narrowed(H), narrowed(W), &
      narrowed(K), narrowed(kernel_size), narrowed(stride), narrowed(pad), narrowed(H_out), narrowed(W_out))
  end function gpu_execute_conv2d_ref

  !> Builds `shader_source` and replaces the convolution program by it. Returns its GL name, or 0 on failure.
  integer function gpu_compile_custom_shader_fortran(shader_source)
    character(len=*), intent(in) :: shader_source

    gpu_compile_custom_shader_fortran = int(c_compile_custom(shader_source // c_null_char))
  end function gpu_compile_custom_shader_fortran

  !> Convolves with the caller's program; 0 or less means the current program.
  function gpu_execute_conv2d_custom_fortran(program_id, input, weights, output, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) result(milliseconds)
    integer, intent(in) :: program_id
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(out) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    real(real32) :: milliseconds

    milliseconds = -1.0_real32
    if (.not. arrays_suffice(size(input, kind=int64), size(weights, kind=int64), size(output, kind=int64), &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)) return
    milliseconds = c_execute_custom(narrowed(program_id), input, weights, output, narrowed(N), narrowed(C), &
      narrowed(H), narrowed(W), narrowed(K), narrowed(kernel_size), narrowed(stride), narrowed(pad), &
      narrowed(H_out), narrowed(W_out))
  end function gpu_execute_conv2d_custom_fortran
end module gpu_opengl_interface
