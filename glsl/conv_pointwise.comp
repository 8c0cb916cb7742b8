// 1x1 convolution of little depth on few pixels. Staging such a layer in shared memory takes longer than computing it.
//
//     a workgroup:  8 x 8 threads, KG times;  a thread:  4 output channels  x  4 neighbouring pixels, 1/KG of the channels
//
//                         8 x 4 pixels
//                       +--------------+
//            8 x 4      |  KG parts,   |     Pixels and packed weights are read through the L1 cache into registers. All reads of
//            channels   |  added in    |     a thread may be in flight at once: no barrier separates them.
//                       |  order       |
//                       +--------------+

layout(local_size_x = THREADS) in;

layout(std430, binding = 0) readonly buffer InputBuffer { vec4 input_data[]; };
layout(std430, binding = 1) readonly buffer WeightBuffer { vec4 weight_data[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { vec4 output_data[]; };
layout(std430, binding = 3) readonly buffer BiasBuffer { float bias_data[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;

// Quads of pixels in an image and in the batch; blocks of eight quads of channels; channels of a part.
const int IMAGE = P * Q / 4;
const int QUADS = N * IMAGE;
const int BLOCKS = (ROWS + 31) / 32;
const int STEPS = (CHANNELS + KG - 1) / KG;

// Four channels of four pixels, for 64 threads and KG parts.
shared vec4 parts[KG * 4 * 64];

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
    if (number >= count) return;
    int tile = int(first + number);
    int thread = int(gl_LocalInvocationID.x);
    int lane = thread % 64;
    int kg = thread / 64;
    int quad0 = tile / BLOCKS * 8;
    int block0 = tile % BLOCKS * 8;

    int quad = min(quad0 + lane % 8, QUADS - 1);
    int place = quad / IMAGE * CHANNELS * IMAGE + quad % IMAGE;
    int weights = block0 + lane / 8;
    vec4 sums[4];
    for (int i = 0; i < 4; ++i) sums[i] = vec4(0.0);
    for (int step = 0; step < STEPS; ++step) {
        int c = kg * STEPS + step;
        vec4 rows = weight_data[c * (ROWS_PADDED / 4) + weights];
#if CHANNELS % KG != 0
        vec4 pixels = input_data[place + min(c, CHANNELS - 1) * IMAGE];
        if (c >= CHANNELS) pixels = vec4(0.0);
#else
        vec4 pixels = input_data[place + c * IMAGE];
#endif
        sums[0] += rows.x * pixels;
        sums[1] += rows.y * pixels;
        sums[2] += rows.z * pixels;
        sums[3] += rows.w * pixels;
    }
    for (int i = 0; i < 4; ++i) parts[(kg * 4 + i) * 64 + lane] = sums[i];
    barrier();
    for (int at = thread; at < 4 * 64; at += THREADS) {
        int k = (block0 + at % 64 / 8) * 4 + at / 64;
        int q = quad0 + at % 8;
        if ((ROWS % 32 != 0 && k >= ROWS) || (QUADS % 8 != 0 && q >= QUADS)) continue;
        vec4 sum = parts[at];
        for (int part = 1; part < KG; ++part) sum += parts[part * 4 * 64 + at];
        sum = vec4(finish(sum.x, k), finish(sum.y, k), finish(sum.z, k), finish(sum.w, k));
        int address = (q / IMAGE * ROWS + k) * IMAGE + q % IMAGE;
#ifdef FUSED
        for (int e = 0; e < 4; ++e) sum[e] = FUSED(sum[e], k, 4 * address + e);
#endif
        output_data[address] = sum;
    }
}
