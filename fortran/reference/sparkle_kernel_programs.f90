!> Programs of kernels on the program's current context: built, kept, and dispatched.
!>
!> Private to the reference modules. The programs that are kept belong to the process, so only one thread at a time may
!> use them.
module sparkle_kernel_programs
  use, intrinsic :: iso_c_binding, only: c_double, c_float, c_int32_t, c_int64_t, c_int8_t, c_loc
  use, intrinsic :: iso_fortran_env, only: int64, real64
  use sparkle_c, only: C_ARGUMENT_ELEMENT, C_ARGUMENT_SCALAR, C_GLSL_310_ES, C_GLSL_430, SPARKLE_TYPE_INT32, SPARKLE_TYPE_LOGICAL, &
    SPARKLE_TYPE_REAL32, SPARKLE_TYPE_REAL64
  use sparkle_current_gl
  use sparkle_fortran_params, only: PARAMS_BUFFER, PARAMS_INLINE, PARAMS_UNIFORM
  use sparkle_gl
  use sparkle_kernel_texts, only: bounded_text, buffer_name_in
  use sparkle_reference_kernels, only: glsl_of, kernel_facts, read_kernel, read_text, slot_values, with_values, word_at
  use sparkle_reference_support, only: clock_ns
  implicit none
  private
  public :: build, discard, elapsed_ms, is_built, kept_program, launch

  !> A kernel as a program of the current context; `id` is 0 if it is not built.
  type, public :: kernel_program
    type(kernel_facts) :: facts = kernel_facts()
    !> The method that was asked for, and the one of the text: with uniforms where the driver has no binding 15.
    integer :: method = 0
    integer :: used_method = 0
    integer :: local_size(3) = 0
    character(len=:), allocatable :: text
    integer(c_int32_t) :: id = 0
    !> The name of each slot's uniform; blank for index arguments and other methods.
    character(len=80), allocatable :: uniforms(:)
    !> Bytes of an element for each binding whose buffer needs an element for each point, else 0.
    integer, allocatable :: element_bytes(:)
  end type kernel_program

  type :: kept_entry
    character(len=:), allocatable :: kernel_name
    character(len=:), allocatable :: source
    integer :: method = 0
    logical :: is_es = .false.
    !> The values in the text, for PARAMS_INLINE.
    real(real64), allocatable :: numbers(:)
    type(kernel_program) :: program
    integer(int64) :: last_use = 0
  end type kept_entry

  !> Programs that are kept; the one that was not used for the longest time makes room for a new one.
  integer, parameter :: KEPT = 32
  type(kept_entry), save, target :: entries(KEPT)
  integer(int64), save :: uses = 0

