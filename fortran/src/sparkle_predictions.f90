!> What a plan is expected to take on each device, and what such plans have taken.
!>
!> Part of module `sparkle`; programs use that module.
module sparkle_predictions
  use, intrinsic :: iso_c_binding, only: c_char, c_double, c_int32_t, c_null_char, c_ptr, c_size_t
  use sparkle_c, only: c_conv2d_desc, SPARKLE_OK
  use sparkle_descriptors, only: as_c, sparkle_conv2d_desc
  use sparkle_runtime, only: handle_of, sparkle_device
  use sparkle_support, only: failure, settle, take_status, text_in
  implicit none
  private
  public :: sparkle_prediction, sparkle_predict

  !> What is expected of one device for a convolution, transfers included.
  type :: sparkle_prediction
    character(len=32) :: device = ''
    !> -1 if the device could not be measured; `reason` says why.
    real(c_double) :: predicted_ms = -1.0_c_double
    !> What runs of such plans have taken on this device of `auto`; -1 if it was not tried.
    real(c_double) :: measured_ms = -1.0_c_double
    !> Whether the next plan of this kind would go to it. On `multi` it is true for all, because each may get a share.
    logical :: is_next = .false.
    character(len=256) :: reason = ''
  end type sparkle_prediction

  type, bind(C) :: c_prediction
    integer(c_size_t) :: size = 0
    real(c_double) :: predicted_ms = 0.0_c_double
    real(c_double) :: measured_ms = 0.0_c_double
    integer(c_int32_t) :: is_next = 0
    integer(c_int32_t) :: reserved = 0
    character(kind=c_char) :: device(32)
    character(kind=c_char) :: reason(256)
  end type c_prediction

  interface
    function c_device_predict(device, desc, predictions, capacity, count) bind(C, name="sparkle_device_predict") result(status)
      import :: c_conv2d_desc, c_int32_t, c_prediction, c_ptr, c_size_t
      type(c_ptr), value :: device
      type(c_conv2d_desc), intent(in) :: desc
      type(c_prediction), intent(inout) :: predictions(*)
      integer(c_size_t), value :: capacity
      integer(c_size_t), intent(out) :: count
      integer(c_int32_t) :: status
    end function c_device_predict
  end interface

contains

  !> Predicts one run of a plan without bias, whose sizes are all in `desc`, on each device that `device` chooses from, the
  !> CPU first. Without `device` that is `auto`. A call of conv2d also brings the weights, and is learned apart. Nothing is
  !> computed, and no later choice changes; the first call measures the devices.
  subroutine sparkle_predict(desc, predictions, device, stat, errmsg)
    type(sparkle_conv2d_desc), intent(in) :: desc
    type(sparkle_prediction), allocatable, intent(out) :: predictions(:)
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_prediction), allocatable :: raw(:)
    type(c_prediction) :: none(1)
    type(c_ptr) :: handle
    integer(c_size_t) :: count, known
    integer :: i

    known = 0
    handle = handle_of(device, problem)
    if (problem%status == SPARKLE_OK) call predict(none, 0_c_size_t, known)
    allocate (raw(max(1_c_size_t, known)))
    if (problem%status == SPARKLE_OK) then
      raw(1)%size = storage_size(raw) / storage_size(c_null_char)
      call predict(raw, known, count)
    end if
    if (problem%status /= SPARKLE_OK) known = 0
    allocate (predictions(known))
    do i = 1, int(known)
      predictions(i)%device = text_in(raw(i)%device)
      predictions(i)%predicted_ms = raw(i)%predicted_ms
      predictions(i)%measured_ms = raw(i)%measured_ms
      predictions(i)%is_next = raw(i)%is_next /= 0
      predictions(i)%reason = text_in(raw(i)%reason)
    end do
    call settle('sparkle_predict', problem, stat, errmsg)

  contains

    subroutine predict(out, capacity, found)
      type(c_prediction), intent(inout) :: out(:)
      integer(c_size_t), intent(in) :: capacity
      integer(c_size_t), intent(out) :: found

      call take_status(problem, c_device_predict(handle, as_c(desc, .false.), out, capacity, found))
    end subroutine predict
  end subroutine sparkle_predict
end module sparkle_predictions
