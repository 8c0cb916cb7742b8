// conv_direct_64: fallback kernel for every convolution. Rectangular kernels, strides and paddings, dilation, groups,
// bias, ReLU.
//
// The zeros of the padding are multiplied like other pixels: with an infinite weight they make NaN.
//
// With PART, a pass sums only a part of the reduction: some channels, some rows of one channel, or some columns of one
// row. It continues the sum that the previous pass stored, so all passes together sum in the order of a single pass.
//
//     input  [N][C][H][W]          weights [K][C/G][R][S]          output [N][K][P][Q]
//         or [N][H][W][C]       or [R][S][C/G][K], [K][R][S][C/G]      or [N][P][Q][K]
//
//     group g of G:   channels  g*C/G ... (g+1)*C/G - 1   feed   outputs  g*K/G ... (g+1)*K/G - 1
//
// One invocation sums one output over (c, r, s), then strides by the number of invocations, like conv_reference_64. See
// there for the numbering of invocations, for `first` and `count`, and for why no index wraps by mistake.

layout(local_size_x = 64, local_size_y = 1, local_size_z = 1) in;

layout(std430, binding = 0) readonly buffer InputBuffer { float input_data[]; };
layout(std430, binding = 1) readonly buffer WeightBuffer { float weight_data[]; };
#if PART
layout(std430, binding = 2) buffer OutputBuffer { float output_data[]; };
#else
layout(std430, binding = 2) writeonly buffer OutputBuffer { float output_data[]; };
#endif
layout(std430, binding = 3) readonly buffer ParamBuffer {
    uint N, C, H, W, K, R, S, P, Q;
    uint stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
    uint groups_of_channels, has_bias, has_relu;
    // Distances of neighbours in the input and in the weights, and whether the output is [N][P][Q][K].
    uint in_channel, in_row, in_pixel;
    uint of_k, of_c, of_r, of_s;
    uint channels_last;
};
layout(std430, binding = 4) readonly buffer BiasBuffer { float bias_data[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;
// The part of the reduction: ranges of the channels of the group, of kernel rows and of kernel columns.
#if PART
layout(location = 2) uniform uint channel_begin;
layout(location = 3) uniform uint channel_end;
layout(location = 4) uniform uint row_begin;
layout(location = 5) uniform uint row_end;
layout(location = 6) uniform uint column_begin;
layout(location = 7) uniform uint column_end;
#else
const uint channel_begin = 0u, row_begin = 0u, column_begin = 0u;
#define channel_end channels
#define row_end R
#define column_end S
#endif

// The output at flat index ((n*K + k)*P + p)*Q + q, or ((n*P + p)*Q + q)*K + k.
float convolve(uint index) {
    // From the pixel's number in the batch, or from the channel's.
    bool last = channels_last != 0u;
    uint rest = last ? index / K : index;
    uint q = rest % Q;
    uint p = rest / Q % P;
    uint k = last ? index % K : rest / Q / P % K;
    uint n = last ? rest / Q / P : rest / Q / P / K;
    uint channels = C / groups_of_channels;
    uint first_channel = k / (K / groups_of_channels) * channels;
    float sum = has_bias != 0u ? bias_data[k] : 0.0;
#if PART
    if (channel_begin + row_begin + column_begin > 0u) sum = output_data[index];
#endif
    for (uint c = channel_begin; c < channel_end; ++c) {
        uint image = n * C * H * W + (first_channel + c) * in_channel;
        uint kernel = k * of_k + c * of_c;
        for (uint r = row_begin; r < row_end; ++r) {
            uint y = p * stride_h + r * dilation_h - pad_h;
            uint line = image + y * in_row;
            for (uint s = column_begin; s < column_end; ++s) {
                uint x = q * stride_w + s * dilation_w - pad_w;
                bool inside = y < H && x < W;
                float value = input_data[inside ? line + x * in_pixel : 0u];
                sum += (inside ? value : PADDING) * weight_data[kernel + r * of_r + s * of_s];
            }
        }
    }
    bool is_last = channel_end == channels && row_end == R && column_end == S;
    if (is_last && has_relu != 0u) sum = relu(sum);
#ifdef FUSED
    if (is_last) sum = FUSED(sum, k, index);
#endif
    return sum;
}

void main() {
    uint total = N * K * P * Q;
    uint end = count == 0u ? total : min(total, first + count);
    uint group = gl_WorkGroupID.x + gl_NumWorkGroups.x * (gl_WorkGroupID.y + gl_NumWorkGroups.y * gl_WorkGroupID.z);
    uint groups = gl_NumWorkGroups.x * gl_NumWorkGroups.y * gl_NumWorkGroups.z;
    const uint most = 0x3ffffffu;
    if (group > most || first >= end || group * 64u + gl_LocalInvocationID.x >= end - first) return;
    uint step = groups > most ? 0xffffffffu : groups * 64u;
    uint index = first + group * 64u + gl_LocalInvocationID.x;
    for (;;) {
        output_data[index] = convolve(index);
        if (step >= end - index) return;
        index += step;
    }
}
