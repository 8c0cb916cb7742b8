!> GLSL text for a convolution, with the bindings and parameters of the reference interface: for
!> `gpu_execute_conv2d_with_shader`, `gpu_compile_custom_shader_fortran`, or the program's own GL calls.
!>
!> A text is optimised for one shape and any batch size. With parameters of another shape its results are right, but it
!> is slower. Any grid computes all outputs. It always computes in fp32; `use_fp16` has no effect.
module sparkle_glsl_generator
  use, intrinsic :: iso_c_binding, only: c_int32_t
  use sparkle_reference_shaders, only: c_shader_options, convolution_config, shader_text
  implicit none
  private
  public :: convolution_config, generate_conv_glsl_shader

contains

  !> A tiled kernel that uses shared memory; empty if the sizes are not a valid convolution.
  function generate_conv_glsl_shader(config) result(shader_source)
    type(convolution_config), intent(in) :: config
    character(len=:), allocatable :: shader_source
    integer :: side

    side = 16
    if (config%tile_size >= 4) side = 2**min(5, int(log(real(config%tile_size) + 0.5) / log(2.0)))
    shader_source = shader_text(config, &
      c_shader_options(threads_x=int(side, c_int32_t), threads_y=int(side, c_int32_t), shared=1_c_int32_t))
  end function generate_conv_glsl_shader
end module sparkle_glsl_generator
