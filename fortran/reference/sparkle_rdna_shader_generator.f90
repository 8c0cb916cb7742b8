!> GLSL for a convolution, cut as a program wishes: for AMD's RDNA, whose names these are, but right on every GPU.
!>
!> The text has the properties that `sparkle_glsl_generator` describes.
module sparkle_rdna_shader_generator
  use, intrinsic :: iso_c_binding, only: c_int32_t
  use sparkle_reference_shaders, only: architecture_of, c_architecture, c_shader_options, convolution_config, shader_text
  implicit none
  private
  public :: generate_rdna_conv_shader, rdna_config, rdna_arch, detect_rdna_arch

  !> What is known of a GPU; 0 is unknown.
  type :: rdna_arch
    !> 1 to 4; 0 if it is no RDNA.
    integer :: generation = 0
    integer :: wave_size = 0
    integer :: compute_units = 0
    !> Operations that an instruction can hold: 2 from RDNA 3 on, else 1.
    integer :: dual_issue = 1
    !> Bytes of local memory of a compute unit.
    integer :: lds_size = 0
    !> Vector registers that a SIMD unit has for each of its lanes.
    integer :: vgpr_per_simd = 0
  end type rdna_arch

  type :: rdna_config
    type(rdna_arch) :: arch
    !> Threads of a workgroup; a power of two, or else the next below.
    integer :: workgroup_size = 64
    !> Waves that a compute unit is to hold: a thread takes no more registers than leave room for them.
    integer :: waves_per_cu = 4
    !> Whether a workgroup reads through local memory.
    logical :: use_lds = .false.
    !> Whether two sums take turns, so that their multiply-adds can go together.
    logical :: use_dual_issue = .false.
    !> Registers that a thread may take, about.
    integer :: vgpr_usage = 64
  end type rdna_config

contains

  !> What the GPU `gl:device_id` is; all unknown if there is none.
  function detect_rdna_arch(device_id) result(arch)
    integer, intent(in) :: device_id
    type(rdna_arch) :: arch
    type(c_architecture) :: found

    if (.not. architecture_of(device_id, found)) return
    arch%generation = int(found%rdna_generation)
    arch%wave_size = int(found%subgroup_size)
    arch%compute_units = int(found%compute_units)
    arch%dual_issue = 1 + int(found%dual_issue)
    ! Where the hardware's size is not known, a workgroup's limit is what a program can have.
    arch%lds_size = int(merge(found%local_memory, found%shared_memory, found%local_memory > 0))
    arch%vgpr_per_simd = int(found%registers)
  end function detect_rdna_arch

  !> A kernel for the convolution; empty if the sizes are not those of one.
  function generate_rdna_conv_shader(config, conv_params) result(shader_source)
    type(rdna_config), intent(in) :: config
    type(convolution_config), intent(in) :: conv_params
    character(len=:), allocatable :: shader_source
    type(c_shader_options) :: options
    integer :: threads(2)

    threads = workgroup(config)
    options = c_shader_options(threads_x=int(threads(1), c_int32_t), threads_y=int(threads(2), c_int32_t), &
      registers=int(registers(config), c_int32_t), shared=merge(1_c_int32_t, 0_c_int32_t, config%use_lds), &
      chains=merge(2_c_int32_t, 1_c_int32_t, config%use_dual_issue))
    shader_source = shader_text(conv_params, options)
  end function generate_rdna_conv_shader

  !> Threads along pixels and along channels. Through local memory a square shares most; without, a whole wave reads pixels
  !> side by side.
  pure function workgroup(config) result(threads)
    type(rdna_config), intent(in) :: config
    integer :: threads(2)
    integer :: doublings

    doublings = min(10, int(log(max(real(config%workgroup_size), 1.0) + 0.5) / log(2.0)))
    if (config%use_lds) then
      threads(2) = 2**(doublings / 2)
    else
      threads(2) = 2**max(0, doublings - 5)
      if (doublings == 6) threads(2) = 1
    end if
    threads(1) = 2**doublings / threads(2)
  end function workgroup

  !> What a thread may take so that as many waves as wished fit beside each other on a compute unit's two SIMD units.
  pure integer function registers(config)
    type(rdna_config), intent(in) :: config

    registers = max(config%vgpr_usage, 1)
    if (config%waves_per_cu > 0 .and. config%arch%vgpr_per_simd > 0) then
      registers = max(1, min(registers, 2 * config%arch%vgpr_per_simd / config%waves_per_cu))
    end if
  end function registers
end module sparkle_rdna_shader_generator
