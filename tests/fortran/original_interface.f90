!> An existing program with unchanged modules. It binds the C symbols of the reference interface itself and is linked with
!> libsparkle instead of the C file that defined them. Needs a GL device.
module own_interface
  use, intrinsic :: iso_c_binding
  implicit none
  public

  type, bind(C) :: own_params
    integer(c_int) :: N, H, W, C, K, kernel_size, stride, pad, H_out, W_out
  end type own_params

  interface
    function gpu_initialize_opengl() bind(C, name="gpu_initialize_opengl")
      import :: c_int
      integer(c_int) :: gpu_initialize_opengl
    end function gpu_initialize_opengl

    subroutine gpu_cleanup_opengl() bind(C, name="gpu_cleanup_opengl")
    end subroutine gpu_cleanup_opengl

    function gpu_is_initialized() bind(C, name="gpu_is_initialized")
      import :: c_int
      integer(c_int) :: gpu_is_initialized
    end function gpu_is_initialized

    function gpu_compile_conv2d_shader() bind(C, name="gpu_compile_conv2d_shader")
      import :: c_int
      integer(c_int) :: gpu_compile_conv2d_shader
    end function gpu_compile_conv2d_shader

    function gpu_get_compute_program() bind(C, name="gpu_get_compute_program")
      import :: c_int
      integer(c_int) :: gpu_get_compute_program
    end function gpu_get_compute_program

    !> Arrays as raw pointers, as existing modules pass them.
    function gpu_execute_conv2d_fortran(input, weights, output, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) &
      bind(C, name="gpu_execute_conv2d_fortran")
      import :: c_float, c_int, c_ptr
      type(c_ptr), value :: input, weights, output
      integer(c_int), value :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
      real(c_float) :: gpu_execute_conv2d_fortran
    end function gpu_execute_conv2d_fortran

    function gpu_execute_conv2d(input, weights, output, params) bind(C, name="gpu_execute_conv2d")
      import :: c_double, c_ptr, own_params
      type(c_ptr), value :: input, weights, output
      type(own_params), intent(in) :: params
      real(c_double) :: gpu_execute_conv2d
    end function gpu_execute_conv2d

    function gpu_execute_conv2d_with_shader(input, weights, output, N, C, H, W, K, kernel_size, stride, pad, &
      H_out, W_out, shader_source) bind(C, name="gpu_execute_conv2d_with_shader")
      import :: c_char, c_float, c_int, c_ptr
      type(c_ptr), value :: input, weights, output
      integer(c_int), value :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
      character(kind=c_char), intent(in) :: shader_source(*)
      real(c_float) :: gpu_execute_conv2d_with_shader
    end function gpu_execute_conv2d_with_shader
  end interface
end module own_interface

program original_interface
  use checks
  use own_interface
  implicit none
  type(conv), parameter :: SHAPES(4) = [conv(n=1, c=2, h=4, w=4, k=3, r=3, s=3), &
    conv(n=2, c=5, h=9, w=7, k=4, r=1, s=1, stride_h=2, stride_w=2), &
    conv(n=3, c=2, h=6, w=9, k=5, r=3, s=3, pad_h=1, pad_w=1), &
    conv(n=2, c=3, h=13, w=11, k=8, r=7, s=7, stride_h=2, stride_w=2, pad_h=3, pad_w=3)]
  character(len=*), parameter :: NL = new_line('a')
  character(len=*), parameter :: ONES = '#version 430 core' // NL // 'layout(local_size_x = 64) in;' // NL // &
    'layout(std430, binding = 2) writeonly buffer Y { float y[]; };' // NL // &
    'layout(std430, binding = 3) readonly buffer P { int N, H, W, C, K, ks, stride, pad, Ho, Wo; };' // NL // &
    'void main() { uint i = gl_GlobalInvocationID.x; if (i < uint(N * K * Ho * Wo)) y[i] = 1.0 + float(C); }' // NL
  integer :: i

  call check(gpu_is_initialized() == 0 .and. gpu_get_compute_program() == 0, 'not initialised at first')
  ! The first call initialises the interface.
  do i = 1, size(SHAPES)
    call one_shape(SHAPES(i), i)
  end do
  call check(gpu_is_initialized() == 1 .and. gpu_get_compute_program() > 0, 'initialised by the call')
  call gpu_cleanup_opengl()
  call check(gpu_is_initialized() == 0 .and. gpu_get_compute_program() == 0, 'not initialised after cleanup')
  call check(gpu_initialize_opengl() == 1 .and. gpu_compile_conv2d_shader() == 1, 'initialised again')
  call one_shape(SHAPES(3), 9)
  call own_shader(SHAPES(2))
  call one_shape(SHAPES(2), 10)
  call gpu_cleanup_opengl()
  call finish()

contains

  subroutine one_shape(cv, seed)
    type(conv), intent(in) :: cv
    integer, intent(in) :: seed
    real(c_float), target :: x(cv%x_len()), w(cv%w_len()), y(cv%y_len())
    real(c_float) :: time

    x = data_of(size(x), seed)
    w = data_of(size(w), seed + 50)
    y = huge(y)
    time = gpu_execute_conv2d_fortran(c_loc(x), c_loc(w), c_loc(y), cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, &
      cv%pad_h, cv%p(), cv%q())
    call check(time >= 0.0_c_float .and. agrees(cv, x, w, y), 'separate integers, C second')
    y = huge(y)
    time = real(gpu_execute_conv2d(c_loc(x), c_loc(w), c_loc(y), own_params(N=cv%n, H=cv%h, W=cv%w, C=cv%c, K=cv%k, &
      kernel_size=cv%r, stride=cv%stride_h, pad=cv%pad_h, H_out=cv%p(), W_out=cv%q())), c_float)
    call check(time >= 0.0_c_float .and. agrees(cv, x, w, y), 'a structure, C fourth')
    y = 5.0_c_float
    time = gpu_execute_conv2d_fortran(c_loc(x), c_loc(w), c_loc(y), cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, 0, &
      cv%pad_h, cv%p(), cv%q())
    call check(abs(time + 1.0_c_float) <= 0.0_c_float .and. all(abs(y - 5.0_c_float) <= 0.0_c_float), 'stride 0 is -1')
    time = gpu_execute_conv2d_fortran(c_null_ptr, c_loc(w), c_loc(y), cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, &
      cv%pad_h, cv%p(), cv%q())
    call check(abs(time + 1.0_c_float) <= 0.0_c_float .and. all(abs(y - 5.0_c_float) <= 0.0_c_float), 'NULL is -1')
  end subroutine one_shape

  subroutine own_shader(cv)
    type(conv), intent(in) :: cv
    real(c_float), target :: x(cv%x_len()), w(cv%w_len()), y(cv%y_len())
    real(c_float) :: time

    x = 1.0_c_float
    w = 1.0_c_float
    y = huge(y)
    time = gpu_execute_conv2d_with_shader(c_loc(x), c_loc(w), c_loc(y), cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, &
      cv%pad_h, cv%p(), cv%q(), ONES // c_null_char)
    call check(time >= 0.0_c_float .and. all(abs(y - (1.0_c_float + cv%c)) <= 0.0_c_float), 'the program''s own shader')
    time = gpu_execute_conv2d_with_shader(c_loc(x), c_loc(w), c_loc(y), cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, &
      cv%pad_h, cv%p(), cv%q(), 'no shader' // c_null_char)
    call check(abs(time + 1.0_c_float) <= 0.0_c_float, 'a bad shader is -1')
  end subroutine own_shader
end program original_interface
