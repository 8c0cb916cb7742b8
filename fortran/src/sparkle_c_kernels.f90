!> The C interface of libsparkle for kernels, epilogues and buffers, in Fortran. It goes by the rules of `sparkle_c`, which has
!> the types.
module sparkle_c_kernels
  use, intrinsic :: iso_c_binding, only: c_char, c_float, c_int32_t, c_int64_t, c_ptr, c_size_t
  use sparkle_c, only: c_argument_info, c_conv2d_desc, c_gemm_desc, c_kernel_arg, c_kernel_info
  implicit none
  private
  public :: c_kernel_compile, c_kernel_compile_file, c_kernel_describe, c_kernel_argument, c_kernel_source, &
    c_kernel_diagnostics, c_kernel_launch, c_epilogue_compile, c_epilogue_compile_file, c_epilogue_destroy, &
    c_plan_create_fused, c_plan_execute_fused, c_plan_execute_fused_buffers, c_sgemm_fused, c_sgemm_fused_buffers, &
    c_conv2d_buffers, c_plan_execute_buffers, c_sgemm_buffers, c_buffer_create, c_buffer_write, c_buffer_read, &
    c_buffer_destroy, c_kernel_destroy

  interface
    function c_kernel_compile(source, length, name, kernel) bind(C, name="sparkle_kernel_compile") result(status)
      import :: c_char, c_int32_t, c_ptr, c_size_t
      character(kind=c_char), intent(in) :: source(*)
      integer(c_size_t), value :: length
      character(kind=c_char), intent(in), optional :: name(*)
      type(c_ptr), intent(inout) :: kernel
      integer(c_int32_t) :: status
    end function c_kernel_compile

    function c_kernel_compile_file(path, name, kernel) bind(C, name="sparkle_kernel_compile_file") result(status)
      import :: c_char, c_int32_t, c_ptr
      character(kind=c_char), intent(in) :: path(*)
      character(kind=c_char), intent(in), optional :: name(*)
      type(c_ptr), intent(inout) :: kernel
      integer(c_int32_t) :: status
    end function c_kernel_compile_file

    function c_kernel_describe(kernel, info) bind(C, name="sparkle_kernel_describe") result(status)
      import :: c_int32_t, c_kernel_info, c_ptr
      type(c_ptr), value :: kernel
      type(c_kernel_info), intent(inout) :: info
      integer(c_int32_t) :: status
    end function c_kernel_describe

    function c_kernel_argument(kernel, index, info) bind(C, name="sparkle_kernel_argument") result(status)
      import :: c_argument_info, c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: kernel
      integer(c_size_t), value :: index
      type(c_argument_info), intent(inout) :: info
      integer(c_int32_t) :: status
    end function c_kernel_argument

    function c_kernel_source(kernel, version, method, text, capacity, length) &
      bind(C, name="sparkle_kernel_source") result(status)
      import :: c_char, c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: kernel
      integer(c_int32_t), value :: version
      integer(c_int32_t), value :: method
      character(kind=c_char), intent(inout), optional :: text(*)
      integer(c_size_t), value :: capacity
      integer(c_size_t), intent(inout) :: length
      integer(c_int32_t) :: status
    end function c_kernel_source

    function c_kernel_diagnostics(kernel, text, capacity, length) &
      bind(C, name="sparkle_kernel_diagnostics") result(status)
      import :: c_char, c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: kernel
      character(kind=c_char), intent(inout), optional :: text(*)
      integer(c_size_t), value :: capacity
      integer(c_size_t), intent(inout) :: length
      integer(c_int32_t) :: status
    end function c_kernel_diagnostics

    function c_kernel_launch(device, kernel, extents, args, args_len) &
      bind(C, name="sparkle_kernel_launch") result(status)
      import :: c_int32_t, c_int64_t, c_kernel_arg, c_ptr, c_size_t
      type(c_ptr), value :: device
      type(c_ptr), value :: kernel
      integer(c_int64_t), intent(in) :: extents(3)
      type(c_kernel_arg), intent(in) :: args(*)
      integer(c_size_t), value :: args_len
      integer(c_int32_t) :: status
    end function c_kernel_launch

    function c_epilogue_compile(source, length, name, epilogue) bind(C, name="sparkle_epilogue_compile") result(status)
      import :: c_char, c_int32_t, c_ptr, c_size_t
      character(kind=c_char), intent(in) :: source(*)
      integer(c_size_t), value :: length
      character(kind=c_char), intent(in), optional :: name(*)
      type(c_ptr), intent(inout) :: epilogue
      integer(c_int32_t) :: status
    end function c_epilogue_compile

    function c_epilogue_compile_file(path, name, epilogue) &
      bind(C, name="sparkle_epilogue_compile_file") result(status)
      import :: c_char, c_int32_t, c_ptr
      character(kind=c_char), intent(in) :: path(*)
      character(kind=c_char), intent(in), optional :: name(*)
      type(c_ptr), intent(inout) :: epilogue
      integer(c_int32_t) :: status
    end function c_epilogue_compile_file

    function c_epilogue_destroy(epilogue) bind(C, name="sparkle_epilogue_destroy") result(status)
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: epilogue
      integer(c_int32_t) :: status
    end function c_epilogue_destroy

    function c_plan_create_fused(device, desc, weights, weights_len, bias, bias_len, epilogue, plan) &
      bind(C, name="sparkle_plan_create_fused") result(status)
      import :: c_conv2d_desc, c_float, c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: device
      type(c_conv2d_desc), intent(in) :: desc
      type(c_ptr), value :: weights
      integer(c_size_t), value :: weights_len
      real(c_float), intent(in), optional :: bias(*)
      integer(c_size_t), value :: bias_len
      type(c_ptr), value :: epilogue
      type(c_ptr), intent(inout) :: plan
      integer(c_int32_t) :: status
    end function c_plan_create_fused

    function c_plan_execute_fused(plan, input, input_len, output, output_len, args, args_len) &
      bind(C, name="sparkle_plan_execute_fused") result(status)
      import :: c_int32_t, c_kernel_arg, c_ptr, c_size_t
      type(c_ptr), value :: plan
      type(c_ptr), value :: input
      integer(c_size_t), value :: input_len
      type(c_ptr), value :: output
      integer(c_size_t), value :: output_len
      type(c_kernel_arg), intent(in) :: args(*)
      integer(c_size_t), value :: args_len
      integer(c_int32_t) :: status
    end function c_plan_execute_fused

    function c_plan_execute_fused_buffers(plan, input, input_offset, output, output_offset, args, args_len) &
      bind(C, name="sparkle_plan_execute_fused_buffers") result(status)
      import :: c_int32_t, c_kernel_arg, c_ptr, c_size_t
      type(c_ptr), value :: plan
      type(c_ptr), value :: input
      integer(c_size_t), value :: input_offset
      type(c_ptr), value :: output
      integer(c_size_t), value :: output_offset
      type(c_kernel_arg), intent(in) :: args(*)
      integer(c_size_t), value :: args_len
      integer(c_int32_t) :: status
    end function c_plan_execute_fused_buffers

    function c_sgemm_fused(device, desc, a, a_len, b, b_len, c, c_len, epilogue, args, args_len) &
      bind(C, name="sparkle_sgemm_fused") result(status)
      import :: c_float, c_gemm_desc, c_int32_t, c_kernel_arg, c_ptr, c_size_t
      type(c_ptr), value :: device
      type(c_gemm_desc), intent(in) :: desc
      real(c_float), intent(in) :: a(*)
      integer(c_size_t), value :: a_len
      real(c_float), intent(in) :: b(*)
      integer(c_size_t), value :: b_len
      real(c_float), intent(inout) :: c(*)
      integer(c_size_t), value :: c_len
      type(c_ptr), value :: epilogue
      type(c_kernel_arg), intent(in) :: args(*)
      integer(c_size_t), value :: args_len
      integer(c_int32_t) :: status
    end function c_sgemm_fused

    function c_sgemm_fused_buffers(device, desc, a, a_offset, b, b_offset, c, c_offset, epilogue, args, args_len) &
      bind(C, name="sparkle_sgemm_fused_buffers") result(status)
      import :: c_gemm_desc, c_int32_t, c_kernel_arg, c_ptr, c_size_t
      type(c_ptr), value :: device
      type(c_gemm_desc), intent(in) :: desc
      type(c_ptr), value :: a
      integer(c_size_t), value :: a_offset
      type(c_ptr), value :: b
      integer(c_size_t), value :: b_offset
      type(c_ptr), value :: c
      integer(c_size_t), value :: c_offset
      type(c_ptr), value :: epilogue
      type(c_kernel_arg), intent(in) :: args(*)
      integer(c_size_t), value :: args_len
      integer(c_int32_t) :: status
    end function c_sgemm_fused_buffers

    function c_conv2d_buffers(device, desc, input, input_offset, weights, weights_offset, bias, bias_offset, output, &
      output_offset) bind(C, name="sparkle_conv2d_buffers") result(status)
      import :: c_conv2d_desc, c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: device
      type(c_conv2d_desc), intent(in) :: desc
      type(c_ptr), value :: input
      integer(c_size_t), value :: input_offset
      type(c_ptr), value :: weights
      integer(c_size_t), value :: weights_offset
      type(c_ptr), value :: bias
      integer(c_size_t), value :: bias_offset
      type(c_ptr), value :: output
      integer(c_size_t), value :: output_offset
      integer(c_int32_t) :: status
    end function c_conv2d_buffers

    function c_plan_execute_buffers(plan, input, input_offset, output, output_offset) &
      bind(C, name="sparkle_plan_execute_buffers") result(status)
      import :: c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: plan
      type(c_ptr), value :: input
      integer(c_size_t), value :: input_offset
      type(c_ptr), value :: output
      integer(c_size_t), value :: output_offset
      integer(c_int32_t) :: status
    end function c_plan_execute_buffers

    function c_sgemm_buffers(device, desc, a, a_offset, b, b_offset, c, c_offset) &
      bind(C, name="sparkle_sgemm_buffers") result(status)
      import :: c_gemm_desc, c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: device
      type(c_gemm_desc), intent(in) :: desc
      type(c_ptr), value :: a
      integer(c_size_t), value :: a_offset
      type(c_ptr), value :: b
      integer(c_size_t), value :: b_offset
      type(c_ptr), value :: c
      integer(c_size_t), value :: c_offset
      integer(c_int32_t) :: status
    end function c_sgemm_buffers

    function c_buffer_create(device, type, length, buffer) bind(C, name="sparkle_buffer_create") result(status)
      import :: c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: device
      integer(c_int32_t), value :: type
      integer(c_size_t), value :: length
      type(c_ptr), intent(inout) :: buffer
      integer(c_int32_t) :: status
    end function c_buffer_create

    function c_buffer_write(buffer, offset, data, length) bind(C, name="sparkle_buffer_write") result(status)
      import :: c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: buffer
      integer(c_size_t), value :: offset
      type(c_ptr), value :: data
      integer(c_size_t), value :: length
      integer(c_int32_t) :: status
    end function c_buffer_write

    function c_buffer_read(buffer, offset, data, length) bind(C, name="sparkle_buffer_read") result(status)
      import :: c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: buffer
      integer(c_size_t), value :: offset
      type(c_ptr), value :: data
      integer(c_size_t), value :: length
      integer(c_int32_t) :: status
    end function c_buffer_read

    function c_buffer_destroy(buffer) bind(C, name="sparkle_buffer_destroy") result(status)
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: buffer
      integer(c_int32_t) :: status
    end function c_buffer_destroy

    function c_kernel_destroy(kernel) bind(C, name="sparkle_kernel_destroy") result(status)
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: kernel
      integer(c_int32_t) :: status
    end function c_kernel_destroy
  end interface
end module sparkle_c_kernels
