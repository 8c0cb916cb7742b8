!> The reference modules on a GL device: `gpu_opengl_interface` and the production modules built on it. Needs a GL device.
module reference_gpu_cases
  use, intrinsic :: iso_c_binding, only: c_loc
  use, intrinsic :: iso_fortran_env, only: int64, real32
  use checks
  use gpu_opengl_interface
  use sparkle_conv2d, only: conv2d_gpu
  use sparkle_conv2d_v2, only: conv2d, conv2d_cleanup, conv2d_init, conv2d_show_stats
  use sparkle_gpu_dispatch, only: execute_conv2d_gpu, gpu_device, gpu_free, gpu_malloc, gpu_memcpy, gpu_memory, &
    GPU_TO_HOST, HOST_TO_GPU, init_gpu_device
  implicit none
  public
  type(conv), parameter :: SHAPES(6) = [ &
    conv(n=1, c=1, h=1, w=1, k=1, r=1, s=1), &
    conv(n=1, c=2, h=4, w=4, k=3, r=3, s=3), &
    conv(n=3, c=2, h=6, w=9, k=5, r=3, s=3, pad_h=1, pad_w=1), &
    conv(n=2, c=5, h=9, w=7, k=4, r=1, s=1, stride_h=2, stride_w=2), &
    conv(n=2, c=3, h=13, w=11, k=8, r=7, s=7, stride_h=2, stride_w=2, pad_h=3, pad_w=3), &
    conv(n=1, c=7, h=5, w=8, k=2, r=5, s=5, pad_h=4, pad_w=4)]

