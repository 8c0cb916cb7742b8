!> GLSL for a convolution, as existing programs ask for it: text that compiles, with the reference interface's bindings and
!> parameters, for `gpu_execute_conv2d_with_shader`, `gpu_compile_custom_shader_fortran`, or calls of their own.
!>
!> A text is made for one shape, whatever the batch; with parameters of another shape it is right, only slower. Whatever the
!> grid, every output is computed. It computes in fp32, also where `use_fp16` would have allowed less.
module sparkle_glsl_generator
  use, intrinsic :: iso_c_binding, only: c_int32_t
  use sparkle_reference_shaders, only: c_shader_options, convolution_config, shader_text
  implicit none
  private
  public :: convolution_config, generate_conv_glsl_shader

contains

  !> A tiled kernel through shared memory; empty if the sizes are not those of a convolution.
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
