// Convolution with few channels per group, mainly depthwise. It is memory-bound, so it uses no shared memory and no packing.
//
//     a thread:  TM output channels of a group  x  4 neighbouring pixels of a row
//
//     |-- the line of the image that four pixels read, loaded once for each (c, r) --|
//      0 . . s           pixel 0
//          1 . . s       pixel 1 ...
//
// Neighbouring threads have neighbouring pixels and the same weights.

layout(local_size_x = 64) in;

layout(std430, binding = 0) readonly buffer InputBuffer { float input_data[]; };
layout(std430, binding = 1) readonly buffer WeightBuffer { float weight_data[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { STORE output_data[]; };
layout(std430, binding = 3) readonly buffer BiasBuffer { float bias_data[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;

// The most vector multiply-adds of a thread that may be unrolled.
#define UNROLLED 144

const int QUADS = (Q + 3) / 4;
const int BLOCKS = ROWS / TM;

float finish(float sum, int k) {
#if BIAS
    sum += bias_data[k];
#endif
#if RELU
    sum = relu(sum);
#endif
    return sum;
}

void main() {
    uint number = gl_WorkGroupID.x + GRID_X * gl_WorkGroupID.y;
    int index = int((first + number) * 64u + gl_LocalInvocationID.x);
    if (number >= count || index >= N * GROUPS * BLOCKS * P * QUADS) return;
    int q = index % QUADS * 4;
    int p = index / QUADS % P;
    int k = index / (QUADS * P) % (GROUPS * BLOCKS) * TM;
    int n = index / (QUADS * P * GROUPS * BLOCKS);
    int group = k / ROWS;
    int top = p * STRIDE_H - PAD_H;
    int left = q * STRIDE_W - PAD_W;

    vec4 sums[TM];
    for (int i = 0; i < TM; ++i) sums[i] = vec4(0.0);
#if CHANNELS * R * S * TM > UNROLLED
    // The compiler must not unroll these loops, which would take it seconds. It does not know that `count` is never 0.
    int channels = count > 0u ? CHANNELS : 0;
    int lines = count > 0u ? R : 0;
#else
    const int channels = CHANNELS;
    const int lines = R;
#endif
    for (int c = 0; c < channels; ++c) {
        int image = n * (GROUPS * CHANNELS * H * W) + (group * CHANNELS + c) * IMAGE_CHANNEL;
        for (int r = 0; r < lines; ++r) {
            int y = top + r * DILATION_H;
            // The zeros of the padding are multiplied, too: with an infinite weight they make NaN.
            bool row_valid = uint(y) < uint(H);
            float line[3 * STRIDE_W + S];
            for (int i = 0; i < 3 * STRIDE_W + S; ++i) {
                int x = left + i;
                bool valid = row_valid && uint(x) < uint(W);
                float value = input_data[valid ? image + y * IMAGE_ROW + x * IMAGE_PIXEL : 0];
                line[i] = valid ? value : PADDING;
            }
            for (int s = 0; s < S; ++s) {
                vec4 pixels = vec4(line[s], line[s + STRIDE_W], line[s + 2 * STRIDE_W], line[s + 3 * STRIDE_W]);
                for (int i = 0; i < TM; ++i) {
                    sums[i] += weight_data[(k + i) * KERNEL_K + c * KERNEL_C + r * KERNEL_R + s * KERNEL_S] * pixels;
                }
            }
        }
    }
    for (int i = 0; i < TM; ++i) {
        int address = n * (GROUPS * ROWS * P * Q) + (k + i) * OUT_CHANNEL + (p * Q + q) * OUT_PIXEL;
        vec4 sum = vec4(finish(sums[i].x, k + i), finish(sums[i].y, k + i), finish(sums[i].z, k + i), finish(sums[i].w, k + i));
#ifdef FUSED
        for (int e = 0; e < 4; ++e) {
            if (STORED == 4 || q + e < Q) sum[e] = FUSED(sum[e], k + i, address + e);
        }
#endif
#if STORED == 4
        output_data[address / 4] = sum;
#elif STORED == 2
        output_data[address / 2] = sum.xy;
        if (q + 2 < Q) output_data[address / 2 + 1] = sum.zw;
#else
        for (int e = 0; e < 4; ++e) {
            if (q + e < Q) output_data[address + e * OUT_PIXEL] = sum[e];
        }
#endif
    }
}