contains

  subroutine one_shape(cv, seed)
    type(conv), intent(in) :: cv
    integer, intent(in) :: seed
    real(real32) :: x(cv%x_len()), w(cv%w_len()), y(cv%y_len()), time
    integer :: stat

    x = data_of(size(x), seed)
    w = data_of(size(w), seed + 50)
    associate (N => cv%n, C => cv%c, H => cv%h, wd => cv%w, K => cv%k, ks => cv%r, st => cv%stride_h, pad => cv%pad_h)
      y = huge(y)
      time = gpu_execute_conv2d_ref(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q())
      call check(time >= 0.0_real32 .and. agrees(cv, x, w, y), 'gpu_execute_conv2d_ref')
      y = huge(y)
      time = execute_conv2d_gpu(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q())
      call check(time >= 0.0_real32 .and. agrees(cv, x, w, y), 'execute_conv2d_gpu')
      y = huge(y)
      call conv2d_gpu(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q(), stat)
      call check(stat == 0 .and. agrees(cv, x, w, y), 'conv2d_gpu')
      y = huge(y)
      call conv2d(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q(), 'gpu', .false.)
      call check(agrees(cv, x, w, y), 'conv2d of v2')
      y = huge(y)
      call conv2d(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q(), 'gpu', .true.)
      call check(agrees(cv, x, w, y), 'conv2d of v2, asynchronous')
      y = huge(y)
      ! The environment decides whether the call is asynchronous.
      call conv2d(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q(), 'gpu')
      call check(agrees(cv, x, w, y), 'conv2d of v2, by the environment')
    end associate
  end subroutine one_shape

  subroutine life_cycle()
    type(gpu_device) :: device

    call check(gpu_init() .and. gpu_init(), 'gpu_init, twice')
    call check(gpu_compile_shaders(), 'gpu_compile_shaders')
    call check(gpu_get_program_id() > 0, 'a program')
    call gpu_cleanup()
    call check(gpu_get_program_id() == 0, 'no program after gpu_cleanup')
    call gpu_cleanup()
    call one_shape(SHAPES(3), 5)
    call gpu_cleanup()
    call check(gpu_init(), 'gpu_init after gpu_cleanup')
    device = init_gpu_device()
    call check(device%initialized .and. device%opengl_ready .and. device%name /= '', 'a device')
    call check(device%memory_free >= 0 .and. device%memory_total >= 0 .and. device%compute_units >= 0, 'its numbers')
    call conv2d_init()
  end subroutine life_cycle

  !> conv2d_cleanup in one part of a program leaves the buffers of other parts unchanged.
  subroutine cleanup_of_one_part(cv)
    type(conv), intent(in) :: cv
    real(real32), target :: sent(50), received(50)
    real(real32) :: x(cv%x_len()), w(cv%w_len()), y(cv%y_len())
    type(gpu_memory) :: mem

    sent = data_of(50, 61)
    received = 0.0_real32
    mem = gpu_malloc(200_int64)
    call gpu_memcpy(mem, c_loc(sent), 200_int64, HOST_TO_GPU)
    x = data_of(size(x), 62)
    w = data_of(size(w), 63)
    call conv2d_init()
    call conv2d(x, w, y, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, cv%p(), cv%q(), 'gpu')
    call conv2d_cleanup()
    call gpu_memcpy(mem, c_loc(received), 200_int64, GPU_TO_HOST)
    call check(agrees(cv, x, w, y) .and. same_bits(sent, received), 'memory of another part')
    call gpu_free(mem)
  end subroutine cleanup_of_one_part

  subroutine strided_and_bad(cv)
    type(conv), intent(in) :: cv
    real(real32) :: x(2 * cv%x_len()), w(3 * cv%w_len()), y(2 * cv%y_len()), before(2 * cv%y_len()), time

    x = data_of(size(x), 71)
    w = data_of(size(w), 72)
    y = data_of(size(y), 73)
    before = y
    time = gpu_execute_conv2d_ref(x(2::2), w(size(w):1:-3), y(1::2), cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, &
      cv%stride_h, cv%pad_h, cv%p(), cv%q())
    call check(time >= 0.0_real32 .and. agrees(cv, x(2::2), w(size(w):1:-3), y(1::2)), 'strided sections')
    call check(same_bits(y(2::2), before(2::2)), 'the gaps are unchanged')

    y = before
    time = gpu_execute_conv2d_ref(x, w, y, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, cv%p() + 1, cv%q())
    call check(time < -0.5_real32 .and. same_bits(y, before), 'H_out that does not fit')
    time = gpu_execute_conv2d_ref(x(1:3), w, y, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, cv%p(), cv%q())
    call check(time < -0.5_real32 .and. same_bits(y, before), 'input too short')
    time = gpu_execute_conv2d_ref(x, w, y(1:5:2), cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, &
      cv%p(), cv%q())
    call check(time < -0.5_real32 .and. same_bits(y, before), 'output too short')
    time = execute_conv2d_gpu(x, w, y, 0, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, cv%p(), cv%q())
    call check(time < -0.5_real32 .and. same_bits(y, before), 'N = 0')
    time = execute_conv2d_gpu(x, w, y, cv%n, cv%c, cv%h, cv%w, -1, cv%r, cv%stride_h, cv%pad_h, cv%p(), cv%q())
    call check(time < -0.5_real32 .and. same_bits(y, before), 'K negative')
    time = execute_conv2d_gpu(x, w, y, huge(0), huge(0), cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, cv%p(), cv%q())
    call check(time < -0.5_real32 .and. same_bits(y, before), 'sizes that overflow')
  end subroutine strided_and_bad

  !> A user's kernel, which computes the negative of the convolution.
  subroutine custom_shader(cv)
    type(conv), intent(in) :: cv
    character(len=*), parameter :: NL = new_line('a')
    character(len=*), parameter :: SOURCE = &
      '#version 430 core' // NL // &
      'layout(local_size_x = 32) in;' // NL // &
      'layout(std430, binding = 0) readonly buffer X { float x[]; };' // NL // &
      'layout(std430, binding = 1) readonly buffer W { float w[]; };' // NL // &
      'layout(std430, binding = 2) writeonly buffer Y { float y[]; };' // NL // &
      'layout(std430, binding = 3) readonly buffer P { int N, H, Wd, C, K, ks, stride, pad, Ho, Wo; };' // NL // &
      'void main() {' // NL // &
      '  int i = int(gl_GlobalInvocationID.x);' // NL // &
      '  if (i >= N * K * Ho * Wo) return;' // NL // &
      '  int q = i % Wo, p = i / Wo % Ho, k = i / (Wo * Ho) % K, n = i / (Wo * Ho * K);' // NL // &
      '  float sum = 0.0;' // NL // &
      '  for (int c = 0; c < C; ++c) for (int r = 0; r < ks; ++r) for (int s = 0; s < ks; ++s) {' // NL // &
      '    int iy = p * stride + r - pad, ix = q * stride + s - pad;' // NL // &
      '    if (iy >= 0 && iy < H && ix >= 0 && ix < Wd)' // NL // &
      '      sum += x[((n * C + c) * H + iy) * Wd + ix] * w[((k * C + c) * ks + r) * ks + s];' // NL // &
      '  }' // NL // &
      '  y[i] = -sum;' // NL // &
      '}' // NL
    real(real32) :: x(cv%x_len()), w(cv%w_len()), y(cv%y_len()), time
    integer :: program_id

    x = data_of(size(x), 91)
    w = data_of(size(w), 92)
    call check(gpu_compile_custom_shader_fortran('this is no shader') == 0, 'a bad shader')
    program_id = gpu_compile_custom_shader_fortran(SOURCE)
    call check(program_id > 0 .and. program_id == gpu_get_program_id(), 'a custom shader replaces the reference program')
    time = gpu_execute_conv2d_custom_fortran(program_id, x, w, y, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, &
      cv%pad_h, cv%p(), cv%q())
    call check(time >= 0.0_real32 .and. agrees(cv, x, -w, y), 'it runs')
    y = huge(y)
    time = gpu_execute_conv2d_custom_fortran(0, x, w, y, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, &
      cv%pad_h, cv%p(), cv%q())
    call check(time >= 0.0_real32 .and. agrees(cv, x, -w, y), 'program 0 is the current one')
    time = gpu_execute_conv2d_custom_fortran(program_id, x(2:), w, y, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, &
      cv%pad_h, cv%p(), cv%q())
    call check(time < -0.5_real32, 'input too short for it')
    call gpu_cleanup()
    time = gpu_execute_conv2d_ref(x, w, y, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, cv%p(), cv%q())
    call check(time >= 0.0_real32 .and. agrees(cv, x, w, y), 'gpu_cleanup restores the reference program')
  end subroutine custom_shader
end module reference_gpu_cases

program reference_gpu
  use checks, only: finish
  use reference_gpu_cases
  implicit none
  integer :: i

  do i = 1, size(SHAPES)
    call one_shape(SHAPES(i), i)
  end do
  call life_cycle()
  call cleanup_of_one_part(SHAPES(3))
  call strided_and_bad(SHAPES(3))
  call custom_shader(SHAPES(3))
  call conv2d_cleanup()
  call one_shape(SHAPES(2), 2)
  call conv2d_show_stats()
  call finish()
end program reference_gpu
