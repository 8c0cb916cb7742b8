!> Matrix products.
!>
!> Part of module `sparkle`; programs use that module.
module sparkle_matrix
  use, intrinsic :: iso_c_binding, only: c_float, c_int64_t, c_ptr, c_size_t
  use sparkle_buffers, only: buffer_handle, offset_of, sparkle_buffer
  use sparkle_c
  use sparkle_c_kernels, only: c_sgemm_buffers
  use sparkle_runtime, only: handle_of, sparkle_device
  use sparkle_support
  implicit none
  private
  public :: sgemm, describe_arrays, describe_buffers

  !> Products of arrays, or of buffers.
  interface sgemm
    module procedure sgemm_arrays, sgemm_buffers
  end interface sgemm

contains

  !> Computes c = alpha op(a) op(b) + beta c, where op(a) is m x k, op(b) is k x n and c is m x n; `transa` and `transb`
  !> are 'N' or 'T'.
  !>
  !> Without m, n and k the arrays determine the sizes, and their shapes must agree. With them, the top left part of
  !> that size is used; the leading dimension is always the first extent. As in BLAS, c is not read if beta is zero, and
  !> a and b are not read if alpha or k is zero. `c` is unchanged on failure.
  subroutine sgemm_arrays(a, b, c, transa, transb, m, n, k, alpha, beta, device, stat, errmsg)
    real(c_float), intent(in) :: a(:, :)
    real(c_float), intent(in) :: b(:, :)
    real(c_float), intent(inout) :: c(:, :)
    character(len=1), intent(in), optional :: transa
    character(len=1), intent(in), optional :: transb
    integer, intent(in), optional :: m
    integer, intent(in), optional :: n
    integer, intent(in), optional :: k
    real(c_float), intent(in), optional :: alpha
    real(c_float), intent(in), optional :: beta
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_gemm_desc) :: desc
    type(c_ptr) :: device_handle

    call describe_arrays(desc, shape(a), shape(b), shape(c), transa, transb, m, n, k, alpha, beta, problem)
    device_handle = handle_of(device, problem)
    if (problem%status == SPARKLE_OK) then
      call take_status(problem, c_sgemm(device_handle, desc, a, size(a, kind=c_size_t), b, size(b, kind=c_size_t), &
        c, size(c, kind=c_size_t)))
    end if
    call settle('sgemm', problem, stat, errmsg)
  end subroutine sgemm_arrays

  !> The same for buffers of one device, in place, as column-major matrices from elements `a_first`, `b_first` and `c_first`
  !> on. Leading dimensions are by default the number of rows. C must overlap neither A nor B. If the device fails, C may
  !> lose its contents.
  subroutine sgemm_buffers(a, b, c, m, n, k, transa, transb, lda, ldb, ldc, a_first, b_first, c_first, alpha, beta, &
    device, stat, errmsg)
    type(sparkle_buffer), intent(in) :: a
    type(sparkle_buffer), intent(in) :: b
    type(sparkle_buffer), intent(inout) :: c
    integer, intent(in) :: m
    integer, intent(in) :: n
    integer, intent(in) :: k
    character(len=1), intent(in), optional :: transa
    character(len=1), intent(in), optional :: transb
    integer, intent(in), optional :: lda
    integer, intent(in), optional :: ldb
    integer, intent(in), optional :: ldc
    integer, intent(in), optional :: a_first
    integer, intent(in), optional :: b_first
    integer, intent(in), optional :: c_first
    real(c_float), intent(in), optional :: alpha
    real(c_float), intent(in), optional :: beta
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_gemm_desc) :: desc
    type(c_ptr) :: device_handle

    call describe_buffers(desc, m, n, k, transa, transb, lda, ldb, ldc, alpha, beta, problem)
    device_handle = handle_of(device, problem)
    if (problem%status == SPARKLE_OK) then
      call take_status(problem, c_sgemm_buffers(device_handle, desc, buffer_handle(a), offset_of(a_first), &
        buffer_handle(b), offset_of(b_first), buffer_handle(c), offset_of(c_first)))
    end if
    call settle('sgemm', problem, stat, errmsg)
  end subroutine sgemm_buffers

  !> The descriptor of a product of arrays with these shapes, which are checked.
  subroutine describe_arrays(desc, a, b, c, transa, transb, m, n, k, alpha, beta, problem)
    type(c_gemm_desc), intent(inout) :: desc
    integer, intent(in) :: a(2), b(2), c(2)
    character(len=1), intent(in), optional :: transa
    character(len=1), intent(in), optional :: transb
    integer, intent(in), optional :: m
    integer, intent(in), optional :: n
    integer, intent(in), optional :: k
    real(c_float), intent(in), optional :: alpha
    real(c_float), intent(in), optional :: beta
    type(failure), intent(inout) :: problem
    logical :: a_transposed, b_transposed

    a_transposed = is_transposed('transa', transa, problem)
    b_transposed = is_transposed('transb', transb, problem)
    desc%size = storage_size(desc) / 8
    if (a_transposed) desc%trans_a = C_TRANS
    if (b_transposed) desc%trans_b = C_TRANS
    desc%m = given_or(m, c(1))
    desc%n = given_or(n, c(2))
    desc%k = given_or(k, a(merge(1, 2, a_transposed)))
    desc%lda = max(1, a(1))
    desc%ldb = max(1, b(1))
    desc%ldc = max(1, c(1))
    if (present(alpha)) desc%alpha = alpha
    if (present(beta)) desc%beta = beta

    call require_matrix('a', a, a_transposed, [desc%m, desc%k], [present(m), present(k)], problem)
    call require_matrix('b', b, b_transposed, [desc%k, desc%n], [present(k), present(n)], problem)
    call require_matrix('c', c, .false., [desc%m, desc%n], [present(m), present(n)], problem)
  end subroutine describe_arrays

  !> The descriptor of a product of column-major matrices in buffers.
  subroutine describe_buffers(desc, m, n, k, transa, transb, lda, ldb, ldc, alpha, beta, problem)
    type(c_gemm_desc), intent(inout) :: desc
    integer, intent(in) :: m
    integer, intent(in) :: n
    integer, intent(in) :: k
    character(len=1), intent(in), optional :: transa
    character(len=1), intent(in), optional :: transb
    integer, intent(in), optional :: lda
    integer, intent(in), optional :: ldb
    integer, intent(in), optional :: ldc
    real(c_float), intent(in), optional :: alpha
    real(c_float), intent(in), optional :: beta
    type(failure), intent(inout) :: problem
    logical :: a_transposed, b_transposed

    a_transposed = is_transposed('transa', transa, problem)
    b_transposed = is_transposed('transb', transb, problem)
    desc%size = storage_size(desc) / 8
    if (a_transposed) desc%trans_a = C_TRANS
    if (b_transposed) desc%trans_b = C_TRANS
    desc%m = m
    desc%n = n
    desc%k = k
    desc%lda = given_or(lda, max(1, merge(k, m, a_transposed)))
    desc%ldb = given_or(ldb, max(1, merge(n, k, b_transposed)))
    desc%ldc = given_or(ldc, max(1, m))
    if (present(alpha)) desc%alpha = alpha
    if (present(beta)) desc%beta = beta
  end subroutine describe_buffers

  logical function is_transposed(argument, letter, problem)
    character(len=*), intent(in) :: argument
    character(len=1), intent(in), optional :: letter
    type(failure), intent(inout) :: problem

    is_transposed = .false.
    if (.not. present(letter)) return
    select case (letter)
    case ('N', 'n')
    case ('T', 't', 'C', 'c')
      is_transposed = .true.
    case default
      call problem%refuse(argument // ' is "' // letter // '"; expected "N" or "T"')
    end select
  end function is_transposed

  pure integer(c_int64_t) function given_or(given, extent)
    integer, intent(in), optional :: given
    integer, intent(in) :: extent

    given_or = extent
    if (present(given)) given_or = given
  end function given_or

  !> Checks a matrix that stores op(X) with `wanted` rows and columns. It may be larger in a dimension whose size was
  !> given.
  subroutine require_matrix(argument, stored, transposed, wanted, given, problem)
    character(len=*), intent(in) :: argument
    integer, intent(in) :: stored(2)
    logical, intent(in) :: transposed
    integer(c_int64_t), intent(in) :: wanted(2)
    logical, intent(in) :: given(2)
    type(failure), intent(inout) :: problem
    integer :: side, dimension

    do side = 1, 2
      dimension = merge(3 - side, side, transposed)
      call require_extent(problem, argument, dimension, stored(dimension), wanted(side), least=given(side))
    end do
  end subroutine require_matrix
end module sparkle_matrix
