!> Layers of neural-fortran's networks, whose arrays have the channels first: a plan that takes them as they are, beside a
!> plan for NCHW with the input transposed before the call and the output after it. They are transposed by `reshape`, as
!> programs write it, and by loops.
!>
!>     make && gfortran -O3 -march=native benchmarks/layouts/networks.f90 -I fortran/build/gfortran-15 \
!>       -L fortran/build/gfortran-15 -lsparkle_fortran -L target/release -lsparkle -Wl,-rpath,$PWD/target/release -o networks
!>     SPARKLE_NUM_THREADS=1 ./networks [ROUNDS [CALLS]]
!>
!> Weights are packed once. The three ways alternate, round by round. A time is the median of the rounds, a round the mean of
!> CALLS calls. The last line has the geometric means of the ratios. The results are compared.
program networks
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use sparkle
  implicit none
  integer, parameter :: LAYERS(4, 5) = reshape([1, 8, 28, 3, 8, 16, 13, 3, 3, 32, 32, 3, 16, 32, 32, 5, 64, 64, 56, 3], [4, 5])
  integer :: rounds, calls, at
  real(real64) :: ratios(2, 5)

  rounds = argument(1, 15)
  calls = argument(2, 30)
  print '(a)', 'layer                 reshape us   loops us  in place us  reshape/in place  loops/in place'
  do at = 1, size(LAYERS, 2)
    call layer(LAYERS(1, at), LAYERS(2, at), LAYERS(3, at), LAYERS(4, at), ratios(:, at))
  end do
  print '(a, 41x, 2f17.2)', 'geomean', exp(sum(log(ratios), dim=2) / size(ratios, 2))

contains

  integer function argument(position, default) result(value)
    integer, intent(in) :: position, default
    character(len=20) :: text

    value = default
    call get_command_argument(position, text)
    if (text /= '') read (text, *) value
  end function argument

  subroutine layer(c, k, side, size_of_kernel, ratio)
    integer, intent(in) :: c, k, side, size_of_kernel
    real(real64), intent(out) :: ratio(2)
    real(real32) :: x(c, side, side), planes(side, side, c)
    real(real32) :: weights(k, c, size_of_kernel, size_of_kernel), plain(size_of_kernel, size_of_kernel, c, k)
    real(real32) :: y(k, side - size_of_kernel + 1, side - size_of_kernel + 1, 3)
    real(real32) :: maps(side - size_of_kernel + 1, side - size_of_kernel + 1, k)
    type(sparkle_plan) :: first, nchw
    type(sparkle_device) :: cpu
    real(real64) :: times(3, rounds), taken(3)
    integer :: round, turn, way, call

    call random_number(x)
    call random_number(weights)
    plain = reshape(weights, shape(plain), order=[4, 3, 1, 2])
    call cpu%open('cpu')
    call first%create(sparkle_conv2d_desc(n=1, h=side, w=side, input_layout=SPARKLE_TENSOR_NHWC, &
      output_layout=SPARKLE_TENSOR_NHWC, weights_layout=SPARKLE_WEIGHTS_HWIO), weights, device=cpu)
    call nchw%create(sparkle_conv2d_desc(n=1, h=side, w=side), plain, device=cpu)
    do round = 1, rounds
      do turn = 0, 2
        way = mod(round + turn, 3) + 1
        call run(way, first, nchw, x, planes, maps, y(:, :, :, way))
        times(way, round) = now()
        do call = 1, calls
          call run(way, first, nchw, x, planes, maps, y(:, :, :, way))
        end do
        times(way, round) = (now() - times(way, round)) / calls
      end do
    end do
    do way = 1, 2
      if (any(abs(y(:, :, :, way) - y(:, :, :, 3)) > 1e-4 * maxval(y(:, :, :, 3)))) error stop 'the results differ'
    end do
    do way = 1, 3
      taken(way) = median(times(way, :))
    end do
    ratio = [median(times(1, :) / times(3, :)), median(times(2, :) / times(3, :))]
    print '(i2, ">", i2, i4, "x", i2, i3, "x", i1, 6x, 3f12.1, 2f17.2)', c, k, side, side, size_of_kernel, size_of_kernel, &
      taken * 1e6, ratio
  end subroutine layer

  !> One call in one of the ways: transposed by `reshape`, by loops, or in place.
  subroutine run(way, first, nchw, x, planes, maps, y)
    integer, intent(in) :: way
    type(sparkle_plan), intent(in) :: first, nchw
    real(real32), intent(in), contiguous :: x(:, :, :)
    real(real32), intent(inout), contiguous :: planes(:, :, :), maps(:, :, :), y(:, :, :)
    integer :: channel, i, j

    select case (way)
    case (1)
      planes = reshape(x, shape(planes), order=[3, 1, 2])
      call nchw%execute(planes, maps)
      y = reshape(maps, shape(y), order=[2, 3, 1])
    case (2)
      do channel = 1, size(x, 1)
        do j = 1, size(x, 3)
          do i = 1, size(x, 2)
            planes(i, j, channel) = x(channel, i, j)
          end do
        end do
      end do
      call nchw%execute(planes, maps)
      do j = 1, size(y, 3)
        do i = 1, size(y, 2)
          do channel = 1, size(y, 1)
            y(channel, i, j) = maps(i, j, channel)
          end do
        end do
      end do
    case (3)
      call first%execute(x, y)
    end select
  end subroutine run

  !> Seconds.
  real(real64) function now()
    integer(int64) :: ticks, rate

    call system_clock(ticks, rate)
    now = real(ticks, real64) / real(rate, real64)
  end function now

  real(real64) function median(values)
    real(real64), intent(in) :: values(:)
    real(real64) :: rest(size(values))
    integer :: taken

    rest = values
    do taken = 1, size(values) / 2
      rest(minloc(rest)) = huge(rest)
    end do
    median = minval(rest)
  end function median
end program networks
