!> Types of the original framework: kinds of devices, what a device can do, memory on it, and an abstract device that programs
!> extend.
module sparkle_types
  use, intrinsic :: iso_c_binding, only: c_null_ptr, c_ptr
  use, intrinsic :: iso_fortran_env, only: int32, int64, real32
  implicit none
  private
  public :: device_type_t, device_capabilities, compute_device, sparkle_buffer
  public :: DEVICE_CPU, DEVICE_GPU_NVIDIA, DEVICE_GPU_AMD, DEVICE_GPU_INTEL, DEVICE_FPGA, DEVICE_MOBILE, DEVICE_UNKNOWN
  public :: SPARKLE_SUCCESS, SPARKLE_ERROR
  public :: allocate_interface, deallocate_interface, memcpy_interface, execute_interface, synchronize_interface, get_info_interface

  integer, parameter :: SPARKLE_SUCCESS = 0
  integer, parameter :: SPARKLE_ERROR = -1

  !> A kind of device. Compare the values.
  type :: device_type_t
    integer :: value
  end type device_type_t

  type(device_type_t), parameter :: DEVICE_CPU = device_type_t(1)
  type(device_type_t), parameter :: DEVICE_GPU_NVIDIA = device_type_t(2)
  type(device_type_t), parameter :: DEVICE_GPU_AMD = device_type_t(3)
  type(device_type_t), parameter :: DEVICE_GPU_INTEL = device_type_t(4)
  type(device_type_t), parameter :: DEVICE_FPGA = device_type_t(5)
  type(device_type_t), parameter :: DEVICE_MOBILE = device_type_t(6)
  type(device_type_t), parameter :: DEVICE_UNKNOWN = device_type_t(99)

  !> What a device can do; 0 means unknown.
  type :: device_capabilities
    integer(int64) :: memory_bytes = 0_int64
    integer(int32) :: compute_units = 0_int32
    real(real32) :: clock_speed_ghz = 0.0_real32
    !> GB/s.
    real(real32) :: memory_bandwidth_gbps = 0.0_real32
    logical :: supports_float64 = .false.
    logical :: supports_float16 = .false.
    logical :: supports_int8 = .false.
    logical :: supports_p2p = .false.
    logical :: supports_unified_memory = .false.
    character(len=:), allocatable :: instruction_set
  end type device_capabilities

  !> Memory on the device `owning_device`. Assignment copies the address, not the memory.
  type :: sparkle_buffer
    type(c_ptr) :: data = c_null_ptr
    integer(int64) :: size_bytes = 0_int64
    integer :: owning_device = -1
    logical :: is_pinned = .false.
  end type sparkle_buffer

  !> A device of the program's own.
  type, abstract :: compute_device
    integer :: device_id = -1
    type(device_type_t) :: device_type = DEVICE_UNKNOWN
    character(len=:), allocatable :: name
    type(device_capabilities) :: capabilities
    logical :: is_available = .false.
    !> The fraction of the device in use, 0 to 1.
    real(real32) :: current_load = 0.0_real32
  contains
    procedure(allocate_interface), deferred :: allocate
    procedure(deallocate_interface), deferred :: deallocate
    procedure(memcpy_interface), deferred :: memcpy
    procedure(execute_interface), deferred :: execute
    procedure(synchronize_interface), deferred :: synchronize
    procedure(get_info_interface), deferred :: get_info
    procedure :: can_access => device_can_access
    procedure :: estimate_performance => device_estimate_performance
  end type compute_device

  abstract interface
    function allocate_interface(self, size_bytes, pinned) result(buffer)
      import :: compute_device, int64, sparkle_buffer
      class(compute_device), intent(inout) :: self
      integer(int64), intent(in) :: size_bytes
      logical, intent(in), optional :: pinned
      type(sparkle_buffer) :: buffer
    end function allocate_interface

    subroutine deallocate_interface(self, buffer)
      import :: compute_device, sparkle_buffer
      class(compute_device), intent(inout) :: self
      type(sparkle_buffer), intent(inout) :: buffer
    end subroutine deallocate_interface

    function memcpy_interface(self, dst, src, size_bytes) result(status)
      import :: compute_device, int32, int64, sparkle_buffer
      class(compute_device), intent(inout) :: self
      type(sparkle_buffer), intent(inout) :: dst
      type(sparkle_buffer), intent(in) :: src
      integer(int64), intent(in) :: size_bytes
      integer(int32) :: status
    end function memcpy_interface

    function execute_interface(self, kernel_name, args, grid_size, block_size) result(status)
      import :: c_ptr, compute_device, int32
      class(compute_device), intent(inout) :: self
      character(len=*), intent(in) :: kernel_name
      type(c_ptr), intent(in) :: args(:)
      integer(int32), intent(in) :: grid_size(3)
      integer(int32), intent(in) :: block_size(3)
      integer(int32) :: status
    end function execute_interface

    function synchronize_interface(self) result(status)
      import :: compute_device, int32
      class(compute_device), intent(inout) :: self
      integer(int32) :: status
    end function synchronize_interface

    subroutine get_info_interface(self)
      import :: compute_device
      class(compute_device), intent(inout) :: self
    end subroutine get_info_interface
  end interface

contains

  !> Whether the memory of device `other_device_id` is this device's own.
  logical function device_can_access(self, other_device_id)
    class(compute_device), intent(in) :: self
    integer, intent(in) :: other_device_id

    device_can_access = self%device_id == other_device_id
  end function device_can_access

  !> The time of `flops` operations in milliseconds if each compute unit did one multiply-add a cycle. Units with many lanes
  !> are faster; nothing is measured here. 0 if units or clock are unknown.
  real(real32) function device_estimate_performance(self, flops)
    class(compute_device), intent(in) :: self
    integer(int64), intent(in) :: flops
    real(real32) :: gflops

    gflops = 2.0_real32 * real(self%capabilities%compute_units, real32) * self%capabilities%clock_speed_ghz
    device_estimate_performance = 0.0_real32
    if (gflops > 0.0_real32) device_estimate_performance = real(max(0_int64, flops), real32) / (gflops * 1.0e6_real32)
  end function device_estimate_performance
end module sparkle_types
