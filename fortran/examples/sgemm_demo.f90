!> Matrix products, verified against MATMUL in double precision.
program sgemm_demo
  use sparkle
  implicit none
  integer, parameter :: M = 300, N = 200, K = 400
  real :: a(M, K), b(N, K), c(M, N)
  double precision :: exact(M, N), bound(M, N)
  type(sparkle_timing) :: timing
  type(sparkle_device) :: cpu

  call random_number(a)
  call random_number(b)
  call random_number(c)
  exact = 2.0d0 * matmul(dble(a), transpose(dble(b))) + c
  bound = 1.2d-7 * (K + 3) * exact

  call cpu%open('cpu')
  call sgemm(a, b, c, transb='T', alpha=2.0, beta=1.0, device=cpu)

  call sparkle_last_timing(timing)
  print '(3a,f0.3,a)', trim(timing%kernel), ' on ', trim(timing%device) // ': ', timing%wall_ms, ' ms'
  if (any(abs(c - exact) > bound)) error stop 'the product is wrong'
  print '(a,es8.1,a)', 'verified: largest relative error ', maxval(abs(c - exact) / exact)
end program sgemm_demo
