!> Convolutions with shaders that `sparkle_dynamic_shader_system` chooses. It receives their times.
!>
!> Results are the GPU's milliseconds, or -1 with `output` untouched.
module gpu_dynamic_execution
  use, intrinsic :: iso_c_binding, only: c_char, c_float, c_int, c_null_char
  use, intrinsic :: iso_fortran_env, only: int64, output_unit, real32, real64
  use gpu_opengl_interface, only: gpu_execute_conv2d_ref, gpu_init
  use sparkle_dynamic_shader_system, only: find_in_cache_system, get_optimal_shader, init_shader_system, &
    shader_system, update_performance_system
  use sparkle_glsl_generator, only: convolution_config
  use sparkle_reference_support, only: arrays_suffice, conv2d_work, finish_without_status
  use sparkle_support, only: narrowed
  implicit none
  private
  public :: gpu_execute_with_dynamic_shader, gpu_benchmark_shader_variants

  !> Runs of each variant in a benchmark; the fastest counts.
  integer, parameter :: BENCHMARK_RUNS = 5

  interface
    function c_is_initialized() bind(C, name="gpu_is_initialized") result(truth)
      import :: c_int
      integer(c_int) :: truth
    end function c_is_initialized

    function c_execute_with_shader(input, weights, output, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out, &
      shader_source) bind(C, name="gpu_execute_conv2d_with_shader") result(milliseconds)
      import :: c_char, c_float, c_int
      real(c_float), intent(in) :: input(*)
      real(c_float), intent(in) :: weights(*)
      real(c_float), intent(inout) :: output(*)
      integer(c_int), value :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
      character(kind=c_char), intent(in) :: shader_source(*)
      real(c_float) :: milliseconds
    end function c_execute_with_shader
  end interface

