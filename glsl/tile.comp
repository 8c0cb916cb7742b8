// Tiled matrix product: the kernel of convolutions of every size, batched products and sgemm.
//
//     weights, packed [group][depth][ROWS, padded]        image [n][channel][H][W] or [n][H][W][channel], in place
//
//                 one slice of the reduction                       columns = pixels (n, p, q)
//               <------ BK ------>                              <----------- BN ----------->
//             +--------------------+                          +-----------------------------+
//             |  a, transposed:    |                     BK   |  b: pixels that this slice  |
//          BM |  BK x BM shared    |                          |  of (r, s, c) sees          |
//             +--------------------+                          +-----------------------------+
//                                                       a thread: TM x TN outputs in registers, in fours:
//     columns  0123 ---- TX threads ----  0123 ...      rows and columns 4*t .. 4*t+3 and again 4*(t + threads) ..,
//                                                       so that shared reads are 16 bytes and adjacent in a warp.
//
// Shared memory is double-buffered: one slice is used while the next is loaded from memory through registers. The
// reduction runs over (r, s) outside and channels inside, so that a pixel's address and bounds are computed once for each
// (r, s). With TABLE, for few channels, it runs over (c, r, s), with the address of each step in a table.
//
// KG groups of threads may share the steps of a slice, each with the whole tile in registers: a small tile then keeps more
// threads busy. Their sums are added at the end, always in the same order.
//
// A workgroup computes one tile of one part of the reduction. `first` and `count` number the workgroups of a dispatch.

layout(local_size_x = THREADS) in;

layout(std430, binding = 0) readonly buffer InputBuffer { PIXELS input_data[]; };
layout(std430, binding = 1) readonly buffer WeightBuffer { vec4 weight_data[]; };
layout(std430, binding = 2) ACCESS buffer OutputBuffer { STORE output_data[]; };
#if OLD
layout(std430, binding = 3) readonly buffer OldBuffer { STORE old_data[]; };
#else
layout(std430, binding = 3) readonly buffer BiasBuffer { float bias_data[]; };
#endif

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;
#if SCALED
layout(location = 2) uniform uint alpha_bits;
layout(location = 3) uniform uint beta_bits;
#endif

const int TX = BN / TN;
const int TY = BM / TM;
const int BM4 = BM / 4;
const int BN4 = BN / 4;
const int TM4 = TM / 4;
const int TN4 = TN / 4;

// Weights: the threads load the vectors of a slice in turn.
const int A_VECTORS = BK * BM4;
const int A_LOADS = (A_VECTORS + THREADS - 1) / THREADS;

// Pixels: a thread keeps its columns, in fours, and loops over rows. Four adjacent pixels take one read (V = 4),
// others take four.
const int E = 4 / V;
const int B_COLS = BN4 > THREADS ? BN4 / THREADS : 1;
const int B_STEP = BN4 > THREADS ? 1 : THREADS / BN4;
const int B_ROWS = (BK + B_STEP - 1) / B_STEP;

// Slices of the reduction, and slices of a part.
const int C_SLICES = (CHANNELS + BK - 1) / BK;
#if TABLE
const int DEPTH = CHANNELS * R * S;
const int SLICES = (DEPTH + BK - 1) / BK;
#else
const int SLICES = C_SLICES * R * S;
#endif
const int PART = (SLICES + SPLITS - 1) / SPLITS;

shared vec4 a_shared[2 * BK * BM4];
shared vec4 b_shared[2 * BK * BN4];
#if TABLE
// For each step of the reduction: its offset from a pixel, and its row and column in the kernel.
shared ivec2 steps[SLICES * BK];
#endif

#if KG > 1
shared vec4 others[KG / 2 * BM * BN4];
#endif

// State of a thread's columns.
int base[B_COLS * E];   // the address of the pixel at (r, s) = (0, 0), channel 0
int top[B_COLS * E];    // its row and column in the image
int left[B_COLS * E];
int place[B_COLS * E];  // the address at the current (r, s), or any valid one
bool inside[B_COLS * E];

