!> Common helpers of the reference shader modules: the library's device detection, shader generator and tuning history.
!>
!> `device_id` is the N of `gl:N`. Private to those modules.
module sparkle_reference_shaders
  use, intrinsic :: iso_c_binding, only: c_char, c_double, c_int32_t, c_int64_t, c_null_char, c_null_ptr, c_ptr, &
    c_size_t, c_loc
  use sparkle_c, only: c_conv2d_desc, c_device_count, c_device_describe, c_device_info, SPARKLE_OK
  use sparkle_support, only: decimal, text_in
  implicit none
  private
  public :: c_architecture, c_shader_options, convolution_config
  public :: architecture_of, shader_text, load_tuning_record, save_tuning_record, text_of

  !> A convolution; `sparkle_glsl_generator` makes this type public.
  type :: convolution_config
    integer :: input_height = 0, input_width = 0, input_channels = 0
    integer :: kernel_height = 0, kernel_width = 0
    integer :: output_height = 0, output_width = 0, output_channels = 0
    integer :: stride_y = 1, stride_x = 1
    integer :: pad_y = 0, pad_x = 0
    !> Workgroups are tile_size x tile_size: 4, 8, 16 or 32; other values are rounded down to one of these, below 4 to
    !> 16.
    integer :: tile_size = 16
    logical :: use_fp16 = .false.
  end type convolution_config

  type, bind(C) :: c_architecture
    integer(c_size_t) :: size = 0
    integer(c_int32_t) :: rdna_generation = 0
    integer(c_int32_t) :: subgroup_size = 0
    integer(c_int32_t) :: subgroup_size_reported = 0
    integer(c_int32_t) :: compute_units = 0
    integer(c_int32_t) :: compute_units_reported = 0
    integer(c_int32_t) :: dual_issue = 0
    integer(c_int32_t) :: matrix_units = 0
    integer(c_int32_t) :: cache_line = 0
    integer(c_int32_t) :: registers = 0
    integer(c_int32_t) :: max_workgroup = 0
    integer(c_int64_t) :: shared_memory = 0
    integer(c_int64_t) :: local_memory = 0
    real(c_double) :: flops = 0.0_c_double
    real(c_double) :: bandwidth = 0.0_c_double
    character(kind=c_char) :: vendor(32) = c_null_char
    character(kind=c_char) :: name(32) = c_null_char
  end type c_architecture

  type, bind(C) :: c_shader_options
    integer(c_size_t) :: size = 0
    integer(c_int32_t) :: threads_x = 0
    integer(c_int32_t) :: threads_y = 0
    integer(c_int32_t) :: registers = 0
    integer(c_int32_t) :: shared = 0
    integer(c_int32_t) :: chains = 0
    integer(c_int32_t) :: reserved = 0
  end type c_shader_options

  type, bind(C) :: c_tuning_record
    integer(c_size_t) :: size = 0
    integer(c_int64_t) :: runs = 0
    real(c_double) :: mean_ms = 0.0_c_double
    real(c_double) :: rate = 0.0_c_double
  end type c_tuning_record

  interface
    function c_device_architecture(index, architecture) bind(C, name="sparkle_device_architecture") result(status)
      import :: c_architecture, c_int32_t, c_size_t
      integer(c_size_t), value :: index
      type(c_architecture), intent(inout) :: architecture
      integer(c_int32_t) :: status
    end function c_device_architecture

    function c_shader_source(desc, options, text, capacity, length) bind(C, name="sparkle_shader_source") result(status)
      import :: c_conv2d_desc, c_int32_t, c_ptr, c_shader_options, c_size_t
      type(c_conv2d_desc), intent(in) :: desc
      type(c_shader_options), intent(in) :: options
      type(c_ptr), value :: text
      integer(c_size_t), value :: capacity
      integer(c_size_t), intent(inout) :: length
      integer(c_int32_t) :: status
    end function c_shader_source

    function c_tuning_history_load(index, task, variant, record) bind(C, name="sparkle_tuning_history_load") result(status)
      import :: c_char, c_tuning_record, c_int32_t, c_size_t
      integer(c_size_t), value :: index
      character(kind=c_char), intent(in) :: task(*)
      character(kind=c_char), intent(in) :: variant(*)
      type(c_tuning_record), intent(inout) :: record
      integer(c_int32_t) :: status
    end function c_tuning_history_load

    function c_tuning_history_save(index, task, variant, record) bind(C, name="sparkle_tuning_history_save") result(status)
      import :: c_char, c_tuning_record, c_int32_t, c_size_t
      integer(c_size_t), value :: index
      character(kind=c_char), intent(in) :: task(*)
      character(kind=c_char), intent(in) :: variant(*)
      type(c_tuning_record), intent(in) :: record
      integer(c_int32_t) :: status
    end function c_tuning_history_save
  end interface

