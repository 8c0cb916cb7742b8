// conv_single: a convolution in one pass from the caller's unpacked weights, with the reference interface.
//
//     rows: output channels                 a workgroup computes THREADS_Y*TM rows by THREADS_X*TN columns,
//       +-------+-------+                   a thread TM x TN of these, THREADS_Y and THREADS_X apart, so that
//       |       |       |                   neighbouring threads read neighbouring pixels
//       +-------+-------+  columns: pixels of all images
//
// SHARED: slices of BK steps of the reduction are staged in shared memory; otherwise each thread reads its own operands.
// CHAINS: independent accumulators of an output, so that consecutive multiply-adds do not wait for each other.
//
// EACH_ROW(DO), EACH_COLUMN(DO, i) and EACH_CHAIN(DO) unroll DO(i) over rows, DO(i, j) over columns and DO(chain) over chains.
// They replace loops, because some drivers end all loops of an invocation after 65,535 iterations in total, without an error.
// A sum that the driver ended is NaN.
//
// Sizes are constants, the batch is a parameter. If the parameters differ from the constants, `convolve` computes the outputs:
// the reference kernel's loop, which reads all parameters and is slower. Any grid covers every output. As in the reference
// kernel, parameters that cannot belong to the buffers make every output NaN.
//
// The host rejects problems with 2^31 or more elements in a buffer, so no index wraps by mistake. A position left of or above
// the image wraps on purpose, and is then larger than any size.

#define THREADS (THREADS_X * THREADS_Y)
#define BM (THREADS_Y * TM)
#define BN (THREADS_X * TN)
#define PIXELS (OUT_P * OUT_Q)
#define DEPTH (IN_C * R * S)
#define TILES_M ((OUT_K + BM - 1u) / BM)

// The position of the kernel's corner in an image, for one column of outputs.
struct Corner {
    uint image, top, left;
};

float sums[CHAINS * TM * TN];
// Steps of the reduction that are done.
uint steps;

Corner corner(uint column) {
    // Columns after the last compute it again and are not stored.
    uint last = min(column, uint(N) * PIXELS - 1u);
    uint pixel = last % PIXELS;
    return Corner(last / PIXELS * (IN_C * IN_H * IN_W),
                  pixel / OUT_Q * STRIDE_H - PAD_H, pixel % OUT_Q * STRIDE_W - PAD_W);
}

float pixel(Corner at, uint c, uint r, uint s) {
    uint y = at.top + r, x = at.left + s;
    return y < IN_H && x < IN_W ? input_data[at.image + (c * IN_H + y) * IN_W + x] : PADDING;
}

#if SHARED
shared float weights_slice[BK * BM];
shared float pixels_slice[BK * BN];

void load_slice(uint first_row, Corner mine, uint first) {
    for (uint element = gl_LocalInvocationIndex; element < BK * BM; element += THREADS) {
        uint row = min(first_row + element / BK, OUT_K - 1u), step = first + element % BK;
        weights_slice[element % BK * BM + element / BK] = step < DEPTH ? weight_data[row * DEPTH + step] : 0.0;
    }
    // BN divides THREADS: a thread stays in its column.
    for (uint k = gl_LocalInvocationIndex / BN; k < BK; k += THREADS / BN) {
        uint step = first + k;
        float value = 0.0;
        if (step < DEPTH) value = pixel(mine, step / (R * S), step / S % R, step % S);
        pixels_slice[k * BN + gl_LocalInvocationIndex % BN] = value;
    }
}

void reduce(uint first_row, uint first_column, uint once) {
    Corner mine = corner(first_column + gl_LocalInvocationIndex % BN);
    for (uint first = 0u; first < DEPTH * once; first += BK) {
        load_slice(first_row, mine, first);
        barrier();
        uint k = 0u;
        for (; k < BK; ++k) {
            float pixels[TN];
            float weight;
#define FETCH(i, j) pixels[j] = pixels_slice[k * BN + (j) * THREADS_X + gl_LocalInvocationID.x];
#define ADD(i, j) sums[(k % CHAINS * TM + (i)) * TN + (j)] += weight * pixels[j];
#define ADD_ROW(i) weight = weights_slice[k * BM + (i) * THREADS_Y + gl_LocalInvocationID.y]; EACH_COLUMN(ADD, i)
            EACH_COLUMN(FETCH, 0u)
            EACH_ROW(ADD_ROW)
        }
        if (k == BK) steps += min(BK, DEPTH - first);
        barrier();
    }
}
#else
Corner corners[TN];
uint rows[TM];

void add_channel(uint c, uint chain, uint once) {
    for (uint r = 0u; r < R * once; ++r) {
        uint s = 0u;
        for (; s < S; ++s) {
            float pixels[TN];
            float weight;
#define FETCH(i, j) pixels[j] = pixel(corners[j], c, r, s);
#define ADD(i, j) sums[(chain * TM + (i)) * TN + (j)] += weight * pixels[j];
#define ADD_ROW(i) weight = weight_data[rows[i] * DEPTH + (c * R + r) * S + s]; EACH_COLUMN(ADD, i)
            EACH_COLUMN(FETCH, 0u)
            EACH_ROW(ADD_ROW)
        }
        steps += s;
    }
}