// Addresses of a thread's weights in the next slice.
int weights_place[A_LOADS];

vec4 a_next[A_LOADS];
vec4 b_next[B_COLS * B_ROWS];

void locate_columns(int thread, int tile_n, int group) {
    for (int i = 0; i < B_COLS * E; ++i) {
        int column = tile_n * BN + (thread % BN4 + i / E * THREADS) * 4 + i % E;
        bool exists = column < COLUMNS;
        column = exists ? column : 0;
        int n = column / (P * Q);
        int p = column / Q % P;
        int q = column % Q;
        top[i] = exists ? p * STRIDE_H - PAD_H : -0x40000000;
        left[i] = q * STRIDE_W - PAD_W;
        base[i] = n * IMAGE_STRIDE + group * CHANNELS * CHANNEL_STRIDE + (p * STRIDE_H - PAD_H) * IMAGE_ROW + left[i] * IMAGE_PIXEL;
    }
}

// Moves the columns to kernel position (r, s).
void move_to(int tap, int group) {
    int down = tap / S * DILATION_H;
    int across = tap % S * DILATION_W;
    for (int i = 0; i < B_COLS * E; ++i) {
        inside[i] = uint(top[i] + down) < uint(H) && uint(left[i] + across) < uint(W);
        place[i] = inside[i] ? base[i] + down * IMAGE_ROW + across * IMAGE_PIXEL : group * CHANNELS * CHANNEL_STRIDE;
    }
}

#if TABLE
// Loads four pixels of step `step` of the reduction.
vec4 pixels(int i, int step) {
    ivec2 move = steps[step];
    vec4 value;
    for (int e = 0; e < 4; ++e) {
        int at = i * 4 + e;
        bool valid = uint(top[at] + (move.y >> 16)) < uint(H) && uint(left[at] + (move.y & 0xffff)) < uint(W);
        float pixel = input_data[valid ? base[at] + move.x : 0];
        value[e] = valid ? pixel : 0.0;
    }
    return value;
}
#else
// Loads four pixels of channel `c` at the current kernel position.
vec4 pixels(int i, int c) {
#if CHANNELS_UNEVEN
    bool exists = c < CHANNELS;
    c = min(c, CHANNELS - 1);
#else
    const bool exists = true;
#endif
#if V == 4
    vec4 value = input_data[(place[i] + c * CHANNEL_STRIDE) >> 2];
    return exists ? value : vec4(0.0);
#else
    vec4 value;
    for (int e = 0; e < 4; ++e) {
        float pixel = input_data[place[i * 4 + e] + c * CHANNEL_STRIDE];
#if EDGES
        value[e] = inside[i * 4 + e] && exists ? pixel : 0.0;
#else
        value[e] = pixel;
#endif
    }
    return value;
#endif
}
#endif

// Loads the next slice into registers: weights, and pixels from channel `channel` on (with TABLE: of slice `slice`).
void load(int thread, int slice, int channel) {
    for (int i = 0; i < A_LOADS; ++i) {
        int vector = thread + i * THREADS;
        if (A_VECTORS % THREADS == 0 || vector < A_VECTORS) {
            a_next[i] = weight_data[weights_place[i]];
            weights_place[i] += BK * ROWS_PADDED / 4;
        }
    }
    int row = thread / BN4;
    for (int j = 0; j < B_ROWS; ++j, row += B_STEP) {
        if (BK % B_STEP == 0 || row < BK) {
            for (int i = 0; i < B_COLS; ++i) {
                b_next[j * B_COLS + i] = pixels(i, (TABLE == 1 ? slice * BK : channel) + row);
            }
        }
    }
}

