! A 3x3 kernel of ones over an image of ones counts the pixels below it.
program main
  use sparkle, only: conv2d
  implicit none
  real :: image(5, 5, 1, 1), weights(3, 3, 1, 1), counts(5, 5, 1, 1)

  image = 1
  weights = 1
  call conv2d(image, weights, counts, pad=1)
  print '(i0, 1x, i0, 1x, i0)', nint(counts(1, 1, 1, 1)), nint(counts(2, 1, 1, 1)), nint(counts(2, 2, 1, 1))
end program main
