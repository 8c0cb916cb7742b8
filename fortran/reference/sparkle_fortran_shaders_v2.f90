!> Kernels of a file, compiled and dispatched on the OpenGL context that is current, with a choice of how scalars arrive.
!>
!> `buffers` hold GL names of buffers as C pointers: `transfer(int(name, c_intptr_t), c_null_ptr)`. They bind to 0 and up
!> in the order of the kernel's arrays. The 32 latest programs are kept for the next calls, so one thread at a time may
!> call.
!>
!> PARAMS_BUFFER needs binding 15. Where the driver has fewer bindings, scalars arrive as uniforms instead: see
!> `create_param_strategy`.
module sparkle_fortran_shaders_v2
  use, intrinsic :: iso_c_binding, only: c_int32_t, c_int64_t, c_ptr
  use, intrinsic :: iso_fortran_env, only: int64, output_unit, real64
  use sparkle_current_gl, only: clear_buffer, context_is_current, make_buffer
  use sparkle_fortran_params, only: PARAMS_BUFFER
  use sparkle_gl, only: driver_float_env, glDeleteBuffers, glFinish
  use sparkle_kernel_programs, only: build, discard, kernel_program, kept_program, launch
  use sparkle_kernel_texts, only: sample_bytes
  use sparkle_reference_kernels, only: kernel_facts, method_name, read_kernel, same_name, slot_values
  use sparkle_reference_support, only: clock_ns
  use sparkle_shader_parser_v2, only: shader_kernel_v2
  implicit none
  private
  public :: shader_cache_entry_v2, sporkle_set_param_method, sporkle_benchmark_params, sporkle_compile_and_dispatch_v2

  !> A program and what it was built from.
  type :: shader_cache_entry_v2
    character(len=256) :: kernel_name
    integer :: program
    integer :: param_method
    type(shader_kernel_v2) :: kernel_info
    logical :: is_valid = .false.
  end type shader_cache_entry_v2

  integer, save :: current_method = PARAMS_BUFFER