void reduce(uint first_row, uint first_column, uint once) {
#define LOCATE_COLUMN(i, j) corners[j] = corner(first_column + (j) * THREADS_X + gl_LocalInvocationID.x);
#define LOCATE_ROW(i) rows[i] = min(first_row + (i) * THREADS_Y + gl_LocalInvocationID.y, OUT_K - 1u);
#define ADD_CHANNEL(chain) add_channel(c + (chain), chain, once);
    EACH_COLUMN(LOCATE_COLUMN, 0u)
    EACH_ROW(LOCATE_ROW)
    uint c = 0u;
    for (; c + CHAINS <= IN_C * once; c += CHAINS) { EACH_CHAIN(ADD_CHANNEL) }
    // The last channel, if their number is odd.
    if (c < IN_C * once) add_channel(c, 0u, once);
}
#endif

// Stores the sums of a tile, or NaN if they are incomplete.
void store(uint first_row, uint first_column) {
    uint row, column;
    float sum;
#define ADD_UP(chain) sum += sums[((chain) * TM * TN) + at];
#define STORE(i, j)                                                                                  \
    {                                                                                                \
        uint at = (i) * TN + (j);                                                                    \
        row = first_row + (i) * THREADS_Y + gl_LocalInvocationID.y;                                  \
        column = first_column + (j) * THREADS_X + gl_LocalInvocationID.x;                            \
        sum = sums[at];                                                                              \
        EACH_OTHER_CHAIN(ADD_UP)                                                                     \
        if (steps != DEPTH) sum = uintBitsToFloat(NOT_A_NUMBER);                                     \
        if (row < OUT_K && column < uint(N) * PIXELS) {                                              \
            output_data[(column / PIXELS * OUT_K + row) * PIXELS + column % PIXELS] = sum;           \
        }                                                                                            \
    }
#define STORE_ROW(i) EACH_COLUMN(STORE, i)
    EACH_ROW(STORE_ROW)
}

void compute_tile(uint tile) {
    uint first_row = tile % TILES_M * BM, first_column = tile / TILES_M * BN;
#define CLEAR(i, j) sums[at + (i) * TN + (j)] = 0.0;
#define CLEAR_ROW(i) EACH_COLUMN(CLEAR, i)
#define CLEAR_CHAIN(chain) at = (chain) * TM * TN; EACH_ROW(CLEAR_ROW)
    uint at;
    EACH_CHAIN(CLEAR_CHAIN)
    steps = 0u;
    // Always 1, but the compiler does not know it: it must not unroll loops over the whole reduction.
    reduce(first_row, first_column, min(uint(N), 1u));
    store(first_row, first_column);
}

// Whether the parameters equal the constants.
bool is_made_for() {
    bool same = uint(C) == IN_C && uint(H) == IN_H && uint(W) == IN_W && uint(K) == OUT_K;
    same = same && uint(H_out) == OUT_P && uint(W_out) == OUT_Q;
#if SQUARE
    same = same && uint(kernel_size) == R && uint(stride) == STRIDE_H && uint(pad) == PAD_H;
#endif
    return same;
}

void main() {
    uint group = gl_WorkGroupID.x + gl_NumWorkGroups.x * (gl_WorkGroupID.y + gl_NumWorkGroups.y * gl_WorkGroupID.z);
    // After wrapping it may be any number but 0. Some tiles are then computed more than once, with the same result.
    uint groups = max(gl_NumWorkGroups.x * gl_NumWorkGroups.y * gl_NumWorkGroups.z, 1u);
    // Only the parameters of a square kernel determine the number of weights.
    bool sound = SQUARE == 0 || belong_together();
    bool made_for = sound && is_made_for();
    uint total = sound ? uint(N) * uint(K) * uint(H_out) * uint(W_out) : uint(output_data.length());
    uint pieces = (total + THREADS - 1u) / THREADS;
    if (made_for) pieces = TILES_M * ((uint(N) * PIXELS + BN - 1u) / BN);
    if (made_for && pieces > groups && (float(pieces) / float(groups) + 1.0) * float(ITERATIONS) > FEW) {
        // The driver may end the loops before the last tiles begin.
        steps = 0u;
        for (uint piece = group; piece < pieces; piece += groups) {
            store(piece % TILES_M * BM, piece / TILES_M * BN);
            if (groups >= pieces - piece) break;
        }
    }
    for (uint piece = group; piece < pieces; piece += groups) {
        uint index = piece * THREADS + gl_LocalInvocationIndex;
        if (made_for) compute_tile(piece);
        else if (index < total && sound) output_data[index] = convolve(index);
        else if (index < total) output_data[index] = uintBitsToFloat(NOT_A_NUMBER);
        if (groups >= pieces - piece) break;
    }
}
