#version 430 core

// conv_reference_64: the reference convolution. Square kernel, one stride, one padding; no dilation, groups or bias.
//
//     input  [N][C][H][W]                  output [N][K][H_out][W_out]
//       +-----------+                        +--------+
//       |  +---+    |   sum over             |        |     one invocation sums one output,
//       |  |   |----+--- c, kh, kw --------> |   x    |     then strides by the number
//       |  +---+    |   in this order        |        |     of invocations
//       +-----------+                        +--------+
//
// Any grid covers every output: invocations are numbered over x, y and z of the grid, and each takes every
// `invocations`-th output. So a caller may dispatch one group or (ceil(W_out/16), ceil(H_out/16), N*K) groups, and
// the driver's limit of 65,535 groups per dimension does not matter.
//
// `first` and `count` cut long work into several dispatches. Both 0 means all work.
//
// The host rejects problems with 2^31 or more elements in a buffer, or rows or columns in a padded image. So no index below
// wraps by mistake. A position left of or above the image wraps on purpose: as uint it is larger than any size.
//
// The zeros of the padding are multiplied like other pixels: with an infinite weight they make NaN.
//
// Some drivers end all loops of an invocation after 65,535 iterations in total, without an error. The library does not use
// this kernel for longer sums. Programs that dispatch it themselves may. They get it with FOR_CALLERS: long sums take 16
// steps per iteration, and a sum that the driver ended is NaN. Such programs may also bind parameters that do not fit the
// buffers, or none. If that is detectable, every output becomes NaN: see `belong_together`.

layout(local_size_x = 64, local_size_y = 1, local_size_z = 1) in;

