#version 430 core

// conv_direct_64: every convolution. Rectangular kernels, strides and paddings, dilation, groups, bias, ReLU.
//
//     input  [N][C][H][W]          weights [K][C/G][R][S]          output [N][K][P][Q]
//
//     group g of G:   channels  g*C/G ... (g+1)*C/G - 1   feed   outputs  g*K/G ... (g+1)*K/G - 1
//
// One invocation sums one output over (c, r, s) and goes on to the one that lies as many further as there are
// invocations, exactly as conv_reference_64 does; see there for the numbering of invocations, for `first` and
// `count`, and for why no index wraps unless it is meant to.

layout(local_size_x = 64, local_size_y = 1, local_size_z = 1) in;

layout(std430, binding = 0) readonly buffer InputBuffer { float input_data[]; };
layout(std430, binding = 1) readonly buffer WeightBuffer { float weight_data[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { float output_data[]; };
layout(std430, binding = 3) readonly buffer ParamBuffer {
    uint N, C, H, W, K, R, S, P, Q;
    uint stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
    uint groups_of_channels, has_bias, has_relu;
};
layout(std430, binding = 4) readonly buffer BiasBuffer { float bias_data[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;

// The output at flat index ((n*K + k)*P + p)*Q + q.
float convolve(uint index) {
    uint q = index % Q;
    uint p = index / Q % P;
    uint k = index / Q / P % K;
    uint n = index / Q / P / K;
    uint channels = C / groups_of_channels;
    uint first_channel = k / (K / groups_of_channels) * channels;
    float sum = has_bias != 0u ? bias_data[k] : 0.0;
    for (uint c = 0u; c < channels; ++c) {
        uint image = (n * C + first_channel + c) * H;
        uint kernel = (k * channels + c) * R;
        for (uint r = 0u; r < R; ++r) {
            uint y = p * stride_h + r * dilation_h - pad_h;
            if (y >= H) continue;
            uint line = (image + y) * W;
            for (uint s = 0u; s < S; ++s) {
                uint x = q * stride_w + s * dilation_w - pad_w;
                if (x < W) sum += input_data[line + x] * weight_data[(kernel + r) * S + s];
            }
        }
    }
    // Not max(sum, 0.0): that may turn NaN into 0 and hide it.
    return has_relu != 0u && sum < 0.0 ? 0.0 : sum;
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