// Stores the loaded slice in half `half_index` of shared memory.
void keep(int thread, int half_index) {
    for (int i = 0; i < A_LOADS; ++i) {
        int vector = thread + i * THREADS;
        if (A_VECTORS % THREADS == 0 || vector < A_VECTORS) {
            a_shared[half_index * A_VECTORS + vector] = a_next[i];
        }
    }
    int row = thread / BN4;
    for (int j = 0; j < B_ROWS; ++j, row += B_STEP) {
        if (BK % B_STEP == 0 || row < BK) {
            for (int i = 0; i < B_COLS; ++i) {
                b_shared[half_index * BK * BN4 + row * BN4 + thread % BN4 + i * THREADS] = b_next[j * B_COLS + i];
            }
        }
    }
}

vec4 sums[TM * TN4];

// Double-buffered operands of a step.
vec4 a[2 * TM4];
vec4 b[2 * TN4];

// Fetches step `k` of the slice in half `half_index` of shared memory into operand buffer `place`.
void fetch(int tx, int ty, int k, int half_index, int place) {
    for (int i = 0; i < TM4; ++i) a[place * TM4 + i] = a_shared[half_index * A_VECTORS + k * BM4 + ty + i * TY];
    for (int j = 0; j < TN4; ++j) b[place * TN4 + j] = b_shared[half_index * BK * BN4 + k * BN4 + tx + j * TX];
}

// Adds the products of every KG-th step of the slice in half `half_index` of shared memory.
void multiply(int tx, int ty, int kg, int half_index) {
    fetch(tx, ty, kg, half_index, 0);
    for (int step = 0; step < BK; step += KG) {
        int now = step / KG % 2;
        if (step + KG < BK) fetch(tx, ty, step + KG + kg, half_index, 1 - now);
        for (int i = 0; i < TM4; ++i) {
            vec4 rows = a[now * TM4 + i];
            for (int j = 0; j < TN4; ++j) {
                vec4 columns = b[now * TN4 + j];
                sums[(4 * i + 0) * TN4 + j] += rows.x * columns;
                sums[(4 * i + 1) * TN4 + j] += rows.y * columns;
                sums[(4 * i + 2) * TN4 + j] += rows.z * columns;
                sums[(4 * i + 3) * TN4 + j] += rows.w * columns;
            }
        }
    }
}

float finish(float sum, int row) {
#if SCALED
    sum *= uintBitsToFloat(alpha_bits);
#elif BIAS
    sum += bias_data[row];
#endif
#if RELU
    sum = relu(sum);
#endif
    return sum;
}

void store(int tx, int ty, int tile_m, int tile_n, int group, int part) {
    for (int j = 0; j < TN4; ++j) {
        int column = tile_n * BN + (tx + j * TX) * 4;
#if STORE4
        for (int i = 0; i < TM; ++i) {
            int row = tile_m * BM + (ty + i / 4 * TY) * 4 + i % 4;
            if (ROWS % BM != 0 && row >= ROWS) continue;
            row += group * ROWS;
            vec4 sum = sums[i * TN4 + j];
            if (COLUMNS % BN != 0 && column >= COLUMNS) continue;
            int address = part * PART_STRIDE + (column / (P * Q) * GROUPS * ROWS + row) * OUT_CHANNEL + column % (P * Q);
            sum = vec4(finish(sum.x, row), finish(sum.y, row), finish(sum.z, row), finish(sum.w, row));
#if OLD
            sum += uintBitsToFloat(beta_bits) * old_data[address / 4];
#endif
#ifdef FUSED
            for (int e = 0; e < 4; ++e) sum[e] = FUSED(sum[e], row, address + e);
#endif
            output_data[address / 4] = sum;
        }
#else
        for (int e = 0; e < 4; ++e) {
            int c = column + e;
            if (COLUMNS % BN != 0 && c >= COLUMNS) continue;
            // Divides once per column: divisions per output would dominate the program and its compile time.
            int first_row = part * PART_STRIDE + c / (P * Q) * (GROUPS * ROWS * P * Q) + c % (P * Q) * OUT_PIXEL;
            for (int i = 0; i < TM; ++i) {
                int row = tile_m * BM + (ty + i / 4 * TY) * 4 + i % 4;
                if (ROWS % BM != 0 && row >= ROWS) continue;
                row += group * ROWS;
                int address = first_row + row * OUT_CHANNEL;
                float value = finish(sums[i * TN4 + j][e], row);
#if OLD
                value += uintBitsToFloat(beta_bits) * old_data[address];
#endif
#ifdef FUSED
                value = FUSED(value, row, address);
#endif
                output_data[address] = value;
            }
        }
#endif
    }
}

