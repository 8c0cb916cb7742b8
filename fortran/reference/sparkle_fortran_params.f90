!> How scalars reach a kernel: as uniforms, in a buffer, or as constants of the text.
!>
!> The buffer is bound at index 15. It has a value for each index argument, which is ignored, and for each scalar, in the
!> order of the arguments, each at a multiple of its size.
module sparkle_fortran_params
  use sparkle_current_gl, only: has_parameter_binding
  implicit none
  private
  public :: PARAMS_UNIFORM, PARAMS_BUFFER, PARAMS_INLINE, PARAM_BUFFER_BINDING
  public :: param_method, param_strategy, create_param_strategy, destroy_param_strategy

  integer, parameter :: PARAMS_UNIFORM = 1
  integer, parameter :: PARAMS_BUFFER = 2
  integer, parameter :: PARAMS_INLINE = 3
  integer, parameter :: PARAM_BUFFER_BINDING = 15

  !> Times are in milliseconds, and -1 until they are measured.
  type :: param_method
    integer :: method
    real :: setup_time_ms
    real :: dispatch_time_ms
    logical :: is_supported
  end type param_method

  type :: param_strategy
    type(param_method) :: methods(3)
    integer :: preferred_method
    logical :: benchmarked
  end type param_strategy

contains

  !> All methods, none of them measured. PARAMS_BUFFER is preferred, unless the driver of the current context has no
  !> binding 15: then it is not supported, and programs with PARAMS_BUFFER are dispatched with uniforms instead.
  function create_param_strategy() result(strategy)
    type(param_strategy) :: strategy
    integer :: i

    strategy%methods = [(param_method(method=i, setup_time_ms=-1.0, dispatch_time_ms=-1.0, is_supported=.true.), i=1, 3)]
    strategy%methods(PARAMS_BUFFER)%is_supported = has_parameter_binding()
    strategy%preferred_method = merge(PARAMS_BUFFER, PARAMS_UNIFORM, strategy%methods(PARAMS_BUFFER)%is_supported)
    strategy%benchmarked = .false.
  end function create_param_strategy

  !> Forgets what is known of the methods.
  subroutine destroy_param_strategy(strategy)
    type(param_strategy), intent(inout) :: strategy

    strategy = create_param_strategy()
  end subroutine destroy_param_strategy
end module sparkle_fortran_params
