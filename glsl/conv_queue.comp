// conv_queue_64: many small convolutions of one plan in one dispatch. Any number of workgroups drains a queue of jobs.
//
//     taken[counter]   the next ticket: workgroups draw tickets one by one until none is left
//     ticket t         `block` outputs of job t / blocks
//     jobs[j]          offsets of the input and the output of job j
//
// No workgroup waits for another, so none has to be resident for the others to continue. A dispatch ends when its `count`
// tickets are drawn, so the host chooses its length. The other jobs of the dispatch do not change a job's results or the order
// of its sums: the bits equal those of conv_direct_64. See there for the layout of the data.

layout(local_size_x = 64, local_size_y = 1, local_size_z = 1) in;

layout(std430, binding = 0) readonly buffer InputBuffer { float input_data[]; };
layout(std430, binding = 1) readonly buffer WeightBuffer { float weight_data[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { float output_data[]; };
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
layout(std430, binding = 5) buffer QueueBuffer {
    uint taken[64];
    uvec2 jobs[];
};

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;
layout(location = 2) uniform uint counter;
layout(location = 3) uniform uint block;
layout(location = 4) uniform uint most;

shared uint drawn;

// The output at flat index ((n*K + k)*P + p)*Q + q, or ((n*P + p)*Q + q)*K + k, of the job whose input begins at `begin`.
float convolve(uint begin, uint index) {
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
    for (uint c = 0u; c < channels; ++c) {
        uint image = begin + n * C * H * W + (first_channel + c) * in_channel;
        uint kernel = k * of_k + c * of_c;
        for (uint r = 0u; r < R; ++r) {
            uint y = p * stride_h + r * dilation_h - pad_h;
            uint line = image + y * in_row;
            for (uint s = 0u; s < S; ++s) {
                uint x = q * stride_w + s * dilation_w - pad_w;
                bool inside = y < H && x < W;
                float value = input_data[inside ? line + x * in_pixel : 0u];
                sum += (inside ? value : PADDING) * weight_data[kernel + r * of_r + s * of_s];
            }
        }
    }
    return has_relu != 0u ? relu(sum) : sum;
}

void main() {
    uint total = N * K * P * Q;
    uint blocks = (total + block - 1u) / block;
    // Bounded: some drivers end all loops of an invocation after 65,535 iterations in total, without an error.
    for (uint draws = 0u; draws < most; ++draws) {
        if (gl_LocalInvocationID.x == 0u) drawn = atomicAdd(taken[counter], 1u);
        memoryBarrierShared();
        barrier();
        uint ticket = drawn;
        // All invocations read the ticket before the next is drawn.
        memoryBarrierShared();
        barrier();
        if (ticket >= count) return;
        ticket += first;
        uvec2 job = jobs[ticket / blocks];
        uint begin = ticket % blocks * block;
        uint end = min(begin + block, total);
        for (uint index = begin + gl_LocalInvocationID.x; index < end; index += 64u) {
            output_data[job.y + index] = convolve(job.x, index);
        }
    }
}
