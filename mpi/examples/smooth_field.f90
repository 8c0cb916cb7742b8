!> A code that decomposes its domain: each rank holds some rows of a field, and smooths it ten times by a 5 x 5 kernel.
!>
!>   mpif90 sparkle_mpi.f90 sparkle_mpi_f08.f90 smooth_field.f90 sparkle_mpi.o -lsparkle_fortran -lsparkle -o smooth_field
!>   mpirun -n 4 ./smooth_field
!>
!> It checks each step against the sum of all points, which the kernel keeps but for what leaves at the borders: the field is zero
!> there.
program smooth_field
  use mpi_f08
  use sparkle
  use sparkle_mpi_f08
  implicit none
  integer, parameter :: WIDTH = 300, HEIGHT = 401, STEPS = 10
  type(sparkle_device) :: device
  type(sparkle_mpi_group) :: group
  type(sparkle_group_plan) :: plan
  type(sparkle_group_part) :: mine
  real, allocatable :: field(:, :, :, :), smooth(:, :, :, :)
  real :: kernel(5, 5, 1, 1), before, after
  integer :: step, row, first, last, rank

  call MPI_Init()
  call MPI_Comm_rank(MPI_COMM_WORLD, rank)
  ! Ranks of one computer take its GPUs in turn; without a GPU they compute on the CPU.
  call device%open(trim(sparkle_mpi_device(MPI_COMM_WORLD)))
  call group%create(MPI_COMM_WORLD, device=device)

  kernel(:, :, 1, 1) = matmul(reshape([1.0, 4.0, 6.0, 4.0, 1.0] / 16.0, [5, 1]), &
    reshape([1.0, 4.0, 6.0, 4.0, 1.0] / 16.0, [1, 5]))
  call plan%create(group, sparkle_conv2d_desc(n=1, c=1, h=HEIGHT, w=WIDTH, k=1, r=5, s=5, pad_h=2, pad_w=2), kernel, &
    distribution=SPARKLE_ROWS)

  ! With this padding a rank has the same rows of input and output.
  call plan%part(mine)
  first = int(mine%input_first)
  last = first + int(mine%input_count) - 1
  allocate (field(WIDTH, first:last, 1, 1), smooth(WIDTH, first:last, 1, 1))
  field = 0.0
  do row = max(first, 100), min(last, 300)
    field(100:200, row, 1, 1) = real(modulo(row, 7))
  end do

  before = total(field)
  do step = 1, STEPS
    ! The rows at the borders travel while the others are computed.
    call plan%execute(field, smooth)
    field = smooth
  end do
  after = total(field)

  if (rank == 0) print '(a, i0, a, i0, a, i0, a)', 'smoothed ', WIDTH, ' x ', HEIGHT, ' points ', STEPS, ' times'
  if (abs(after - before) > 1e-4 * before) error stop 'the sum of the field has changed'
  if (rank == 0) print '(a)', 'the sum of the field is the same'
  call plan%destroy()
  call group%destroy()
  call device%close()
  call MPI_Finalize()

contains

  !> The sum of the field over all ranks.
  real function total(values)
    real, intent(in) :: values(:, :, :, :)
    double precision :: own, all

    own = sum(real(values, kind(own)))
    call MPI_Allreduce(own, all, 1, MPI_DOUBLE_PRECISION, MPI_SUM, MPI_COMM_WORLD)
    total = real(all)
  end function total
end program smooth_field