layout(std430, binding = 0) readonly buffer InputBuffer { float input_data[]; };
layout(std430, binding = 1) readonly buffer WeightBuffer { float weight_data[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { float output_data[]; };
layout(std430, binding = 3) readonly buffer ParamBuffer {
    int N, H, W, C, K, kernel_size, stride, pad, H_out, W_out;
    int mark[];
};
// The end of the parameter block that the library leaves bound after a call.
const int LEFT_BY_A_CALL = 0x4c454654;
const uint NOT_A_NUMBER = 0x7fc00000u;

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;

// A pixel of the padding: 0, in a form that the compiler cannot fold. It drops products with a constant zero.
#define PADDING uintBitsToFloat(count >> 31)

#ifdef FOR_CALLERS
// Iterations that every driver executes.
const float FEW = 32768.0;
#endif

// The output at flat index ((n*K + k)*H_out + p)*W_out + q.
float convolve(uint index) {
    uint q = index % uint(W_out);
    uint p = index / uint(W_out) % uint(H_out);
    uint k = index / uint(W_out) / uint(H_out) % uint(K);
    uint n = index / uint(W_out) / uint(H_out) / uint(K);
    uint size = uint(kernel_size);
    float sum = 0.0;
    uint c = 0u, kh = size, kw = size;
    for (; c < uint(C); ++c) {
        uint image = (n * uint(C) + c) * uint(H);
        uint kernel = (k * uint(C) + c) * size;
        for (kh = 0u; kh < size; ++kh) {
            uint y = p * uint(stride) + kh - uint(pad);
            uint line = (image + y) * uint(W);
            for (kw = 0u; kw < size; ++kw) {
                uint x = q * uint(stride) + kw - uint(pad);
                bool inside = y < uint(H) && x < uint(W);
                float value = input_data[inside ? line + x : 0u];
                sum += (inside ? value : PADDING) * weight_data[(kernel + kh) * size + kw];
            }
        }
    }
#ifdef FOR_CALLERS
    // If the driver ended the loops, the counter of the innermost loop is below its end.
    if (c != uint(C) || kh != size || kw != size) return uintBitsToFloat(NOT_A_NUMBER);
#endif
    return sum;
}

#ifdef FOR_CALLERS
// The same with 16 steps per iteration.
#define STEP                                                                                           \
    if (c < uint(C)) {                                                                                 \
        uint y = p * uint(stride) + kh - uint(pad);                                                    \
        uint x = q * uint(stride) + kw - uint(pad);                                                    \
        bool inside = y < uint(H) && x < uint(W);                                                      \
        float value = input_data[inside ? ((n * uint(C) + c) * uint(H) + y) * uint(W) + x : 0u];       \
        sum += (inside ? value : PADDING) * weight_data[((k * uint(C) + c) * size + kh) * size + kw];      \
        if (++kw >= size) { kw = 0u; if (++kh >= size) { kh = 0u; ++c; } }                             \
    }
#define STEPS STEP STEP STEP STEP

float convolve_deep(uint index) {
    uint q = index % uint(W_out);
    uint p = index / uint(W_out) % uint(H_out);
    uint k = index / uint(W_out) / uint(H_out) % uint(K);
    uint n = index / uint(W_out) / uint(H_out) / uint(K);
    uint size = uint(kernel_size);
    float sum = 0.0;
    uint c = 0u, kh = 0u, kw = 0u;
    while (c < uint(C)) { STEPS STEPS STEPS STEPS }
    return c == uint(C) ? sum : uintBitsToFloat(NOT_A_NUMBER);
}
#endif

// Whether a buffer of `there` elements holds a x b x c x d elements: at least, or exactly.
bool holds(int there, int a, int b, int c, int d, bool exactly) {
    uint high[3], product[3];
    umulExtended(uint(a), uint(b), high[0], product[0]);
    umulExtended(product[0], uint(c), high[1], product[1]);
    umulExtended(product[1], uint(d), high[2], product[2]);
    if ((high[0] | high[1] | high[2]) != 0u) return false;
    return exactly ? product[2] == uint(there) : product[2] <= uint(there);
}

// Whether the parameters can belong to the buffers. With a caller's own parameters, the buffers may be larger. Parameters that
// the library left bound after a call belong to this dispatch only if its sizes are the same, so the buffers must fit exactly.
bool belong_together() {
    int least = min(min(min(N, H), min(W, C)), min(min(K, kernel_size), min(stride, min(H_out, W_out))));
    bool exactly = mark.length() > 0 && mark[0] == LEFT_BY_A_CALL;
    return least > 0 && pad >= 0 && holds(input_data.length(), N, C, H, W, exactly) &&
        holds(weight_data.length(), K, C, kernel_size, kernel_size, exactly) &&
        holds(output_data.length(), N, K, H_out, W_out, exactly);
}

void main() {
#ifdef FOR_CALLERS
    bool sound = belong_together();
#else
    // The library's own buffers fit the parameters.
    const bool sound = true;
#endif
    uint total = sound ? uint(N) * uint(K) * uint(H_out) * uint(W_out) : uint(output_data.length());
    uint end = count == 0u ? total : min(total, first + count);
    uint group = gl_WorkGroupID.x + gl_NumWorkGroups.x * (gl_WorkGroupID.y + gl_NumWorkGroups.y * gl_WorkGroupID.z);
    uint groups = gl_NumWorkGroups.x * gl_NumWorkGroups.y * gl_NumWorkGroups.z;
    // Beyond 2^26 groups of 64, the index of an invocation does not fit in 32 bits. Those groups have no work.
    const uint most = 0x3ffffffu;
    if (group > most || first >= end || group * 64u + gl_LocalInvocationID.x >= end - first) return;
    uint step = groups > most ? 0xffffffffu : groups * 64u;
    uint index = first + group * 64u + gl_LocalInvocationID.x;
#ifdef FOR_CALLERS
    // Upper bounds of the outputs of this invocation and of the iterations of each.
    float outputs = float(end - index) / float(step) + 1.0;
    float depth = float(C) * float(kernel_size) * float(kernel_size);
    if (sound && outputs * (depth + float(C) * float(2 * kernel_size + 4) + 4.0) > FEW) {
        if (outputs * (depth / 16.0 + 4.0) > FEW) {
            // The driver may end the loops before the last outputs begin.
            for (uint at = index; ; at += step) {
                output_data[at] = uintBitsToFloat(NOT_A_NUMBER);
                if (step >= end - at) break;
            }
        }
        for (;;) {
            output_data[index] = convolve_deep(index);
            if (step >= end - index) return;
            index += step;
        }
    }
#endif
    for (;;) {
        if (sound) output_data[index] = convolve(index);
        else output_data[index] = uintBitsToFloat(NOT_A_NUMBER);
        if (step >= end - index) return;
        index += step;
    }
}
