/* The struct layouts of the C interface: every size and offset, checked in C and in C++. */
#include <sparkle.h>
#include <sparkle_reference.h>

#include <stdio.h>

/* C99 has no static_assert, but an array of negative length does not compile. */
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define ASSERT(condition) typedef char JOIN(assertion_, __LINE__)[(condition) ? 1 : -1]
#define FIELD(type, field, offset, bytes) \
  ASSERT(offsetof(type, field) == (offset) && sizeof(((type *)0)->field) == (bytes))

ASSERT(sizeof(conv2d_params_t) == 40);
FIELD(conv2d_params_t, N, 0, 4);
FIELD(conv2d_params_t, H, 4, 4);
FIELD(conv2d_params_t, W, 8, 4);
FIELD(conv2d_params_t, C, 12, 4);
FIELD(conv2d_params_t, K, 16, 4);
FIELD(conv2d_params_t, kernel_size, 20, 4);
FIELD(conv2d_params_t, stride, 24, 4);
FIELD(conv2d_params_t, pad, 28, 4);
FIELD(conv2d_params_t, H_out, 32, 4);
FIELD(conv2d_params_t, W_out, 36, 4);

ASSERT(sizeof(gpu_buffer_t) == 16);
FIELD(gpu_buffer_t, buffer_id, 0, 4);
FIELD(gpu_buffer_t, size_bytes, 8, 8);

ASSERT(sizeof(sparkle_status) == 4);
ASSERT(SPARKLE_OK == 0 && SPARKLE_ERROR_INVALID_ARGUMENT == 1 && SPARKLE_ERROR_NULL_POINTER == 2);
ASSERT(SPARKLE_ERROR_INVALID_HANDLE == 3 && SPARKLE_ERROR_UNSUPPORTED == 4 && SPARKLE_ERROR_NO_DEVICE == 5);
ASSERT(SPARKLE_ERROR_OUT_OF_MEMORY == 6 && SPARKLE_ERROR_SHADER == 7 && SPARKLE_ERROR_DEVICE_LOST == 8);
ASSERT(SPARKLE_ERROR_DRIVER == 9 && SPARKLE_ERROR_TIMEOUT == 10 && SPARKLE_ERROR_FORKED == 11);
ASSERT(SPARKLE_ERROR_INTERNAL == 12);
ASSERT(SPARKLE_DEVICE_KIND_CPU == 0 && SPARKLE_DEVICE_KIND_GL == 1);
ASSERT(SPARKLE_ROW_MAJOR == 101 && SPARKLE_COL_MAJOR == 102);
ASSERT(SPARKLE_ALGORITHM_AUTO == 0 && SPARKLE_ALGORITHM_DIRECT == 1 && SPARKLE_ALGORITHM_WINOGRAD == 2);
ASSERT(SPARKLE_NO_TRANS == 111 && SPARKLE_TRANS == 112);

ASSERT(sizeof(sparkle_device_info) == 824);
FIELD(sparkle_device_info, size, 0, 8);
FIELD(sparkle_device_info, kind, 8, 4);
FIELD(sparkle_device_info, usable, 12, 4);
FIELD(sparkle_device_info, software, 16, 4);
FIELD(sparkle_device_info, id, 20, 32);
FIELD(sparkle_device_info, name, 52, 256);
FIELD(sparkle_device_info, reason, 308, 512);

ASSERT(sizeof(sparkle_conv2d_desc) == 168);
FIELD(sparkle_conv2d_desc, size, 0, 8);
FIELD(sparkle_conv2d_desc, n, 8, 8);
FIELD(sparkle_conv2d_desc, c, 16, 8);
FIELD(sparkle_conv2d_desc, h, 24, 8);
FIELD(sparkle_conv2d_desc, w, 32, 8);
FIELD(sparkle_conv2d_desc, k, 40, 8);
FIELD(sparkle_conv2d_desc, r, 48, 8);
FIELD(sparkle_conv2d_desc, s, 56, 8);
FIELD(sparkle_conv2d_desc, stride_h, 64, 8);
FIELD(sparkle_conv2d_desc, stride_w, 72, 8);
FIELD(sparkle_conv2d_desc, pad_h, 80, 8);
FIELD(sparkle_conv2d_desc, pad_w, 88, 8);
FIELD(sparkle_conv2d_desc, dilation_h, 96, 8);
FIELD(sparkle_conv2d_desc, dilation_w, 104, 8);
FIELD(sparkle_conv2d_desc, groups, 112, 8);
FIELD(sparkle_conv2d_desc, bias, 120, 4);
FIELD(sparkle_conv2d_desc, relu, 124, 4);
FIELD(sparkle_conv2d_desc, algorithm, 128, 4);
FIELD(sparkle_conv2d_desc, reserved, 132, 4);
FIELD(sparkle_conv2d_desc, padding, 136, 4);
FIELD(sparkle_conv2d_desc, input_layout, 140, 4);
FIELD(sparkle_conv2d_desc, output_layout, 144, 4);
FIELD(sparkle_conv2d_desc, weights_layout, 148, 4);
FIELD(sparkle_conv2d_desc, pad_bottom, 152, 8);
FIELD(sparkle_conv2d_desc, pad_right, 160, 8);

