!> Groups of a program whose communicators are INTEGERs: all distributions and a product, against the same on one rank.
program integer_communicators
  use mpi
  use sparkle
  use sparkle_mpi
  implicit none
  type(sparkle_device) :: device
  type(sparkle_mpi_group) :: group
  type(sparkle_group_plan) :: plan
  type(sparkle_group_part) :: part
  type(sparkle_group_blocks) :: blocks
  type(sparkle_conv2d_desc) :: desc
  real :: x(7, 23, 4, 5), weights(3, 3, 4, 6), bias(6), y(7, 23, 6, 5)
  real :: a(90, 700), b(700, 70), c(90, 70), expected(90, 70)
  real, allocatable :: mine(:, :, :, :), found(:, :, :, :)
  integer :: error, distribution, lower(4), upper(4), rank, ranks, stat
  character(len=200) :: message

  call MPI_Init(error)
  call group%create(MPI_COMM_WORLD, device=device, stat=stat, errmsg=message)
  if (stat /= SPARKLE_ERROR_INVALID_HANDLE) error stop 'a device that is not open'
  call device%open('cpu')
  call group%create(MPI_COMM_WORLD, device=device)
  rank = group%rank()
  ranks = group%ranks()
  if (rank < 0 .or. rank >= ranks) error stop 'the rank'

  call fill(x)
  call fill(weights)
  bias = [1.0, -2.0, 3.0, 0.0, 5.0, -1.0]
  call conv2d(x, weights, y, bias=bias, pad=1, device=device)
  desc = sparkle_conv2d_desc(n=5, c=4, h=23, w=7, k=6, r=3, s=3, pad_h=1, pad_w=1)
  do distribution = SPARKLE_BATCH, SPARKLE_CHANNELS
    call plan%create(group, desc, weights, distribution, bias=bias, weight=1d0 + rank)
    call plan%part(part)
    ! Images, rows and channels are dimensions 4, 2 and 3.
    lower = 1
    upper = [7, 23, 4, 5]
    call limit(part%input_first, part%input_count)
    mine = x(lower(1):upper(1), lower(2):upper(2), lower(3):upper(3), lower(4):upper(4))
    if (size(mine) /= part%input_length) error stop 'the length of the input'
    lower = 1
    upper = [7, 23, 6, 5]
    call limit(part%output_first, part%output_count)
    allocate (found, mold=y(lower(1):upper(1), lower(2):upper(2), lower(3):upper(3), lower(4):upper(4)))
    if (size(found) /= part%output_length) error stop 'the length of the output'
    call plan%begin(mine)
    call group%progress()
    call plan%finish(mine, found)
    if (.not. all(abs(found - y(lower(1):upper(1), lower(2):upper(2), lower(3):upper(3), lower(4):upper(4))) <= 0.0)) &
      error stop 'an output'
    ! All ranks get an error if an array is too short on the last one.
    call plan%execute(mine, found(:, :, :, 1:merge(0, size(found, 4), rank == ranks - 1)), stat, message)
    if (stat /= merge(SPARKLE_ERROR_INVALID_ARGUMENT, SPARKLE_ERROR_OTHER_RANK, rank == ranks - 1)) &
      error stop 'an array that is too short'
    deallocate (found)
    call plan%destroy()
  end do

  call fill2(a)
  call fill2(b)
  call sgemm(a, b, expected, device=device)
  call group%sgemm_blocks(90, 70, 700, blocks)
  associate (at => blocks)
    call group%sgemm(a(at%a_row:at%a_row + at%a_rows - 1, at%a_col:at%a_col + at%a_cols - 1), &
      b(at%b_row:at%b_row + at%b_rows - 1, at%b_col:at%b_col + at%b_cols - 1), &
      c(at%c_row:at%c_row + at%c_rows - 1, at%c_col:at%c_col + at%c_cols - 1), 90, 70, 700)
    if (.not. all(abs(c(at%c_row:at%c_row + at%c_rows - 1, at%c_col:at%c_col + at%c_cols - 1) - &
      expected(at%c_row:at%c_row + at%c_rows - 1, at%c_col:at%c_col + at%c_cols - 1)) <= 0.0)) error stop 'a product'
  end associate
  call group%destroy()
  call MPI_Barrier(MPI_COMM_WORLD, error)
  call MPI_Comm_rank(MPI_COMM_WORLD, rank, error)
  if (rank == 0) print '(a)', 'every element is right'
  call MPI_Finalize(error)

contains

  !> Limits the dimension that is distributed.
  subroutine limit(first, count)
    use, intrinsic :: iso_fortran_env, only: int64
    integer(int64), intent(in) :: first, count
    integer, parameter :: DIMENSIONS(0:2) = [4, 2, 3]

    lower(DIMENSIONS(distribution)) = int(first)
    upper(DIMENSIONS(distribution)) = int(first + count) - 1
  end subroutine limit

  !> Small integers, the same on all ranks.
  subroutine fill(values)
    real, intent(out) :: values(:, :, :, :)
    integer :: i, j, k, l

    do l = 1, size(values, 4)
      do k = 1, size(values, 3)
        do j = 1, size(values, 2)
          do i = 1, size(values, 1)
            values(i, j, k, l) = real(modulo(3 * i + 5 * j + 7 * k + 11 * l + i * j, 7) - 3)
          end do
        end do
      end do
    end do
  end subroutine fill

  subroutine fill2(values)
    real, intent(out) :: values(:, :)
    integer :: i, j

    do j = 1, size(values, 2)
      do i = 1, size(values, 1)
        values(i, j) = real(modulo(3 * i + 5 * j + i * j, 7) - 3)
      end do
    end do
  end subroutine fill2
end program integer_communicators
