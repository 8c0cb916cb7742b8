!> GLSL text for a convolution with options for AMD's RDNA; its results are right on every GPU.
!>
!> The text has the properties that `sparkle_glsl_generator` describes.
module sparkle_rdna_shader_generator
  use, intrinsic :: iso_c_binding, only: c_int32_t
  use sparkle_reference_shaders, only: architecture_of, c_architecture, c_shader_options, convolution_config, shader_text
  implicit none
  private
  public :: generate_rdna_conv_shader, rdna_config, rdna_arch, detect_rdna_arch

  !> A GPU's architecture; 0 means unknown.
  type :: rdna_arch
    !> 1 to 4; 0 if it is not RDNA.
    integer :: generation = 0
    integer :: wave_size = 0
    integer :: compute_units = 0
    !> Operations per instruction: 2 from RDNA 3 on, else 1.
    integer :: dual_issue = 1
    !> Local memory of a compute unit in bytes.
    integer :: lds_size = 0
    !> Vector registers per lane of a SIMD unit.
    integer :: vgpr_per_simd = 0
  end type rdna_arch

  type :: rdna_config
    type(rdna_arch) :: arch
    !> Threads of a workgroup; rounded down to a power of two.
    integer :: workgroup_size = 64
    !> Waves per compute unit; this limits the registers of a thread.
    integer :: waves_per_cu = 4
    !> Whether a workgroup loads its operands through local memory.
    logical :: use_lds = .false.
    !> Whether each output has two accumulators, whose multiply-adds can be issued together.
    logical :: use_dual_issue = .false.
    !> Approximate number of registers per thread.
    integer :: vgpr_usage = 64
  end type rdna_config

contains

  !> The architecture of the GPU `gl:device_id`; all fields are unknown if it does not exist.
  function detect_rdna_arch(device_id) result(arch)
    integer, intent(in) :: device_id
    type(rdna_arch) :: arch
    type(c_architecture) :: found

    if (.not. architecture_of(device_id, found)) return
    arch%generation = int(found%rdna_generation)
    arch%wave_size = int(found%subgroup_size)
    arch%compute_units = int(found%compute_units)
    arch%dual_issue = 1 + int(found%dual_issue)
    ! If the hardware's size is unknown, use the limit of a workgroup.
    arch%lds_size = int(merge(found%local_memory, found%shared_memory, found%local_memory > 0))
    arch%vgpr_per_simd = int(found%registers)
  end function detect_rdna_arch

  !> A kernel for the convolution; empty if the sizes are not a valid convolution.
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

  !> Threads along pixels and along channels. With local memory a square shares the most operands. Without it, a whole
  !> wave reads adjacent pixels.
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

  !> Registers per thread, so that the requested waves fit on the two SIMD units of a compute unit.
  pure integer function registers(config)
    type(rdna_config), intent(in) :: config

    registers = max(config%vgpr_usage, 1)
    if (config%waves_per_cu > 0 .and. config%arch%vgpr_per_simd > 0) then
      registers = max(1, min(registers, 2 * config%arch%vgpr_per_simd / config%waves_per_cu))
    end if
  end function registers
end module sparkle_rdna_shader_generator