ASSERT(sizeof(sparkle_conv1d_desc) == 120);
FIELD(sparkle_conv1d_desc, size, 0, 8);
FIELD(sparkle_conv1d_desc, n, 8, 8);
FIELD(sparkle_conv1d_desc, c, 16, 8);
FIELD(sparkle_conv1d_desc, w, 24, 8);
FIELD(sparkle_conv1d_desc, k, 32, 8);
FIELD(sparkle_conv1d_desc, s, 40, 8);
FIELD(sparkle_conv1d_desc, stride, 48, 8);
FIELD(sparkle_conv1d_desc, pad_left, 56, 8);
FIELD(sparkle_conv1d_desc, pad_right, 64, 8);
FIELD(sparkle_conv1d_desc, dilation, 72, 8);
FIELD(sparkle_conv1d_desc, groups, 80, 8);
FIELD(sparkle_conv1d_desc, bias, 88, 4);
FIELD(sparkle_conv1d_desc, relu, 92, 4);
FIELD(sparkle_conv1d_desc, algorithm, 96, 4);
FIELD(sparkle_conv1d_desc, padding, 100, 4);
FIELD(sparkle_conv1d_desc, input_layout, 104, 4);
FIELD(sparkle_conv1d_desc, output_layout, 108, 4);
FIELD(sparkle_conv1d_desc, weights_layout, 112, 4);
FIELD(sparkle_conv1d_desc, reserved, 116, 4);

ASSERT(sizeof(sparkle_gemm_desc) == 80);
FIELD(sparkle_gemm_desc, size, 0, 8);
FIELD(sparkle_gemm_desc, layout, 8, 4);
FIELD(sparkle_gemm_desc, trans_a, 12, 4);
FIELD(sparkle_gemm_desc, trans_b, 16, 4);
FIELD(sparkle_gemm_desc, m, 24, 8);
FIELD(sparkle_gemm_desc, n, 32, 8);
FIELD(sparkle_gemm_desc, k, 40, 8);
FIELD(sparkle_gemm_desc, lda, 48, 8);
FIELD(sparkle_gemm_desc, ldb, 56, 8);
FIELD(sparkle_gemm_desc, ldc, 64, 8);
FIELD(sparkle_gemm_desc, alpha, 72, 4);
FIELD(sparkle_gemm_desc, beta, 76, 4);

ASSERT(sizeof(sparkle_timing) == 416);
FIELD(sparkle_timing, size, 0, 8);
FIELD(sparkle_timing, kernel_ms, 8, 8);
FIELD(sparkle_timing, wall_ms, 16, 8);
FIELD(sparkle_timing, dispatches, 24, 4);
FIELD(sparkle_timing, fell_back, 28, 4);
FIELD(sparkle_timing, device, 32, 32);
FIELD(sparkle_timing, kernel, 64, 96);
FIELD(sparkle_timing, fallback, 160, 256);

ASSERT(sizeof(sparkle_architecture) == 144);
FIELD(sparkle_architecture, size, 0, 8);
FIELD(sparkle_architecture, rdna_generation, 8, 4);
FIELD(sparkle_architecture, subgroup_size, 12, 4);
FIELD(sparkle_architecture, subgroup_size_reported, 16, 4);
FIELD(sparkle_architecture, compute_units, 20, 4);
FIELD(sparkle_architecture, compute_units_reported, 24, 4);
FIELD(sparkle_architecture, dual_issue, 28, 4);
FIELD(sparkle_architecture, matrix_units, 32, 4);
FIELD(sparkle_architecture, cache_line, 36, 4);
FIELD(sparkle_architecture, registers, 40, 4);
FIELD(sparkle_architecture, max_workgroup, 44, 4);
FIELD(sparkle_architecture, shared_memory, 48, 8);
FIELD(sparkle_architecture, local_memory, 56, 8);
FIELD(sparkle_architecture, flops, 64, 8);
FIELD(sparkle_architecture, bandwidth, 72, 8);
FIELD(sparkle_architecture, vendor, 80, 32);
FIELD(sparkle_architecture, name, 112, 32);

