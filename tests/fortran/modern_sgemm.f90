!> Module `sparkle`: matrix products with every transposition, with padding, strides, scaling and empty matrices.
program modern_sgemm
  use, intrinsic :: ieee_arithmetic, only: ieee_is_nan, ieee_quiet_nan, ieee_value
  use, intrinsic :: iso_fortran_env, only: real32, real64
  use checks
  use sparkle
  implicit none
  character(len=1), parameter :: LETTERS(4) = ['N', 'T', 'n', 'C']
  type(sparkle_device) :: cpu
  integer :: i, j

  call cpu%open('cpu')
  do i = 1, size(LETTERS)
    do j = 1, size(LETTERS)
      call product_of(5, 4, 3, LETTERS(i), LETTERS(j), 0, 1.0_real32, 0.0_real32)
      call product_of(17, 33, 20, LETTERS(i), LETTERS(j), 3, 1.5_real32, -0.5_real32)
      call product_of(1, 9, 70, LETTERS(i), LETTERS(j), 1, -1.0_real32, 1.0_real32)
    end do
  end do
  call defaults_and_strides()
  call empty_products()
  call finish()

contains

  !> Matrices with `padding` extra rows at the bottom. These rows must not affect the result or change.
  subroutine product_of(m, n, k, transa, transb, padding, alpha, beta)
    integer, intent(in) :: m, n, k, padding
    character(len=1), intent(in) :: transa, transb
    real(real32), intent(in) :: alpha, beta
    real(real32), allocatable :: a(:, :), b(:, :), c(:, :), before(:, :)
    real(real32) :: op_a(m, k), op_b(k, n)

    op_a = reshape(data_of(m * k, 1), [m, k])
    op_b = reshape(data_of(k * n, 2), [k, n])
    allocate (a(merge(m, k, is_no(transa)) + padding, merge(k, m, is_no(transa))))
    allocate (b(merge(k, n, is_no(transb)) + padding, merge(n, k, is_no(transb))))
    a = ieee_value(a, ieee_quiet_nan)
    b = ieee_value(b, ieee_quiet_nan)
    if (is_no(transa)) then
      a(:m, :) = op_a
    else
      a(:k, :) = transpose(op_a)
    end if
    if (is_no(transb)) then
      b(:k, :) = op_b
    else
      b(:n, :) = transpose(op_b)
    end if
    allocate (c(m + padding, n))
    c = reshape(data_of(size(c), 3), shape(c))
    allocate (before, source=c)
    if (padding > 0) then
      call sgemm(a, b, c, transa, transb, m, n, k, alpha, beta, cpu)
    else
      call sgemm(a, b, c, transa, transb, alpha=alpha, beta=beta, device=cpu)
    end if
    call check(is_product(op_a, op_b, c(:m, :), before(:m, :), alpha, beta), 'op(a) ' // transa // ', op(b) ' // transb)
    call check(same_bits([c(m + 1:, :)], [before(m + 1:, :)]), 'the padding is unchanged')
  end subroutine product_of

  pure logical function is_no(letter)
    character(len=1), intent(in) :: letter

    is_no = letter == 'N' .or. letter == 'n'
  end function is_no

  logical function is_product(a, b, c, before, alpha, beta)
    real(real32), intent(in) :: a(:, :), b(:, :), c(:, :), before(:, :), alpha, beta
    real(real64) :: expected(size(c, 1), size(c, 2)), scale(size(c, 1), size(c, 2)), gamma

    gamma = (size(a, 2) + 3) * 2.0_real64**(-24)
    gamma = gamma / (1.0_real64 - gamma)
    expected = alpha * matmul(real(a, real64), real(b, real64)) + real(beta, real64) * before
    scale = abs(alpha) * matmul(real(abs(a), real64), real(abs(b), real64)) + abs(real(beta, real64) * before)
    is_product = all(abs(c - expected) <= gamma * scale) .and. any(abs(expected) > 0.01_real64)
  end function is_product

  subroutine defaults_and_strides()
    real(real32) :: a(12, 10), b(10, 14), c(20, 21), before(20, 21), nothing(6, 7)

    a = reshape(data_of(size(a), 4), shape(a))
    b = reshape(data_of(size(b), 5), shape(b))
    c = reshape(data_of(size(c), 6), shape(c))
    before = c
    nothing = 0.0_real32
    call sgemm(a(12:2:-2, 1:5), b(2:10:2, 1:14:2), c(1:6, 1:21:3))
    call check(is_product(a(12:2:-2, 1:5), b(2:10:2, 1:14:2), c(1:6, 1:21:3), nothing, 1.0_real32, 0.0_real32), &
      'strided sections, alpha 1 and beta 0 unless said')
    c(1:6, 1:21:3) = before(1:6, 1:21:3)
    call check(same_bits([c], [before]), 'nothing outside the section changed')
    ! C is not read, because beta is zero.
    c = ieee_value(c, ieee_quiet_nan)
    call sgemm(a, b, c(1:12, 1:14), device=cpu)
    call check(.not. any(logical(ieee_is_nan(c(1:12, 1:14)))), 'old NaN does not survive beta = 0')
    call check(all_nan([c(13:, :)]), 'NaN stays outside of the product')
  end subroutine defaults_and_strides

  subroutine empty_products()
    real(real32) :: a(4, 0), b(0, 3), c(4, 3), none(0, 3)

    c = 2.0_real32
    call sgemm(a, b, c, beta=0.5_real32)
    call check(all(abs(c - 1.0_real32) <= 0.0_real32), 'k = 0 scales c')
    call sgemm(c(1:0, :), c(1:3, :), none)
    call sgemm(c, c(1:3, 1:0), c(:, 1:0))
    call check(all(abs(c - 1.0_real32) <= 0.0_real32), 'm = 0 and n = 0 do nothing')
  end subroutine empty_products
end program modern_sgemm
