!> Sparkle for Fortran: fp32 convolution and matrix products on any GPU with an OpenGL 4.3 driver and on the CPU.
!>
!>     use sparkle
!>     call conv2d(x, weights, y, bias=b, stride=2, pad=1, relu=.true.)
!>     call sgemm(a, b, c, transb='T')
!>
!> ## Layout
!>
!> The library uses the array layouts of C: input NCHW, weights OIHW, output NCHW, with the last index fastest. In
!> Fortran the first index is fastest, so the same memory is declared with reversed indices:
!>
!> | array   | C                   | Fortran                | offset of the element in memory  |
!> | ------- | ------------------- | ---------------------- | -------------------------------- |
!> | input   | `x[N][C][H][W]`     | `x(W,H,C,N)`           | `((n*C + c)*H + h)*W + w`        |
!> | weights | `[K][C/G][R][S]`    | `weights(S,R,C/G,K)`   | `((k*(C/G) + c)*R + r)*S + s`    |
!> | bias    | `[K]`               | `bias(K)`              | `k`                              |
!> | output  | `y[N][K][P][Q]`     | `y(Q,P,K,N)`           | `((n*K + k)*P + p)*Q + q`        |
!>
!> Arrays whose channels come first need no transposing: `layout=SPARKLE_TENSOR_NHWC` takes x(C,W,H,N) and y(K,Q,P,N),
!> `weights_layout=SPARKLE_WEIGHTS_HWIO` takes weights(K,C/G,S,R), SPARKLE_WEIGHTS_OHWI weights(C/G,S,R,K).
!>
!> An image of 2 rows and 3 columns with the pixels 1 2 3 / 4 5 6 is 1 2 3 4 5 6 in memory: `x[0][0][1][2] == 6` in C
!> and `x(3,2,1,1) == 6` in Fortran. The matrices of `sgemm` are column-major, as usual in Fortran.
!>
!> ## Arrays, errors, threads
!>
!> Actual arguments may be strided sections; the compiler then passes a packed copy and copies results back. Input and
!> output must not overlap.
!>
!> Every procedure takes `stat` and `errmsg` and uses them like ALLOCATE. On success `stat` is 0 and `errmsg` is
!> unchanged. On failure `stat` is one of the codes below, `errmsg` is the reason, and outputs are unchanged. A failure
!> without `stat` ends the program with ERROR STOP.
!>
!> Any number of threads may call these procedures at once, also on the same device and plan. Opening, closing, creating
!> and assigning modify the object, so no other thread may use it meanwhile.
module sparkle
  use sparkle_runtime, only: sparkle_device, sparkle_device_info, sparkle_devices, sparkle_timing, &
    sparkle_last_timing, sparkle_version, sparkle_num_threads, sparkle_set_num_threads, sparkle_finalize, &
    sparkle_share, sparkle_last_shares, SPARKLE_DIMENSION_IMAGES, SPARKLE_DIMENSION_CHANNELS, &
    SPARKLE_DIMENSION_ROWS, SPARKLE_DIMENSION_COLUMNS, &
    sparkle_set_log_handler, sparkle_log_handler, SPARKLE_KIND_CPU, SPARKLE_KIND_GL, SPARKLE_LOG_DEBUG, &
    SPARKLE_LOG_INFO, SPARKLE_LOG_WARNING
  use sparkle_forms, only: conv1d, conv1d_pure, conv2d, conv2d_pure
  use sparkle_convolution, only: sparkle_output_size, sparkle_plan
  use sparkle_descriptors, only: sparkle_conv2d_desc
  use sparkle_matrix, only: sgemm
  use sparkle_planning, only: sparkle_loops, sparkle_loop_plan, sparkle_plan_loops, SPARKLE_LOOPS_GEMM, &
    SPARKLE_LOOPS_STENCIL, SPARKLE_STENCIL_STAR, SPARKLE_STENCIL_BOX, SPARKLE_BOUND_ARITHMETIC, SPARKLE_BOUND_L1, &
    SPARKLE_BOUND_L2, SPARKLE_BOUND_L3, SPARKLE_BOUND_MEMORY
  use sparkle_predictions, only: sparkle_predict, sparkle_prediction
  use sparkle_stream, only: sparkle_pipeline, sparkle_ticket
  use sparkle_ranks, only: sparkle_group, sparkle_group_plan, sparkle_group_part, sparkle_group_blocks, SPARKLE_BATCH, &
    SPARKLE_ROWS, SPARKLE_CHANNELS, SPARKLE_WEIGHT_MEASURED
  use sparkle_buffers, only: sparkle_buffer, SPARKLE_TYPE_INT32, SPARKLE_TYPE_INT64, SPARKLE_TYPE_REAL32, &
    SPARKLE_TYPE_REAL64, SPARKLE_TYPE_LOGICAL
  use sparkle_c, only: SPARKLE_ALGORITHM_AUTO, SPARKLE_ALGORITHM_DIRECT, SPARKLE_ALGORITHM_WINOGRAD, &
    SPARKLE_PADDING_SYMMETRIC, SPARKLE_PADDING_SIDES, SPARKLE_PADDING_SAME, SPARKLE_TENSOR_NCHW, SPARKLE_TENSOR_NHWC, &
    SPARKLE_WEIGHTS_OIHW, SPARKLE_WEIGHTS_HWIO, SPARKLE_WEIGHTS_OHWI
  use sparkle_c, only: SPARKLE_OK, SPARKLE_ERROR_INVALID_ARGUMENT, SPARKLE_ERROR_NULL_POINTER, &
    SPARKLE_ERROR_INVALID_HANDLE, SPARKLE_ERROR_UNSUPPORTED, SPARKLE_ERROR_NO_DEVICE, &
    SPARKLE_ERROR_OUT_OF_MEMORY, SPARKLE_ERROR_SHADER, SPARKLE_ERROR_DEVICE_LOST, SPARKLE_ERROR_DRIVER, &
    SPARKLE_ERROR_TIMEOUT, SPARKLE_ERROR_FORKED, SPARKLE_ERROR_INTERNAL, &
    SPARKLE_ERROR_CANCELLED, SPARKLE_ERROR_BUSY, SPARKLE_ERROR_ENDING, SPARKLE_ERROR_CONTENTS_LOST, &
    SPARKLE_ERROR_OTHER_RANK, SPARKLE_ERROR_TRANSPORT
  implicit none
  public
end module sparkle