contains

  !> Chooses PARAMS_UNIFORM, PARAMS_BUFFER or PARAMS_INLINE for later dispatches; another number is ignored. It is
  !> PARAMS_BUFFER at first.
  subroutine sporkle_set_param_method(method)
    integer, intent(in) :: method

    if (method >= 1 .and. method <= 3) current_method = method
  end subroutine sporkle_set_param_method

  !> Compiles the kernel of a file and enqueues it for `global_size` points. `status` is 0, or -1 with all buffers
  !> untouched: if no context is current, the kernel does not compile or has several dimensions or a reduction, a buffer
  !> is missing, invalid or too short, or a scalar has no value.
  !>
  !> `param_values` are the scalars' values, converted to their types. With `params`, which are their names, each scalar
  !> must have exactly one; names of index arguments are ignored. Without `params` they are in the order of the
  !> arguments, with or without the index arguments. Without `param_values`, PARAMS_BUFFER uses the buffer that the
  !> program bound at index 15.
  subroutine sporkle_compile_and_dispatch_v2(kernel_file, kernel_name, global_size, buffers, params, param_values, status)
    character(len=*), intent(in) :: kernel_file, kernel_name
    integer, intent(in) :: global_size
    type(c_ptr), intent(in) :: buffers(:)
    character(len=*), intent(in), optional :: params(:)
    integer, intent(in), optional :: param_values(:)
    integer, intent(out) :: status
    type(kernel_program), pointer :: program
    type(kernel_facts) :: facts
    real(real64), allocatable :: numbers(:), values(:)
    logical :: is_right
    type(driver_float_env) :: env

    call env%enter()
    status = -1
    if (.not. context_is_current()) return
    numbers = [real(real64) ::]
    if (present(param_values)) numbers = real(param_values, real64)
    if (present(params)) then
      if (size(params) /= size(numbers)) return
      call read_kernel(kernel_file, kernel_name, facts)
      if (.not. allocated(facts%source)) return
      call sort_by_names(facts, params, numbers, is_right)
      if (.not. is_right) return
    end if
    program => kept_program(kernel_file, kernel_name, current_method, numbers)
    if (.not. associated(program)) return
    if (size(numbers) > 0) then
      call slot_values(program%facts, numbers, values, is_right)
      if (is_right) call launch(program, names_in(buffers), global_size, is_right, values)
    else
      call launch(program, names_in(buffers), global_size, is_right)
    end if
    if (is_right) status = 0
  end subroutine sporkle_compile_and_dispatch_v2

  !> GL names in C pointers.
  function names_in(buffers) result(names)
    type(c_ptr), intent(in) :: buffers(:)
    integer(int64), allocatable :: names(:)

    names = int(transfer(buffers, [0_c_int64_t], size(buffers)), int64)
  end function names_in

  !> Puts numbers that have names into the order of the scalars.
  subroutine sort_by_names(facts, params, numbers, is_right)
    type(kernel_facts), intent(in) :: facts
    character(len=*), intent(in) :: params(:)
    real(real64), allocatable, intent(inout) :: numbers(:)
    logical, intent(out) :: is_right
    real(real64), allocatable :: sorted(:)
    logical, allocatable :: is_known(:)
    integer :: i, slot

    allocate (sorted(facts%slots), is_known(facts%slots))
    sorted = 0.0_real64
    is_known = .false.
    is_right = .false.
    do i = 1, size(params)
      slot = slot_of(facts, params(i))
      if (slot == 0) return
      if (is_known(slot)) return
      is_known(slot) = .true.
      sorted(slot) = numbers(i)
    end do
    sorted(:facts%indices) = 0.0_real64
    is_right = all(is_known(facts%indices + 1:))
    numbers = sorted(facts%indices + 1:)
  end subroutine sort_by_names

  !> The slot of a scalar or index argument by name: the exact spelling first, then any case. 0 if there is none.
  integer function slot_of(facts, name) result(found)
    type(kernel_facts), intent(in) :: facts
    character(len=*), intent(in) :: name
    integer :: i, slot

    found = 0
    slot = 0
    do i = 1, size(facts%arguments)
      if (facts%arguments(i)%offset < 0) cycle
      slot = slot + 1
      if (facts%arguments(i)%name == name) then
        found = slot
        return
      end if
      if (found == 0 .and. same_name(facts%arguments(i)%name, name)) found = slot
    end do
  end function slot_of

  !> Measures a kernel with each method and prints a table: the time to compile and link, the host's time for a dispatch,
  !> and the kernel's own time, in milliseconds, after a warm-up. It runs for 2**18 points in buffers of zeros, with 1 as
  !> every scalar.
  subroutine sporkle_benchmark_params(kernel_file, kernel_name)
    character(len=*), intent(in) :: kernel_file, kernel_name
    integer, parameter :: POINTS = 2**18, TIMES = 20
    type(kernel_facts) :: facts
    integer(c_int32_t), allocatable :: buffers(:)
    integer :: method, i
    type(driver_float_env) :: env

    call env%enter()
    if (.not. context_is_current()) then
      write (output_unit, '(a)') 'no OpenGL context is current'
      return
    end if
    call read_kernel(kernel_file, kernel_name, facts)
    if (.not. allocated(facts%source)) then
      write (output_unit, '(5a)') 'kernel ', trim(kernel_name), ' of ', trim(kernel_file), ' does not compile'
      return
    end if
    allocate (buffers(facts%buffers))
    do i = 1, facts%buffers
      buffers(i) = make_buffer(sample_bytes(facts, i - 1, POINTS))
      if (buffers(i) /= 0) call clear_buffer(buffers(i))
    end do
    write (output_unit, '(a8,3(1x,a12))') 'method', 'setup ms', 'dispatch ms', 'kernel ms'
    do method = 1, 3
      call measure(method)
    end do
    do i = 1, facts%buffers
      call glDeleteBuffers(1_c_int32_t, buffers(i:i))
    end do

  contains

    subroutine measure(method)
      integer, intent(in) :: method
      type(kernel_program) :: program
      real(real64), allocatable :: values(:)
      real(real64) :: setup_ms, dispatch_ms, kernel_ms
      logical :: is_right
      integer(int64) :: start
      integer :: run

      call slot_values(facts, [(1.0_real64, run=1, facts%slots)], values, is_right)
      start = clock_ns()
      call build(program, facts, method, [0, 0, 0], values, is_bounded=.true.)
      setup_ms = real(clock_ns() - start, real64) / 1.0e6_real64
      kernel_ms = -1.0_real64
      if (is_right .and. program%id /= 0) call launch(program, int(buffers, int64), POINTS, is_right, values, &
        times=TIMES, kernel_ms=kernel_ms)
      if (kernel_ms < 0.0_real64) then
        write (output_unit, '(a8,1x,a12)') method_name(method), 'failed'
        return
      end if
      call glFinish()
      start = clock_ns()
      do run = 1, TIMES
        call launch(program, int(buffers, int64), POINTS, is_right, values)
      end do
      dispatch_ms = real(clock_ns() - start, real64) / (1.0e6_real64 * TIMES)
      call glFinish()
      write (output_unit, '(a8,3(1x,f12.4),a)') method_name(method), setup_ms, dispatch_ms, kernel_ms, &
        note(program%used_method /= method .and. facts%slots > facts%indices)
      call discard(program)
    end subroutine measure
  end subroutine sporkle_benchmark_params

  function note(is_replaced) result(text)
    logical, intent(in) :: is_replaced
    character(len=:), allocatable :: text

    text = ''
    if (is_replaced) text = '  as uniforms: the driver has no binding 15'
  end function note
end module sparkle_fortran_shaders_v2
