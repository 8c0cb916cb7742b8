!> Runs kernels of `sparkle_shader_parser_v2` on the OpenGL context that is current, with buffers that it makes.
!>
!> Subroutines report success in `stat`, 0 or -1; nothing has changed then. If `execute_kernel` fails without `stat`,
!> every byte of the buffers that the kernel writes becomes 255, which is NaN; so does the memory of `read_buffer`.
module sparkle_gpu_executor
  use, intrinsic :: iso_c_binding, only: c_associated, c_int, c_int32_t, c_int64_t, c_ptr, c_size_t
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use sparkle_current_gl, only: context_is_current, copy_out, is_buffer_here, make_buffer, shader_of, spoil_buffer
  use sparkle_fortran_params, only: PARAMS_BUFFER, PARAMS_INLINE
  use sparkle_gl
  use sparkle_kernel_programs, only: build, discard, is_built, kernel_program, launch
  use sparkle_reference_kernels, only: slot_values
  use sparkle_reference_support, only: spoil_memory
  use sparkle_shader_parser_v2, only: shader_kernel_v2
  implicit none
  private
  public :: gpu_executor, initialize_executor, create_buffer, update_buffer, read_buffer, delete_buffer, execute_kernel, &
    cleanup_executor

  !> A buffer and its binding.
  type :: gpu_buffer
    integer(c_int) :: id = 0
    integer :: binding = -1
  end type gpu_buffer

  !> Programs for PARAMS_INLINE that an executor keeps, each for other values. The oldest makes room for a new one.
  integer, parameter :: SPECIAL = 8

  type :: special_program
    real(real64), allocatable :: values(:)
    type(kernel_program) :: program = kernel_program()
  end type special_program

  !> `program` and `shader` are those of the kernel that was initialised or executed last. `param_buffer` holds the
  !> scalars for PARAMS_BUFFER; it is 0 for the other methods, and where the driver has no binding 15, so that scalars
  !> arrive as uniforms. `buffer_sizes` are in bytes, in the order of `buffers`.
  type :: gpu_executor
    integer(c_int) :: program = 0
    integer(c_int) :: shader = 0
    type(gpu_buffer), allocatable :: buffers(:)
    integer(c_int), allocatable :: buffer_sizes(:)
    integer(c_int) :: param_buffer = 0
    integer :: num_buffers = 0
    logical :: initialized = .false.
    type(kernel_program), private :: built = kernel_program()
    type(special_program), private :: special(SPECIAL) = special_program()
    integer, private :: next_special = 1
  end type gpu_executor

