// A convolution without tiling: for `sparkle patterns` alone. A thread computes one row and four columns, and asks for the
// operands of each multiply-add anew; there is no shared memory, and nothing is cut.
//
//     VECTORS    1: the columns are neighbours; pixels and results move 16 bytes at a time where memory allows it
//                0: single floats, dealt to threads in turn
//     AHEAD      1: the operands of the next channel are loaded before those of the present one are used
//                0: operands are loaded where they are used
//
// Weights are packed [group][tap][channel][row, padded], so threads of a workgroup, which share a row, read one address.

layout(local_size_x = 64) in;
const int THREADS = 64;

layout(std430, binding = 0) readonly buffer InputBuffer { PIXELS input_data[]; };
layout(std430, binding = 1) readonly buffer WeightBuffer { float weight_data[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { STORE output_data[]; };
layout(std430, binding = 3) readonly buffer BiasBuffer { float bias_data[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;

const int BLOCKS = (COLUMNS + 4 * THREADS - 1) / (4 * THREADS);

int place[4];
bool inside[4];

// Four pixels of channel `c`.
vec4 pixels(int c) {
#if V == 4
    return input_data[(place[0] + c * CHANNEL_STRIDE) >> 2];
#else
    vec4 value;
    for (int e = 0; e < 4; ++e) {
        float pixel = input_data[place[e] + c * CHANNEL_STRIDE];
        value[e] = inside[e] ? pixel : 0.0;
    }
    return value;
#endif
}

float finish(float sum, int row) {
#if BIAS
    sum += bias_data[row];
#endif
#if RELU
    sum = relu(sum);
#endif
    return sum;
}

void main() {
    uint number = gl_WorkGroupID.x + GRID_X * gl_WorkGroupID.y;
    if (number >= count) return;
    int block = int(first + number);
    int thread = int(gl_LocalInvocationID.x);
    int start = block % BLOCKS * 4 * THREADS;
    int row = block / BLOCKS % ROWS;
    int group = block / (BLOCKS * ROWS);

    int column[4];
    int top[4];
    int left[4];
    int base[4];
    for (int e = 0; e < 4; ++e) {
        column[e] = start + (VECTORS == 1 ? thread * 4 + e : thread + e * THREADS);
        bool exists = column[e] < COLUMNS;
        int at = exists ? column[e] : 0;
        int n = at / (P * Q);
        int p = at / Q % P;
        int q = at % Q;
        top[e] = exists ? p * STRIDE_H - PAD_H : -0x40000000;
        left[e] = q * STRIDE_W - PAD_W;
        base[e] = n * IMAGE_STRIDE + group * CHANNELS * CHANNEL_STRIDE + (p * STRIDE_H - PAD_H) * IMAGE_ROW + left[e] * IMAGE_PIXEL;
    }
    vec4 sum = vec4(0.0);
    for (int tap = 0; tap < R * S; ++tap) {
        int down = tap / S * DILATION_H;
        int across = tap % S * DILATION_W;
        for (int e = 0; e < 4; ++e) {
            inside[e] = uint(top[e] + down) < uint(H) && uint(left[e] + across) < uint(W);
            place[e] = inside[e] ? base[e] + down * IMAGE_ROW + across * IMAGE_PIXEL : group * CHANNELS * CHANNEL_STRIDE;
        }
        int weight = (group * R * S + tap) * CHANNELS * ROWS_PADDED + row;
#if AHEAD
        vec4 next = pixels(0);
        float next_weight = weight_data[weight];
        for (int c = 0; c < CHANNELS; ++c) {
            vec4 now = next;
            float factor = next_weight;
            int ahead = min(c + 1, CHANNELS - 1);
            next = pixels(ahead);
            next_weight = weight_data[weight + ahead * ROWS_PADDED];
            sum += factor * now;
        }
#else
        for (int c = 0; c < CHANNELS; ++c) sum += weight_data[weight + c * ROWS_PADDED] * pixels(c);
#endif
    }
    row += group * ROWS;
#if STORE4
    if (column[0] >= COLUMNS) return;
    int address = (column[0] / (P * Q) * GROUPS * ROWS + row) * OUT_CHANNEL + column[0] % (P * Q);
    output_data[address / 4] = vec4(finish(sum.x, row), finish(sum.y, row), finish(sum.z, row), finish(sum.w, row));
#else
    for (int e = 0; e < 4; ++e) {
        if (column[e] >= COLUMNS) continue;
        output_data[(column[e] / (P * Q) * GROUPS * ROWS + row) * OUT_CHANNEL + column[e] % (P * Q) * OUT_PIXEL] = finish(sum[e], row);
    }
#endif
}
