module kernels_convolution_annotated
  use iso_fortran_env, only: int32, real32
  implicit none
contains

  ! C = A*B, row by row, annotated in the form with brackets. In the reference framework this body was no product.
  !@kernel local_size=[64, 1, 1]
  subroutine gemm_tiled(idx, A, B, C, M, N, K)
    integer(int32), value :: idx
    real(real32), intent(in) :: A, B
    real(real32), intent(out) :: C
    integer(int32), value :: M, N, K
    integer(int32) :: row, col, p
    real(real32) :: sum
    row = idx / N
    col = idx - row * N
    if (row >= M) return
    sum = 0.0
    do p = 0, K - 1
      sum = sum + A[row * K + p] * B[p * N + col]
    end do
    C = sum
  end subroutine gemm_tiled

end module kernels_convolution_annotated
