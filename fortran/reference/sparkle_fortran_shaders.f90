!> Kernels of a file, compiled and dispatched on the OpenGL context that is current.
!>
!> `buffers` hold GL names of buffers as C pointers: `transfer(int(name, c_intptr_t), c_null_ptr)`. They bind to 0 and up
!> in the order of the kernel's arrays. The values of scalars come from the buffer that the program bound at index 15:
!> see `sparkle_fortran_params`. Programs are kept for the next call, so one thread at a time may call.
module sparkle_fortran_shaders
  use, intrinsic :: iso_c_binding, only: c_associated, c_int64_t, c_null_ptr, c_ptr
  use, intrinsic :: iso_fortran_env, only: int64, real64
  use sparkle_current_gl, only: context_is_current, create_es_context, destroy_es_context
  use sparkle_fortran_params, only: PARAMS_BUFFER
  use sparkle_gl, only: driver_float_env
  use sparkle_kernel_programs, only: kernel_program, kept_program, launch
  implicit none
  private
  public :: glsl_context, glsl_init, glsl_cleanup, sporkle_compile_and_dispatch

  !> A context of OpenGL ES.
  type :: glsl_context
    type(c_ptr) :: egl_display = c_null_ptr
    type(c_ptr) :: egl_context = c_null_ptr
    logical :: initialized = .false.
  end type glsl_context

contains

  !> Creates a context of OpenGL ES 3.1 without a surface, and makes it current on this thread. Returns 0, or -1 if there
  !> is none. Any number of contexts may exist.
  function glsl_init(ctx) result(status)
    type(glsl_context), intent(out) :: ctx
    integer :: status
    type(driver_float_env) :: env

    call env%enter()
    status = -1
    call create_es_context(ctx%egl_display, ctx%egl_context)
    if (.not. c_associated(ctx%egl_context)) return
    if (context_is_current()) then
      ctx%initialized = .true.
      status = 0
    else
      call destroy_es_context(ctx%egl_display, ctx%egl_context)
      ctx = glsl_context()
    end if
  end function glsl_init

  !> Destroys the context with its buffers and programs. A context that is not initialised is ignored.
  subroutine glsl_cleanup(ctx)
    type(glsl_context), intent(inout) :: ctx
    type(driver_float_env) :: env

    call env%enter()
    if (ctx%initialized) call destroy_es_context(ctx%egl_display, ctx%egl_context)
    ctx = glsl_context()
  end subroutine glsl_cleanup

  !> Compiles the kernel of a file and enqueues it for `global_size` points. `status` is 0, or -1 with all buffers
  !> untouched: if no context is current, the kernel does not compile or has several dimensions or a reduction, a buffer
  !> is missing, invalid or too short, or the kernel has scalars and index 15 no buffer that holds them.
  subroutine sporkle_compile_and_dispatch(kernel_file, kernel_name, global_size, buffers, status)
    character(len=*), intent(in) :: kernel_file, kernel_name
    integer, intent(in) :: global_size
    type(c_ptr), intent(in) :: buffers(:)
    integer, intent(out) :: status
    type(kernel_program), pointer :: program
    logical :: succeeded
    type(driver_float_env) :: env

    call env%enter()
    status = -1
    if (.not. context_is_current()) return
    program => kept_program(kernel_file, kernel_name, PARAMS_BUFFER, [real(real64) ::])
    if (.not. associated(program)) return
    call launch(program, int(transfer(buffers, [0_c_int64_t], size(buffers)), int64), global_size, succeeded)
    if (succeeded) status = 0
  end subroutine sporkle_compile_and_dispatch
end module sparkle_fortran_shaders