ASSERT(sizeof(sparkle_shader_options) == 32);
FIELD(sparkle_shader_options, size, 0, 8);
FIELD(sparkle_shader_options, threads_x, 8, 4);
FIELD(sparkle_shader_options, threads_y, 12, 4);
FIELD(sparkle_shader_options, registers, 16, 4);
FIELD(sparkle_shader_options, shared, 20, 4);
FIELD(sparkle_shader_options, chains, 24, 4);
FIELD(sparkle_shader_options, reserved, 28, 4);

ASSERT(sizeof(sparkle_tuning_record) == 32);
FIELD(sparkle_tuning_record, size, 0, 8);
FIELD(sparkle_tuning_record, runs, 8, 8);
FIELD(sparkle_tuning_record, mean_ms, 16, 8);
FIELD(sparkle_tuning_record, rate, 24, 8);

ASSERT(SPARKLE_TYPE_INT32 == 0 && SPARKLE_TYPE_INT64 == 1 && SPARKLE_TYPE_REAL32 == 2);
ASSERT(SPARKLE_TYPE_REAL64 == 3 && SPARKLE_TYPE_LOGICAL == 4);
ASSERT(SPARKLE_ARGUMENT_INDEX == 0 && SPARKLE_ARGUMENT_SCALAR == 1 && SPARKLE_ARGUMENT_ELEMENT == 2);
ASSERT(SPARKLE_ARGUMENT_ARRAY == 3 && SPARKLE_ARGUMENT_REDUCTION == 4);
ASSERT(SPARKLE_INTENT_IN == 0 && SPARKLE_INTENT_OUT == 1 && SPARKLE_INTENT_INOUT == 2);
ASSERT(SPARKLE_GLSL_310_ES == 310 && SPARKLE_GLSL_430 == 430);
ASSERT(SPARKLE_PARAMETERS_UNIFORM == 0 && SPARKLE_PARAMETERS_BUFFER == 1 && SPARKLE_PARAMETERS_INLINE == 2);

ASSERT(sizeof(sparkle_kernel_info) == 120);
FIELD(sparkle_kernel_info, size, 0, 8);
FIELD(sparkle_kernel_info, dims, 8, 4);
FIELD(sparkle_kernel_info, base, 12, 4);
FIELD(sparkle_kernel_info, local_size, 16, 12);
FIELD(sparkle_kernel_info, arguments, 28, 4);
FIELD(sparkle_kernel_info, buffers, 32, 4);
FIELD(sparkle_kernel_info, exact, 36, 4);
FIELD(sparkle_kernel_info, cooperative, 40, 4);
FIELD(sparkle_kernel_info, legacy, 44, 4);
FIELD(sparkle_kernel_info, parameter_bytes, 48, 8);
FIELD(sparkle_kernel_info, name, 56, 64);

ASSERT(sizeof(sparkle_argument_info) == 96);
FIELD(sparkle_argument_info, size, 0, 8);
FIELD(sparkle_argument_info, type, 8, 4);
FIELD(sparkle_argument_info, kind, 12, 4);
FIELD(sparkle_argument_info, intent, 16, 4);
FIELD(sparkle_argument_info, rank, 20, 4);
FIELD(sparkle_argument_info, slot, 24, 4);
FIELD(sparkle_argument_info, offset, 28, 4);
FIELD(sparkle_argument_info, name, 32, 64);

ASSERT(SPARKLE_ARG_SCALAR == 0 && SPARKLE_ARG_INPUT == 1 && SPARKLE_ARG_ARRAY == 2);
ASSERT(SPARKLE_ARG_BUFFER == 3);
ASSERT(sizeof(sparkle_kernel_arg) == 56 && sizeof(sparkle_arg_value) == 8);
FIELD(sparkle_kernel_arg, size, 0, 8);
FIELD(sparkle_kernel_arg, type, 8, 4);
FIELD(sparkle_kernel_arg, form, 12, 4);
FIELD(sparkle_kernel_arg, address, 16, 8);
FIELD(sparkle_kernel_arg, length, 24, 8);
FIELD(sparkle_kernel_arg, value, 32, 8);
FIELD(sparkle_kernel_arg, buffer, 40, 8);
FIELD(sparkle_kernel_arg, offset, 48, 8);

int main(void) {
  /* One call, so that the program needs the library. */
  printf("version %s, equal to the header: %d\n", sparkle_version_string(),
         sparkle_version() == SPARKLE_VERSION_NUMBER);
  return 0;
}
