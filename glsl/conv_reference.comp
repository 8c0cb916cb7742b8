#version 430 core

// conv_reference_64: the reference convolution. Square kernel, one stride, one padding; no dilation, groups or bias.
//
//     input  [N][C][H][W]                  output [N][K][H_out][W_out]
//       +-----------+                        +--------+
//       |  +---+    |   sum over             |        |     one invocation sums one output,
//       |  |   |----+--- c, kh, kw --------> |   x    |     then goes on to the one that lies
//       |  +---+    |   in this order        |        |     as many further as there are invocations
//       +-----------+                        +--------+
//
// Any grid covers every output: invocations are numbered over x, y and z of the grid, and each takes every
// `invocations`-th output. So a caller may dispatch one group or (ceil(W_out/16), ceil(H_out/16), N*K) groups, and
// the driver's limit of 65,535 groups a dimension limits nothing.
//
// `first` and `count` cut long work into several dispatches; left at 0 they mean everything.
//
// The host accepts no problem with 2^31 or more elements in a buffer or rows or columns in a padded image, so no
// index below wraps. A position left of or above the image wraps on purpose: as uint it is larger than any size.
//
// The padding's zeros are multiplied like any other pixel: an infinite weight makes NaN of them.
//
// Some drivers end the loops of an invocation after 65,535 iterations together, without an error. The library gives this kernel no sum
// that is too long. Programs that dispatch it themselves may: they get it with FOR_CALLERS, where long sums take 16 steps an
// iteration, and a sum that was ended all the same is NaN. Such programs may also have other parameters bound than go with the
// buffers, or none. Where that shows, every output becomes NaN: see `belong_together`.

layout(local_size_x = 64, local_size_y = 1, local_size_z = 1) in;

layout(std430, binding = 0) readonly buffer InputBuffer { float input_data[]; };
layout(std430, binding = 1) readonly buffer WeightBuffer { float weight_data[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { float output_data[]; };
layout(std430, binding = 3) readonly buffer ParamBuffer {
    int N, H, W, C, K, kernel_size, stride, pad, H_out, W_out;
    int mark[];
};
// Stands at the end of the block that the library leaves bound after a call: the parameters of that call.
const int LEFT_BY_A_CALL = 0x4c454654;
const uint NOT_A_NUMBER = 0x7fc00000u;

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;

// A pixel of the padding: 0, which the compiler does not know. It would drop products with a zero that it knows.
#define PADDING uintBitsToFloat(count >> 31)

#ifdef FOR_CALLERS
// Iterations that every driver makes.
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
    // Where the driver has ended the loops, the innermost one it was in stands before its end.
    if (c != uint(C) || kh != size || kw != size) return uintBitsToFloat(NOT_A_NUMBER);
#endif
    return sum;
}

#ifdef FOR_CALLERS
// The same, 16 steps an iteration.
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

// Whether a buffer of `there` elements holds a x b x c x d: at least, or exactly.
bool holds(int there, int a, int b, int c, int d, bool exactly) {
    uint high[3], product[3];
    umulExtended(uint(a), uint(b), high[0], product[0]);
    umulExtended(product[0], uint(c), high[1], product[1]);
    umulExtended(product[1], uint(d), high[2], product[2]);
    if ((high[0] | high[1] | high[2]) != 0u) return false;
    return exactly ? product[2] == uint(there) : product[2] <= uint(there);
}

// Whether the parameters can be those of the buffers. A caller's own parameters may go with buffers that are larger. Those that
// a call left behind have nothing to do with this dispatch unless its sizes happen to be the same: so they must fit exactly.
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
    // The library's own buffers are made for the parameters.
    const bool sound = true;
#endif
    uint total = sound ? uint(N) * uint(K) * uint(H_out) * uint(W_out) : uint(output_data.length());
    uint end = count == 0u ? total : min(total, first + count);
    uint group = gl_WorkGroupID.x + gl_NumWorkGroups.x * (gl_WorkGroupID.y + gl_NumWorkGroups.y * gl_WorkGroupID.z);
    uint groups = gl_NumWorkGroups.x * gl_NumWorkGroups.y * gl_NumWorkGroups.z;
    // Beyond 2^26 groups of 64 the number of an invocation does not fit in 32 bits; they have nothing to do.
    const uint most = 0x3ffffffu;
    if (group > most || first >= end || group * 64u + gl_LocalInvocationID.x >= end - first) return;
    uint step = groups > most ? 0xffffffffu : groups * 64u;
    uint index = first + group * 64u + gl_LocalInvocationID.x;
#ifdef FOR_CALLERS
    // Outputs of this invocation, and iterations for each, at most.
    float outputs = float(end - index) / float(step) + 1.0;
    float depth = float(C) * float(kernel_size) * float(kernel_size);
    if (sound && outputs * (depth + float(C) * float(2 * kernel_size + 4) + 4.0) > FEW) {
        if (outputs * (depth / 16.0 + 4.0) > FEW) {
            // The loops may end before the last outputs are begun.
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