contains

  !> The library's description of a device. Returns whether the device exists.
  logical function architecture_of(device_id, architecture)
    integer, intent(in) :: device_id
    type(c_architecture), intent(out) :: architecture
    integer(c_size_t) :: index

    architecture%size = storage_size(architecture) / 8
    architecture_of = listed(device_id, index)
    if (architecture_of) architecture_of = c_device_architecture(index, architecture) == SPARKLE_OK
  end function architecture_of

  !> Finds the index of `gl:device_id` in the list of all devices.
  logical function listed(device_id, index)
    integer, intent(in) :: device_id
    integer(c_size_t), intent(out) :: index
    type(c_device_info) :: info
    integer(c_size_t) :: count

    listed = .false.
    index = 0
    count = 0
    if (c_device_count(count) /= SPARKLE_OK) return
    do while (index < count)
      info%size = storage_size(info) / 8
      if (c_device_describe(index, info) == SPARKLE_OK) then
        listed = text_in(info%id) == 'gl:' // decimal(int(device_id, c_int64_t))
        if (listed) return
      end if
      index = index + 1
    end do
  end function listed

  !> The generator's text for a convolution; empty if the sizes are not a valid convolution.
  function shader_text(config, options) result(text)
    type(convolution_config), intent(in) :: config
    type(c_shader_options), intent(in) :: options
    character(len=:), allocatable :: text
    type(c_conv2d_desc) :: desc
    type(c_shader_options) :: wish
    character(kind=c_char), allocatable, target :: characters(:)
    integer(c_size_t) :: length

    text = ''
    if (.not. is_sound(config)) return
    desc = as_desc(config)
    desc%size = storage_size(desc) / 8
    wish = options
    wish%size = storage_size(wish) / 8
    length = 0
    if (c_shader_source(desc, wish, c_null_ptr, 0_c_size_t, length) /= SPARKLE_OK) return
    allocate (characters(length + 1))
    if (c_shader_source(desc, wish, c_loc(characters), length + 1, length) == SPARKLE_OK) text = text_in(characters)
  end function shader_text

  !> Whether the output's size matches the other sizes. The library checks everything else.
  pure logical function is_sound(config)
    type(convolution_config), intent(in) :: config

    is_sound = .false.
    if (min(config%stride_y, config%stride_x) < 1 .or. min(config%kernel_height, config%kernel_width) < 1) return
    is_sound = fits(config%input_height, config%kernel_height, config%stride_y, config%pad_y, config%output_height) &
      .and. fits(config%input_width, config%kernel_width, config%stride_x, config%pad_x, config%output_width)
  end function is_sound

  pure logical function fits(input, kernel, stride, pad, output)
    integer, intent(in) :: input, kernel, stride, pad, output
    integer(c_int64_t) :: room

    room = int(input, c_int64_t) + 2_c_int64_t * pad - kernel
    fits = room >= 0 .and. output == room / stride + 1
  end function fits

  pure type(c_conv2d_desc) function as_desc(config)
    type(convolution_config), intent(in) :: config

    as_desc = c_conv2d_desc(c=int(config%input_channels, c_int64_t), h=int(config%input_height, c_int64_t), &
      w=int(config%input_width, c_int64_t), k=int(config%output_channels, c_int64_t), &
      r=int(config%kernel_height, c_int64_t), s=int(config%kernel_width, c_int64_t), &
      stride_h=int(config%stride_y, c_int64_t), stride_w=int(config%stride_x, c_int64_t), &
      pad_h=int(config%pad_y, c_int64_t), pad_w=int(config%pad_x, c_int64_t))
  end function as_desc

  !> Loads the record of `variant` for `task`; `runs` is 0 if there is none.
  subroutine load_tuning_record(device_id, task, variant, runs, mean_ms, rate)
    integer, intent(in) :: device_id
    character(len=*), intent(in) :: task, variant
    integer, intent(out) :: runs
    real, intent(out) :: mean_ms, rate
    type(c_tuning_record) :: record
    integer(c_size_t) :: index

    runs = 0
    mean_ms = 0.0
    rate = 0.0
    if (.not. listed(device_id, index)) return
    record%size = storage_size(record) / 8
    if (c_tuning_history_load(index, task // c_null_char, variant // c_null_char, record) /= SPARKLE_OK) return
    runs = int(min(record%runs, int(huge(runs) - 1, c_int64_t)))
    mean_ms = real(record%mean_ms)
    rate = real(record%rate)
  end subroutine load_tuning_record

  !> Saves the record of `variant` for `task`, if the device exists.
  subroutine save_tuning_record(device_id, task, variant, runs, mean_ms, rate)
    integer, intent(in) :: device_id
    character(len=*), intent(in) :: task, variant
    integer, intent(in) :: runs
    real, intent(in) :: mean_ms, rate
    type(c_tuning_record) :: record
    integer(c_size_t) :: index
    integer(c_int32_t) :: ignored

    if (.not. listed(device_id, index)) return
    record = c_tuning_record(size=storage_size(record) / 8, runs=int(runs, c_int64_t), &
      mean_ms=real(mean_ms, c_double), rate=real(rate, c_double))
    ! If this fails, the variant is only measured again.
    ignored = c_tuning_history_save(index, task // c_null_char, variant // c_null_char, record)
  end subroutine save_tuning_record

  !> The NUL-terminated text in a C array.
  pure function text_of(characters) result(text)
    character(kind=c_char), intent(in) :: characters(:)
    character(len=:), allocatable :: text

    text = text_in(characters)
  end function text_of
end module sparkle_reference_shaders