contains

  !> Builds the kernel's program; buffers that were created before stay. `exec%initialized` is true on success. For
  !> PARAMS_INLINE the program is built when the values are known.
  subroutine initialize_executor(exec, kernel, stat)
    type(gpu_executor), intent(inout) :: exec
    type(shader_kernel_v2), intent(in) :: kernel
    integer, intent(out), optional :: stat
    type(driver_float_env) :: env

    call env%enter()
    call forget_programs(exec)
    exec%initialized = .false.
    if (context_is_current() .and. allocated(kernel%facts%source)) then
      call build(exec%built, kernel%facts, kernel%param_method, sizes_of(kernel))
      exec%initialized = exec%built%id /= 0 .or. needs_values(kernel) .and. allocated(exec%built%text)
      if (exec%initialized) exec%initialized = exec%built%text /= ''
      call show_program(exec, exec%built)
    end if
    if (exec%initialized .and. exec%built%used_method == PARAMS_BUFFER) &
      exec%param_buffer = int(make_buffer(kernel%facts%parameter_bytes), c_int)
    if (present(stat)) stat = merge(0, -1, exec%initialized)
  end subroutine initialize_executor

  pure function sizes_of(kernel) result(sizes)
    type(shader_kernel_v2), intent(in) :: kernel
    integer :: sizes(3)

    ! A size below 1 is passed on as one that no kernel has.
    sizes = [kernel%local_size_x, kernel%local_size_y, kernel%local_size_z]
    where (sizes < 1) sizes = huge(1)
  end function sizes_of

  pure logical function needs_values(kernel)
    type(shader_kernel_v2), intent(in) :: kernel

    needs_values = kernel%param_method == PARAMS_INLINE .and. kernel%facts%slots > kernel%facts%indices
  end function needs_values

  subroutine show_program(exec, program)
    type(gpu_executor), intent(inout) :: exec
    type(kernel_program), intent(in) :: program

    exec%program = int(program%id, c_int)
    exec%shader = int(shader_of(program%id), c_int)
  end subroutine show_program

  subroutine forget_programs(exec)
    type(gpu_executor), intent(inout) :: exec
    integer :: i

    if (context_is_current()) then
      call discard(exec%built)
      do i = 1, SPECIAL
        call discard(exec%special(i)%program)
      end do
      call delete_buffer(exec%param_buffer)
    end if
    exec%built = kernel_program()
    exec%special = special_program()
    exec%next_special = 1
    exec%program = 0
    exec%shader = 0
    exec%param_buffer = 0
  end subroutine forget_programs

  !> Makes a buffer of `size_bytes` bytes for a binding, 0 or more, in place of the executor's buffer that was there.
  !> Returns its GL name, or 0 if that fails. The executor need not be initialised.
  function create_buffer(exec, size_bytes, binding) result(buffer_id)
    type(gpu_executor), intent(inout) :: exec
    integer(c_size_t), intent(in) :: size_bytes
    integer, intent(in) :: binding
    integer(c_int) :: buffer_id
    integer :: i
    type(driver_float_env) :: env

    call env%enter()
    buffer_id = 0
    if (size_bytes < 1 .or. binding < 0 .or. .not. context_is_current()) return
    buffer_id = int(make_buffer(int(size_bytes, int64)), c_int)
    if (buffer_id == 0) return
    if (.not. allocated(exec%buffers)) allocate (exec%buffers(0), exec%buffer_sizes(0))
    do i = 1, size(exec%buffers)
      if (exec%buffers(i)%binding /= binding) cycle
      call delete_buffer(exec%buffers(i)%id)
      exec%buffers(i)%id = buffer_id
      exec%buffer_sizes(i) = int(min(size_bytes, int(huge(0_c_int), c_size_t)), c_int)
      return
    end do
    exec%buffers = [exec%buffers, gpu_buffer(id=buffer_id, binding=binding)]
    exec%buffer_sizes = [exec%buffer_sizes, int(min(size_bytes, int(huge(0_c_int), c_size_t)), c_int)]
    exec%num_buffers = size(exec%buffers)
  end function create_buffer

  !> Copies `size_bytes` bytes at `data` to the beginning of a buffer.
  subroutine update_buffer(buffer_id, data, size_bytes, stat)
    integer(c_int), intent(in) :: buffer_id
    type(c_ptr), intent(in) :: data
    integer(c_size_t), intent(in) :: size_bytes
    integer, intent(out), optional :: stat
    logical :: succeeded
    type(driver_float_env) :: env

    call env%enter()
    succeeded = fits(buffer_id, data, size_bytes)
    if (succeeded) then
      call gl_forget_errors()
      call glBindBuffer(GL_COPY_WRITE_BUFFER, int(buffer_id, c_int32_t))
      call glBufferSubData(GL_COPY_WRITE_BUFFER, 0_c_int64_t, int(size_bytes, c_int64_t), data)
      call glBindBuffer(GL_COPY_WRITE_BUFFER, 0_c_int32_t)
      succeeded = .not. gl_had_error()
    else if (.not. present(stat)) then
      if (context_is_current()) call spoil_buffer(int(buffer_id, c_int32_t))
    end if
    if (present(stat)) stat = merge(0, -1, succeeded)
  end subroutine update_buffer

  !> Waits for the kernels before, and copies the first `size_bytes` bytes of a buffer to `data`.
  subroutine read_buffer(buffer_id, data, size_bytes, stat)
    integer(c_int), intent(in) :: buffer_id
    type(c_ptr), intent(in) :: data
    integer(c_size_t), intent(in) :: size_bytes
    integer, intent(out), optional :: stat
    logical :: succeeded
    type(driver_float_env) :: env

    call env%enter()
    succeeded = fits(buffer_id, data, size_bytes)
    if (succeeded) succeeded = copy_out(int(buffer_id, c_int32_t), data, int(size_bytes, int64))
    if (.not. succeeded .and. .not. present(stat)) call spoil_memory(data, int(size_bytes, int64))
    if (present(stat)) stat = merge(0, -1, succeeded)
  end subroutine read_buffer

  logical function fits(buffer_id, data, size_bytes)
    integer(c_int), intent(in) :: buffer_id
    type(c_ptr), intent(in) :: data
    integer(c_size_t), intent(in) :: size_bytes

    fits = c_associated(data) .and. size_bytes >= 0
    if (fits) fits = context_is_current()
    if (fits) fits = is_buffer_here(int(buffer_id, int64))
    if (fits) fits = gl_bytes_of(int(buffer_id, int64)) >= size_bytes
  end function fits

  !> Deletes a buffer; its name becomes 0. A number that is no buffer of the context is ignored.
  subroutine delete_buffer(buffer_id)
    integer(c_int), intent(inout) :: buffer_id
    integer(c_int32_t) :: names(1)
    type(driver_float_env) :: env

    call env%enter()
    names = int(buffer_id, c_int32_t)
    buffer_id = 0
    if (names(1) < 1) return
    if (.not. context_is_current()) return
    if (is_buffer_here(int(names(1), int64))) call glDeleteBuffers(1_c_int32_t, names)
  end subroutine delete_buffer

  !> Enqueues the kernel for `work_size` points, with the executor's buffers at their bindings. `params` are the scalars'
  !> values in the order of the arguments, with or without the index arguments; an integer scalar needs a whole number.
  !> A kernel that differs from the one of the last call is built first.
  subroutine execute_kernel(exec, kernel, work_size, params, stat)
    type(gpu_executor), intent(inout) :: exec
    type(shader_kernel_v2), intent(in) :: kernel
    integer, intent(in) :: work_size
    real(real32), dimension(:), intent(in), optional :: params
    integer, intent(out), optional :: stat
    real(real64), allocatable :: values(:)
    logical :: succeeded
    type(driver_float_env) :: env

    call env%enter()
    succeeded = exec%initialized .and. allocated(kernel%facts%source) .and. context_is_current()
    if (succeeded .and. .not. is_current(exec, kernel)) then
      call initialize_executor(exec, kernel)
      succeeded = exec%initialized
    end if
    if (succeeded .and. present(params)) call slot_values(kernel%facts, real(params, real64), values, succeeded)
    if (succeeded .and. needs_values(kernel)) then
      succeeded = allocated(values)
      if (succeeded) call run(special_for(exec, kernel, values))
    else if (succeeded) then
      call run_program(exec%built)
    end if
    if (.not. succeeded .and. .not. present(stat)) call spoil_outputs(exec, kernel)
    if (present(stat)) stat = merge(0, -1, succeeded)

  contains

    subroutine run(place)
      integer, intent(in) :: place

      call show_program(exec, exec%special(place)%program)
      call run_program(exec%special(place)%program)
    end subroutine run

    subroutine run_program(program)
      type(kernel_program), intent(in) :: program

      if (.not. allocated(values)) then
        call launch(program, names_of(exec, kernel), work_size, succeeded)
      else if (exec%param_buffer /= 0) then
        call launch(program, names_of(exec, kernel), work_size, succeeded, values, int(exec%param_buffer, c_int32_t))
      else
        call launch(program, names_of(exec, kernel), work_size, succeeded, values)
      end if
    end subroutine run_program
  end subroutine execute_kernel

  !> Whether the executor's program is that of a kernel.
  logical function is_current(exec, kernel)
    type(gpu_executor), intent(in) :: exec
    type(shader_kernel_v2), intent(in) :: kernel

    is_current = .false.
    if (.not. allocated(exec%built%facts%source)) return
    is_current = exec%built%facts%name == kernel%facts%name .and. exec%built%method == kernel%param_method .and. &
      all(exec%built%local_size == sizes_of(kernel)) .and. exec%built%facts%source == kernel%facts%source
    if (is_current .and. .not. needs_values(kernel)) is_current = is_built(exec%built)
  end function is_current

  !> The place of a program with these values in its text; it is built if necessary.
  integer function special_for(exec, kernel, values) result(place)
    type(gpu_executor), intent(inout) :: exec
    type(shader_kernel_v2), intent(in) :: kernel
    real(real64), intent(in) :: values(:)

    do place = 1, SPECIAL
      if (.not. allocated(exec%special(place)%values)) cycle
      if (all(transfer(exec%special(place)%values, [0_int64], size(values)) == transfer(values, [0_int64], size(values))) &
        .and. is_built(exec%special(place)%program)) return
    end do
    place = exec%next_special
    exec%next_special = mod(place, SPECIAL) + 1
    call discard(exec%special(place)%program)
    exec%special(place)%values = values
    call build(exec%special(place)%program, kernel%facts, kernel%param_method, sizes_of(kernel), values)
  end function special_for

  !> The buffer at each of the kernel's bindings; 0 where there is none.
  function names_of(exec, kernel) result(names)
    type(gpu_executor), intent(in) :: exec
    type(shader_kernel_v2), intent(in) :: kernel
    integer(int64), allocatable :: names(:)
    integer :: i

    allocate (names(kernel%facts%buffers))
    names = 0
    if (.not. allocated(exec%buffers)) return
    do i = 1, size(exec%buffers)
      if (exec%buffers(i)%binding < size(names)) names(exec%buffers(i)%binding + 1) = int(exec%buffers(i)%id, int64)
    end do
  end function names_of

  subroutine spoil_outputs(exec, kernel)
    type(gpu_executor), intent(in) :: exec
    type(shader_kernel_v2), intent(in) :: kernel
    integer(int64) :: names(kernel%facts%buffers)
    integer :: i

    if (.not. context_is_current() .or. .not. allocated(kernel%args)) return
    names = names_of(exec, kernel)
    do i = 1, size(kernel%args)
      associate (slot => kernel%args(i)%binding_slot)
        if (slot < 0 .or. slot >= size(names) .or. kernel%args(i)%intent == 'in') cycle
        call spoil_buffer(int(names(slot + 1), c_int32_t))
      end associate
    end do
  end subroutine spoil_outputs

  !> Deletes the executor's program and buffers.
  subroutine cleanup_executor(exec)
    type(gpu_executor), intent(inout) :: exec
    integer :: i
    type(driver_float_env) :: env

    call env%enter()
    call forget_programs(exec)
    if (allocated(exec%buffers)) then
      do i = 1, size(exec%buffers)
        call delete_buffer(exec%buffers(i)%id)
      end do
      deallocate (exec%buffers, exec%buffer_sizes)
    end if
    exec%num_buffers = 0
    exec%initialized = .false.
  end subroutine cleanup_executor
end module sparkle_gpu_executor