contains

  !> Convolves with the shader that the system returns, and reports its time to the system. If a shader fails, the next
  !> is tried. Initialises the GPU if necessary.
  function gpu_execute_with_dynamic_shader(shader_sys, input, weights, output, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) result(time_ms)
    type(shader_system), intent(inout) :: shader_sys
    real(real32), intent(in) :: input(*)
    real(real32), intent(in) :: weights(*)
    real(real32), intent(inout) :: output(*)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    real(real32) :: time_ms
    character(len=:), allocatable :: source
    integer :: attempt, attempts
    integer(int64) :: multiply_adds

    time_ms = -1.0_real32
    if (.not. arrays_suffice(huge(0_int64), huge(0_int64), huge(0_int64), &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)) return
    if (.not. is_ready()) return
    multiply_adds = int(min(conv2d_work(N, C, K, kernel_size, H_out, W_out) / 2.0_real64, 9.0e18_real64), int64)
    attempts = 1
    attempt = 0
    do while (attempt < attempts)
      attempt = attempt + 1
      source = get_optimal_shader(shader_sys, 'conv2d', &
        config_of(C, H, W, K, kernel_size, stride, pad, H_out, W_out))
      if (source == '') return
      attempts = size(shader_sys%cache(find_in_cache_system(shader_sys, 'conv2d'))%variants)
      time_ms = c_execute_with_shader(input, weights, output, narrowed(N), narrowed(C), narrowed(H), narrowed(W), &
        narrowed(K), narrowed(kernel_size), narrowed(stride), narrowed(pad), narrowed(H_out), narrowed(W_out), &
        source // c_null_char)
      if (shader_sys%auto_tune .or. time_ms < 0.0_real32) then
        call update_performance_system(shader_sys, 'conv2d', 'dynamic', time_ms, multiply_adds)
      end if
      if (time_ms >= 0.0_real32) return
    end do
  end function gpu_execute_with_dynamic_shader

  !> Runs every variant for this GPU and prints a table: the time and rate of each, and whether its output agrees with
  !> the reference kernel's. `output` is that of the reference kernel.
  subroutine gpu_benchmark_shader_variants(input, weights, output, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out, stat)
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(inout) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    !> 0, or -1 with `output` untouched. Without `stat`, `output` becomes NaN on failure.
    integer, intent(out), optional :: stat
    type(shader_system) :: shader_sys
    real(real32), allocatable :: expected(:), scale(:)
    character(len=:), allocatable :: source
    real(real64) :: work
    real(real32) :: time_ms
    integer :: index, needed

    time_ms = -1.0_real32
    if (arrays_suffice(size(input, kind=int64), size(weights, kind=int64), size(output, kind=int64), &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)) then
      needed = N * K * H_out * W_out
      allocate (expected(needed), scale(needed))
      if (is_ready()) time_ms = reference(input, weights, expected)
    end if
    call finish_without_status(time_ms >= 0.0_real32, output, stat)
    if (time_ms < 0.0_real32) return
    output(:needed) = expected
    ! The scale for the errors of the sums: the sum of the magnitudes of the products.
    if (reference(abs(input), abs(weights), scale) < 0.0_real32) return
    work = conv2d_work(N, C, K, kernel_size, H_out, W_out)
    print '(a24,2(1x,a12),2x,a)', 'variant', 'ms', 'GFLOPS', 'output'
    call print_row('reference', time_ms, work, .true.)

    call init_shader_system(shader_sys, 0)
    source = get_optimal_shader(shader_sys, 'conv2d', config_of(C, H, W, K, kernel_size, stride, pad, H_out, W_out))
    index = find_in_cache_system(shader_sys, 'conv2d')
    if (source /= '' .and. index > 0) call benchmark_variants()

  contains

    real(real32) function reference(x, y, sums)
      real(real32), intent(in) :: x(:), y(:)
      real(real32), intent(inout) :: sums(:)
      integer :: run
      real(real32) :: once

      reference = -1.0_real32
      do run = 1, BENCHMARK_RUNS
        once = gpu_execute_conv2d_ref(x, y, sums, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
        reference = fastest(reference, once)
        if (once < 0.0_real32) return
      end do
    end function reference

    subroutine benchmark_variants()
      real(real32), allocatable :: computed(:)
      real(real32) :: best
      integer :: i, run

      allocate (computed(needed))
      do i = 1, size(shader_sys%cache(index)%variants)
        associate (variant => shader_sys%cache(index)%variants(i))
          best = -1.0_real32
          do run = 1, BENCHMARK_RUNS
            best = fastest(best, c_execute_with_shader(input, weights, computed, narrowed(N), narrowed(C), narrowed(H), &
              narrowed(W), narrowed(K), narrowed(kernel_size), narrowed(stride), narrowed(pad), narrowed(H_out), &
              narrowed(W_out), variant%source_code // c_null_char))
          end do
          call print_row(trim(variant%variant_id), best, work, all(abs(computed - expected) <= tolerance()))
        end associate
      end do
    end subroutine benchmark_variants

    !> A bound for the difference of two sums of the same terms in any order.
    function tolerance() result(bound)
      real(real32) :: bound(size(scale))

      bound = 2.0_real32 * (real(C, real32) * real(kernel_size, real32)**2 + 3.0_real32) * 2.0_real32**(-24) * scale &
        + tiny(scale)
    end function tolerance
  end subroutine gpu_benchmark_shader_variants

  !> The shorter of two times; negative if the new one is a failure.
  pure real(real32) function fastest(best, once)
    real(real32), intent(in) :: best, once

    fastest = merge(min(best, once), once, best >= 0.0_real32)
    if (once < 0.0_real32) fastest = once
  end function fastest

  subroutine print_row(name, time_ms, work, agrees)
    character(len=*), intent(in) :: name
    real(real32), intent(in) :: time_ms
    real(real64), intent(in) :: work
    logical, intent(in) :: agrees

    if (time_ms < 0.0_real32) then
      write (output_unit, '(a24,2x,a)') name, 'failed'
    else
      write (output_unit, '(a24,1x,f12.4,1x,f12.2,2x,a)') name, time_ms, &
        work / (max(time_ms, 1.0e-6_real32) * 1.0e6_real64), trim(merge('right', 'WRONG', agrees))
    end if
  end subroutine print_row

  !> Whether the GPU is usable; initialises it at the first use.
  logical function is_ready()
    is_ready = c_is_initialized() /= 0
    if (.not. is_ready) is_ready = gpu_init()
  end function is_ready

  pure type(convolution_config) function config_of(C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    integer, intent(in) :: C, H, W, K, kernel_size, stride, pad, H_out, W_out

    config_of = convolution_config(input_height=H, input_width=W, input_channels=C, &
      kernel_height=kernel_size, kernel_width=kernel_size, output_height=H_out, output_width=W_out, &
      output_channels=K, stride_y=stride, stride_x=stride, pad_y=pad, pad_x=pad)
  end function config_of
end module gpu_dynamic_execution