contains

  !> Builds a kernel for the current context. `id` stays 0 if that fails: for instance if a scalar has no value that
  !> PARAMS_INLINE could write.
  subroutine build(program, facts, method, local_size, values, is_bounded)
    type(kernel_program), intent(out) :: program
    type(kernel_facts), intent(in) :: facts
    integer, intent(in) :: method
    !> Zeros mean that of the file.
    integer, intent(in) :: local_size(3)
    real(real64), intent(in), optional :: values(:)
    !> Whether accesses at computed positions are kept in their buffers.
    logical, intent(in), optional :: is_bounded

    program%facts = facts
    program%method = method
    program%local_size = merge(local_size, facts%local_size, local_size > 0)
    program%used_method = method
    if (method == PARAMS_BUFFER .and. .not. has_parameter_binding()) program%used_method = PARAMS_UNIFORM
    ! Without scalars the methods do not differ.
    if (facts%slots == facts%indices) program%used_method = PARAMS_UNIFORM
    program%text = glsl_of(facts, merge(C_GLSL_310_ES, C_GLSL_430, context_is_es()), program%used_method, local_size)
    if (program%text == '') return
    if (program%used_method == PARAMS_INLINE) then
      if (.not. present(values)) return
      program%text = with_values(facts, program%text, values)
    end if
    call find_names(program)
    if (present(is_bounded)) then
      if (is_bounded) program%text = bounded_text(facts, program%text)
    end if
    program%id = gl_built(program%text)
  end subroutine build

  !> Whether the program exists in the current context.
  logical function is_built(program)
    type(kernel_program), intent(in) :: program

    is_built = .false.
    if (program%id /= 0 .and. allocated(program%text)) is_built = is_program_of(program%id, program%text)
  end function is_built

  !> Deletes the program where it belongs to the current context.
  subroutine discard(program)
    type(kernel_program), intent(inout) :: program

    if (is_built(program)) call glDeleteProgram(program%id)
    program%id = 0
  end subroutine discard

  !> Finds the names of uniforms, and which buffers are read or written at the point's own position.
  subroutine find_names(program)
    type(kernel_program), intent(inout) :: program
    integer :: i, slot, at

    allocate (program%uniforms(program%facts%slots), program%element_bytes(program%facts%buffers))
    program%uniforms = ''
    program%element_bytes = 0
    slot = 0
    at = index(program%text, 'uniform uvec3 count;')
    do i = 1, size(program%facts%arguments)
      associate (argument => program%facts%arguments(i))
        if (argument%offset >= 0) slot = slot + 1
        if (argument%kind == C_ARGUMENT_SCALAR .and. program%used_method == PARAMS_UNIFORM) then
          ! Uniforms stand in the order of the arguments.
          at = at + index(program%text(at + 1:), 'uniform ')
          program%uniforms(slot) = word_at(program%text, at + len('uniform ') + len_trim(argument%type_str) + 1)
        else if (argument%kind == C_ARGUMENT_ELEMENT) then
          if (index(program%text, ' ' // buffer_name_in(program%text, argument%slot) // '[sparkle_index]') > 0 .or. &
            index(program%text, '(' // buffer_name_in(program%text, argument%slot) // '[sparkle_index]') > 0) &
            program%element_bytes(argument%slot + 1) = argument%bytes
        end if
      end associate
    end do
  end subroutine find_names

  !> The program of a kernel in a file, with the file's present text, from those that are kept or a new one. Null if the
  !> kernel does not compile or build. `numbers` are the scalars' values if PARAMS_INLINE needs them.
  function kept_program(filename, kernel_name, method, numbers) result(program)
    character(len=*), intent(in) :: filename, kernel_name
    integer, intent(in) :: method
    real(real64), intent(in) :: numbers(:)
    type(kernel_program), pointer :: program
    character(len=:), allocatable :: source
    type(kernel_facts) :: facts
    real(real64), allocatable :: values(:)
    logical :: are_right
    integer :: i, place

    program => null()
    call read_text(filename, source)
    place = 0
    do i = 1, KEPT
      if (.not. allocated(source) .or. .not. allocated(entries(i)%source)) cycle
      if (entries(i)%kernel_name /= kernel_name .or. entries(i)%source /= source) cycle
      facts = entries(i)%program%facts
      if (entries(i)%method /= method .or. (entries(i)%is_es .neqv. context_is_es())) cycle
      if (method == PARAMS_INLINE .and. .not. are_same(entries(i)%numbers, numbers)) cycle
      place = i
      exit
    end do
    if (.not. allocated(facts%source)) call read_kernel(filename, kernel_name, facts)
    if (.not. allocated(facts%source)) return
    uses = uses + 1
    if (place == 0) then
      place = minloc(entries%last_use, 1)
      call renew()
    else if (.not. is_built(entries(place)%program)) then
      call renew()
    end if
    if (.not. allocated(entries(place)%source)) return
    entries(place)%last_use = uses
    program => entries(place)%program

  contains

    subroutine renew()
      call discard(entries(place)%program)
      if (allocated(entries(place)%source)) deallocate (entries(place)%source)
      if (method == PARAMS_INLINE .and. size(numbers) > 0) then
        call slot_values(facts, numbers, values, are_right)
        if (.not. are_right) return
        call build(entries(place)%program, facts, method, [0, 0, 0], values)
      else
        call build(entries(place)%program, facts, method, [0, 0, 0])
      end if
      if (entries(place)%program%id == 0) return
      entries(place)%kernel_name = kernel_name
      entries(place)%source = facts%source
      entries(place)%method = method
      entries(place)%is_es = context_is_es()
      entries(place)%numbers = numbers
    end subroutine renew
  end function kept_program

  pure logical function are_same(a, b)
    real(real64), intent(in) :: a(:), b(:)

    are_same = .false.
    if (size(a) == size(b)) are_same = all(transfer(a, [0_int64], size(a)) == transfer(b, [0_int64], size(b)))
  end function are_same

  !> Runs a program for `global_size` points, with a buffer for each binding. Everything is checked first; where
  !> something is wrong, nothing runs.
  !>
  !> `values` are those of the index arguments and scalars. Without them, PARAMS_BUFFER uses what the program bound at
  !> index 15, and kernels with scalars have no other way. `block` is a buffer for them; without it one is made and
  !> deleted. `times` repeats the dispatch; `kernel_ms` is the time of one by the GPU's clock, or by the host's where the
  !> context has no timestamps.
  !>
  !> The buffers stay bound. The program in use and the buffer at index 15 are as before.
  subroutine launch(program, buffers, global_size, succeeded, values, block, times, kernel_ms)
    type(kernel_program), intent(in) :: program
    integer(int64), intent(in) :: buffers(:)
    integer, intent(in) :: global_size
    logical, intent(out) :: succeeded
    real(real64), intent(in), optional :: values(:)
    integer(c_int32_t), intent(in), optional :: block
    integer, intent(in), optional :: times
    real(real64), intent(out), optional :: kernel_ms
    type(saved_storage) :: callers_block
    integer(c_int32_t) :: earlier, made(1)
    integer(int64) :: grid(3)
    logical :: has_scalars

    succeeded = .false.
    if (present(kernel_ms)) kernel_ms = -1.0_real64
    if (program%id == 0 .or. .not. buffers_suffice(program, buffers, global_size)) return
    grid = grid_of(program, global_size)
    if (any(grid < 1) .and. global_size > 0) return
    has_scalars = program%facts%slots > program%facts%indices
    callers_block = save_storage(PARAMETER_BINDING)
    if (has_scalars .and. program%used_method /= PARAMS_INLINE .and. .not. present(values)) then
      if (program%used_method /= PARAMS_BUFFER) return
      if (bytes_at(callers_block) < program%facts%parameter_bytes) return
    end if
    succeeded = .true.
    if (global_size == 0) return

    call gl_forget_errors()
    earlier = int(gl_integer(GL_CURRENT_PROGRAM), c_int32_t)
    call glUseProgram(program%id)
    made = 0
    if (has_scalars .and. present(values)) then
      if (program%used_method == PARAMS_UNIFORM) call set_uniforms(program, values)
      if (program%used_method == PARAMS_BUFFER) then
        if (present(block)) then
          call fill_block(program%facts, block, values)
        else
          made = make_buffer(program%facts%parameter_bytes)
          call fill_block(program%facts, made(1), values)
        end if
      end if
    end if
    call bind_buffers(program, buffers)
    call glUniform3ui(uniform_at(program%id, 'first'), 0_c_int32_t, 0_c_int32_t, 0_c_int32_t)
    call glUniform3ui(uniform_at(program%id, 'count'), int(global_size, c_int32_t), 1_c_int32_t, 1_c_int32_t)
    if (present(kernel_ms)) then
      kernel_ms = timed(grid, max(1, times))
    else
      call dispatch(grid)
    end if
    if (has_scalars .and. program%used_method == PARAMS_BUFFER) call restore_storage(callers_block)
    if (made(1) /= 0) call glDeleteBuffers(1_c_int32_t, made)
    call glUseProgram(earlier)
    succeeded = .not. gl_had_error()
    if (present(kernel_ms) .and. .not. succeeded) kernel_ms = -1.0_real64
  end subroutine launch

  subroutine dispatch(grid)
    integer(int64), intent(in) :: grid(3)

    call glDispatchCompute(int(grid(1), c_int32_t), int(grid(2), c_int32_t), int(grid(3), c_int32_t))
    call glMemoryBarrier(GL_ALL_BARRIER_BITS)
  end subroutine dispatch

  !> Milliseconds of a dispatch, the mean of several after one that is not counted.
  real(real64) function timed(grid, times)
    integer(int64), intent(in) :: grid(3)
    integer, intent(in) :: times
    real(real64) :: begin
    integer(int64) :: wall
    integer :: i

    call dispatch(grid)
    call glFinish()
    begin = timestamp_ms()
    wall = clock_ns()
    do i = 1, times
      call dispatch(grid)
    end do
    timed = elapsed_ms(begin, wall) / times
  end function timed

  !> Milliseconds since `begin` on the GPU's clock, when all work is done; by the host's clock, in nanoseconds, if
  !> `begin` is negative.
  real(real64) function elapsed_ms(begin, wall)
    real(real64), intent(in) :: begin
    integer(int64), intent(in) :: wall
    real(real64) :: end

    end = -1.0_real64
    if (begin >= 0.0_real64) end = timestamp_ms()
    call glFinish()
    elapsed_ms = merge(end - begin, real(clock_ns() - wall, real64) / 1.0e6_real64, end > begin)
  end function elapsed_ms

  !> Whether there is a valid buffer for each binding, as long as the points need.
  logical function buffers_suffice(program, buffers, global_size)
    type(kernel_program), intent(in) :: program
    integer(int64), intent(in) :: buffers(:)
    integer, intent(in) :: global_size
    integer :: i

    associate (facts => program%facts)
      buffers_suffice = facts%dims == 1 .and. .not. facts%has_reduction .and. global_size >= 0 .and. &
        global_size <= huge(0_c_int32_t) .and. size(buffers) >= facts%buffers
      if (.not. buffers_suffice) return
      do i = 1, facts%buffers
        buffers_suffice = is_buffer_here(buffers(i))
        if (buffers_suffice) buffers_suffice = gl_bytes_of(buffers(i)) >= &
          max(1_int64, int(program%element_bytes(i), int64) * global_size)
        if (.not. buffers_suffice) return
      end do
    end associate
  end function buffers_suffice

  !> Workgroups along each axis; zeros if the driver does not allow so many. The text numbers them through.
  function grid_of(program, global_size) result(grid)
    type(kernel_program), intent(in) :: program
    integer, intent(in) :: global_size
    integer(int64) :: grid(3), most(3), groups, each

    each = product(int(program%local_size, int64))
    groups = (global_size + each - 1) / each
    most = largest_grid()
    grid = [min(groups, most(1)), 1_int64, 1_int64]
    if (groups <= most(1)) return
    grid(2) = (groups + most(1) - 1) / most(1)
    ! Surplus workgroups would reach the barriers of a kernel that guards itself.
    if (grid(2) > most(2) .or. program%facts%has_own_local_size) grid = 0
  end function grid_of

  subroutine bind_buffers(program, buffers)
    type(kernel_program), intent(in) :: program
    integer(int64), intent(in) :: buffers(:)
    integer :: i

    do i = 1, program%facts%buffers
      call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, int(i - 1, c_int32_t), int(buffers(i), c_int32_t))
    end do
  end subroutine bind_buffers

  subroutine set_uniforms(program, values)
    type(kernel_program), intent(in) :: program
    real(real64), intent(in) :: values(:)
    integer(c_int32_t) :: location
    integer :: i, slot

    slot = 0
    do i = 1, size(program%facts%arguments)
      associate (argument => program%facts%arguments(i))
        if (argument%offset < 0) cycle
        slot = slot + 1
        if (program%uniforms(slot) == '') cycle
        location = uniform_at(program%id, program%uniforms(slot))
        select case (argument%type)
        case (SPARKLE_TYPE_REAL32)
          call glUniform1f(location, real(values(slot), c_float))
        case (SPARKLE_TYPE_REAL64)
          call glUniform1d(location, real(values(slot), c_double))
        case (SPARKLE_TYPE_LOGICAL)
          call glUniform1i(location, merge(1_c_int32_t, 0_c_int32_t, abs(values(slot)) > 0.0_real64))
        case default
          call glUniform1i(location, nint(values(slot), c_int32_t))
        end select
      end associate
    end do
  end subroutine set_uniforms

  !> Writes the parameter block to a buffer and binds it at index 15.
  subroutine fill_block(facts, block, values)
    type(kernel_facts), intent(in) :: facts
    integer(c_int32_t), intent(in) :: block
    real(real64), intent(in) :: values(:)
    integer(c_int8_t), allocatable, target :: bytes(:)
    integer :: i, slot

    allocate (bytes(facts%parameter_bytes))
    bytes = 0
    slot = 0
    do i = 1, size(facts%arguments)
      associate (argument => facts%arguments(i))
        if (argument%offset < 0) cycle
        slot = slot + 1
        if (argument%kind /= C_ARGUMENT_SCALAR) cycle
        bytes(argument%offset + 1:argument%offset + argument%bytes) = bytes_of(argument%type, values(slot))
      end associate
    end do
    call glBindBuffer(GL_SHADER_STORAGE_BUFFER, block)
    call glBufferSubData(GL_SHADER_STORAGE_BUFFER, 0_c_int64_t, size(bytes, kind=c_int64_t), c_loc(bytes))
    call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, int(PARAMETER_BINDING, c_int32_t), block)
  end subroutine fill_block

  !> The bytes of a value of one of SPARKLE_TYPE_* in memory.
  function bytes_of(type, value) result(bytes)
    integer(c_int32_t), intent(in) :: type
    real(real64), intent(in) :: value
    integer(c_int8_t), allocatable :: bytes(:)
    integer(c_int8_t) :: mold(1)

    select case (type)
    case (SPARKLE_TYPE_REAL32)
      bytes = transfer(real(value, c_float), mold)
    case (SPARKLE_TYPE_REAL64)
      bytes = transfer(real(value, c_double), mold)
    case (SPARKLE_TYPE_INT32)
      bytes = transfer(nint(value, c_int32_t), mold)
    case default
      bytes = transfer(merge(1_c_int32_t, 0_c_int32_t, abs(value) > 0.0_real64), mold)
    end select
  end function bytes_of
end module sparkle_kernel_programs