void main() {
    int invocation = int(gl_LocalInvocationID.x);
    uint number = gl_WorkGroupID.x + GRID_X * gl_WorkGroupID.y;
    if (number >= count) return;
    int tile = int(first + number);
    int tile_m = tile % TILES_M;
    int tile_n = tile / TILES_M % TILES_N;
    int group = tile / (TILES_M * TILES_N) % GROUPS;
    int part = tile / (TILES_M * TILES_N * GROUPS);

    // The group of threads, of the KG that share the steps of a slice.
    int kg = invocation / (TX * TY);
    int thread = invocation % (TX * TY);
    // A warp of 32 threads covers WX x 32/WX threads of the workgroup.
#if WX > 0
    int lane = thread % 32;
    int warp = thread / 32;
    int tx = warp % (TX / WX) * WX + lane % WX;
    int ty = warp / (TX / WX) * (32 / WX) + lane / WX;
#else
    int tx = thread % TX;
    int ty = thread / TX;
#endif

    thread = invocation;
    locate_columns(thread, tile_n, group);
#if TABLE
    for (int step = thread; step < SLICES * BK; step += THREADS) {
        int c = step / (R * S);
        int r = step / S % R * DILATION_H;
        int s = step % S * DILATION_W;
        steps[step] = step < DEPTH ? ivec2(c * CHANNEL_STRIDE + r * IMAGE_ROW + s * IMAGE_PIXEL, r << 16 | s) : ivec2(0, 0x7fff0000);
    }
    barrier();
#endif
    int weights = (group * SLICES * BK * ROWS_PADDED + tile_m * BM) / 4;
    int slice = part * PART;
    int end = min(slice + PART, SLICES);
    int tap = slice / C_SLICES;
    int channel = slice % C_SLICES * BK;
#if !TABLE
    move_to(tap, group);
#endif
    for (int i = 0; i < TM * TN4; ++i) sums[i] = vec4(0.0);

    for (int i = 0; i < A_LOADS; ++i) {
        int vector = thread + i * THREADS;
        weights_place[i] = weights + (slice * BK + vector / BM4) * (ROWS_PADDED / 4) + vector % BM4;
    }

    // A part may be empty if the reduction is cut unevenly.
    if (slice < end) {
        int half_index = 0;
        load(thread, slice, channel);
        keep(thread, 0);
        barrier();
        for (++slice; slice < end; ++slice) {
#if !TABLE
            channel += BK;
#if R * S > 1
            if (channel >= CHANNELS) {
                channel = 0;
                ++tap;
                move_to(tap, group);
            }
#endif
#endif
            load(thread, slice, channel);
            multiply(tx, ty, kg, half_index);
            half_index ^= 1;
            keep(thread, half_index);
            barrier();
        }
        multiply(tx, ty, kg, half_index);
    }
#if KG > 1
    for (int left_over = KG / 2; left_over > 0; left_over /= 2) {
        int own = (kg % left_over * TX * TY + ty * TX + tx) * (TM * TN4);
        if (kg >= left_over && kg < 2 * left_over) {
            for (int i = 0; i < TM * TN4; ++i) others[own + i] = sums[i];
        }
        barrier();
        if (kg < left_over) {
            for (int i = 0; i < TM * TN4; ++i) sums[i] += others[own + i];
        }
        barrier();
    }
    if (kg > 0) return;
#endif
    store(tx, ty, tile_m, tile_n, group, part);
}
