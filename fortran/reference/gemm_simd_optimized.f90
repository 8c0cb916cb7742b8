!> The matrix product on libsparkle's CPU device, with the interface of existing programs.
module gemm_simd_optimized
  use, intrinsic :: iso_c_binding, only: c_int64_t, c_size_t
  use, intrinsic :: iso_fortran_env, only: int32, int64, real32
  use sparkle_c, only: c_gemm_desc, c_sgemm, SPARKLE_OK
  use sparkle_reference_support, only: finish_without_status
  use sparkle_runtime, only: handle_of, sparkle_device
  use sparkle_support, only: failure
  implicit none
  private
  public :: gemm_simd_avx512

contains

  !> C = alpha A B + beta C, column-major and packed: A is m x k, B is k x n, C is m x n. It uses the widest SIMD of the
  !> CPU; AVX-512 is not required.
  subroutine gemm_simd_avx512(A, B, C, m, n, k, alpha, beta, stat)
    real(real32), intent(in) :: A(:)
    real(real32), intent(in) :: B(:)
    real(real32), intent(inout) :: C(:)
    integer, intent(in) :: m, n, k
    real(real32), intent(in) :: alpha, beta
    !> 0, or -1 with C untouched. Without `stat`, C becomes NaN on failure.
    integer, intent(out), optional :: stat
    logical :: succeeded

    succeeded = .false.
    if (min(m, n, k) >= 0 .and. max(m, n, k) <= huge(0_int32)) then
      if (size(A, kind=int64) >= int(m, int64) * k .and. size(B, kind=int64) >= int(k, int64) * n &
        .and. size(C, kind=int64) >= int(m, int64) * n) then
        succeeded = multiplied(A, B, C, m, n, k, alpha, beta)
      end if
    end if
    call finish_without_status(succeeded, C, stat)
  end subroutine gemm_simd_avx512

  logical function multiplied(A, B, C, m, n, k, alpha, beta)
    real(real32), intent(in) :: A(:)
    real(real32), intent(in) :: B(:)
    real(real32), intent(inout) :: C(:)
    integer, intent(in) :: m, n, k
    real(real32), intent(in) :: alpha, beta
    type(sparkle_device) :: device
    type(failure) :: problem
    type(c_gemm_desc) :: desc
    integer :: stat

    multiplied = .false.
    call device%open('cpu', stat=stat)
    if (stat /= SPARKLE_OK) return
    desc = c_gemm_desc(m=int(m, c_int64_t), n=int(n, c_int64_t), k=int(k, c_int64_t), &
      lda=int(max(1, m), c_int64_t), ldb=int(max(1, k), c_int64_t), ldc=int(max(1, m), c_int64_t), &
      alpha=alpha, beta=beta)
    desc%size = storage_size(desc) / 8
    multiplied = c_sgemm(handle_of(device, problem), desc, A, size(A, kind=c_size_t), B, size(B, kind=c_size_t), &
      C, size(C, kind=c_size_t)) == SPARKLE_OK
    call device%close()
  end function multiplied
end module gemm_simd_optimized
