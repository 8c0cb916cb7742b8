// The tiled product of tile.comp with memory patterns that can be switched off: for `sparkle patterns` alone.
//
//     VECTORS    1: operands and results lie in fours in a thread: accesses of 16 bytes where memory allows them
//                0: single floats, dealt to threads in turn
//     AHEAD      1: the next slice is loaded while one is multiplied, and the next step's operands before they are used
//                0: one slice: load, barrier, multiply, barrier
//
// Sums, their order and the partition into workgroups are those of tile.comp.

layout(local_size_x = THREADS) in;

// Units: what an access moves.
#if VECTORS
const int U = 4;
#define UNIT vec4
#define PUT(value, e) value[e]
#else
const int U = 1;
#define UNIT float
#define PUT(value, e) value
#endif

layout(std430, binding = 0) readonly buffer InputBuffer { PIXELS input_data[]; };
layout(std430, binding = 1) readonly buffer WeightBuffer { UNIT weight_data[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { STORE output_data[]; };
layout(std430, binding = 3) readonly buffer BiasBuffer { float bias_data[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;

const int TX = BN / TN;
const int TY = BM / TM;
const int BMU = BM / U;
const int BNU = BN / U;
const int TMU = TM / U;
const int TNU = TN / U;

// Weights: the threads load the units of a slice in turn.
const int A_VECTORS = BK * BMU;
const int A_LOADS = (A_VECTORS + THREADS - 1) / THREADS;

// Pixels: a thread keeps its columns, in fours, and loops over rows. Four adjacent pixels take one read (V = 4),
// others take one each.
const int E = U / V;
const int B_COLS = BNU > THREADS ? BNU / THREADS : 1;
const int B_STEP = BNU > THREADS ? 1 : THREADS / BNU;
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

shared UNIT a_shared[(1 + AHEAD) * BK * BMU];
shared UNIT b_shared[(1 + AHEAD) * BK * BNU];
#if TABLE
// For each step of the reduction: its offset from a pixel, and its row and column in the kernel.
shared ivec2 steps[SLICES * BK];
#endif

#if KG > 1
shared UNIT others[KG / 2 * BM * BNU];
#endif

// State of a thread's columns.
int base[B_COLS * E];   // the address of the pixel at (r, s) = (0, 0), channel 0
int top[B_COLS * E];    // its row and column in the image
int left[B_COLS * E];
int place[B_COLS * E];  // the address at the current (r, s), or any valid one
bool inside[B_COLS * E];

// Addresses of a thread's weights in the next slice.
int weights_place[A_LOADS];

UNIT a_next[A_LOADS];
UNIT b_next[B_COLS * B_ROWS];

void locate_columns(int thread, int tile_n, int group) {
    for (int i = 0; i < B_COLS * E; ++i) {
        int column = tile_n * BN + (thread % BNU + i / E * THREADS) * U + i % E;
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
// Loads a unit of pixels of step `step` of the reduction.
UNIT pixels(int i, int step) {
    ivec2 move = steps[step];
    UNIT value;
    for (int e = 0; e < U; ++e) {
        int at = i * U + e;
        bool valid = uint(top[at] + (move.y >> 16)) < uint(H) && uint(left[at] + (move.y & 0xffff)) < uint(W);
        float pixel = input_data[valid ? base[at] + move.x : 0];
        PUT(value, e) = valid ? pixel : 0.0;
    }
    return value;
}
#else
// Loads a unit of pixels of channel `c` at the current kernel position.
UNIT pixels(int i, int c) {
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
    UNIT value;
    for (int e = 0; e < U; ++e) {
        float pixel = input_data[place[i * U + e] + c * CHANNEL_STRIDE];
#if EDGES
        PUT(value, e) = inside[i * U + e] && exists ? pixel : 0.0;
#else
        PUT(value, e) = pixel;
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
            weights_place[i] += BK * ROWS_PADDED / U;
        }
    }
    int row = thread / BNU;
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
    int row = thread / BNU;
    for (int j = 0; j < B_ROWS; ++j, row += B_STEP) {
        if (BK % B_STEP == 0 || row < BK) {
            for (int i = 0; i < B_COLS; ++i) {
                b_shared[half_index * BK * BNU + row * BNU + thread % BNU + i * THREADS] = b_next[j * B_COLS + i];
            }
        }
    }
}

UNIT sums[TM * TNU];

// Operands of a step, and with AHEAD of the next.
UNIT a[(1 + AHEAD) * TMU];
UNIT b[(1 + AHEAD) * TNU];

// Fetches step `k` of the slice in half `half_index` of shared memory into operand buffer `place`.
void fetch(int tx, int ty, int k, int half_index, int place) {
    for (int i = 0; i < TMU; ++i) a[place * TMU + i] = a_shared[half_index * A_VECTORS + k * BMU + ty + i * TY];
    for (int j = 0; j < TNU; ++j) b[place * TNU + j] = b_shared[half_index * BK * BNU + k * BNU + tx + j * TX];
}

// Adds the products of every KG-th step of the slice in half `half_index` of shared memory.
void multiply(int tx, int ty, int kg, int half_index) {
#if AHEAD
    fetch(tx, ty, kg, half_index, 0);
#endif
    for (int step = 0; step < BK; step += KG) {
#if AHEAD
        int now = step / KG % 2;
        if (step + KG < BK) fetch(tx, ty, step + KG + kg, half_index, 1 - now);
#else
        const int now = 0;
        fetch(tx, ty, step + kg, half_index, 0);
#endif
        for (int i = 0; i < TMU; ++i) {
            UNIT rows = a[now * TMU + i];
            for (int j = 0; j < TNU; ++j) {
                UNIT columns = b[now * TNU + j];
#if VECTORS
                sums[(4 * i + 0) * TNU + j] += rows.x * columns;
                sums[(4 * i + 1) * TNU + j] += rows.y * columns;
                sums[(4 * i + 2) * TNU + j] += rows.z * columns;
                sums[(4 * i + 3) * TNU + j] += rows.w * columns;
#else
                sums[i * TNU + j] += rows * columns;
#endif
            }
        }
    }
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

void store(int tx, int ty, int tile_m, int tile_n, int group, int part) {
    for (int j = 0; j < TNU; ++j) {
        int column = tile_n * BN + (tx + j * TX) * U;
#if STORE4
        for (int i = 0; i < TM; ++i) {
            int row = tile_m * BM + (ty + i / U * TY) * U + i % U;
            if (ROWS % BM != 0 && row >= ROWS) continue;
            row += group * ROWS;
            vec4 sum = sums[i * TNU + j];
            if (COLUMNS % BN != 0 && column >= COLUMNS) continue;
            int address = part * PART_STRIDE + (column / (P * Q) * GROUPS * ROWS + row) * OUT_CHANNEL + column % (P * Q);
            output_data[address / 4] = vec4(finish(sum.x, row), finish(sum.y, row), finish(sum.z, row), finish(sum.w, row));
        }
#else
        for (int e = 0; e < U; ++e) {
            int c = column + e;
            if (COLUMNS % BN != 0 && c >= COLUMNS) continue;
            int first_row = part * PART_STRIDE + c / (P * Q) * (GROUPS * ROWS * P * Q) + c % (P * Q) * OUT_PIXEL;
            for (int i = 0; i < TM; ++i) {
                int row = tile_m * BM + (ty + i / U * TY) * U + i % U;
                if (ROWS % BM != 0 && row >= ROWS) continue;
                row += group * ROWS;
                output_data[first_row + row * OUT_CHANNEL] = finish(PUT(sums[i * TNU + j], e), row);
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
    int weights = (group * SLICES * BK * ROWS_PADDED + tile_m * BM) / U;
    int slice = part * PART;
    int end = min(slice + PART, SLICES);
    int tap = slice / C_SLICES;
    int channel = slice % C_SLICES * BK;
#if !TABLE
    move_to(tap, group);
#endif
    for (int i = 0; i < TM * TNU; ++i) sums[i] = UNIT(0.0);

    for (int i = 0; i < A_LOADS; ++i) {
        int vector = thread + i * THREADS;
        weights_place[i] = weights + (slice * BK + vector / BMU) * (ROWS_PADDED / U) + vector % BMU;
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
#if AHEAD
            load(thread, slice, channel);
            multiply(tx, ty, kg, half_index);
            half_index ^= 1;
            keep(thread, half_index);
            barrier();
#else
            multiply(tx, ty, kg, 0);
            barrier();
            load(thread, slice, channel);
            keep(thread, 0);
            barrier();
#endif
        }
        multiply(tx, ty, kg, half_index);
    }
#if KG > 1
    for (int left_over = KG / 2; left_over > 0; left_over /= 2) {
        int own = (kg % left_over * TX * TY + ty * TX + tx) * (TM * TNU);
        if (kg >= left_over && kg < 2 * left_over) {
            for (int i = 0; i < TM * TNU; ++i) others[own + i] = sums[i];
        }
        barrier();
        if (kg < left_over) {
            for (int i = 0; i < TM * TNU; ++i) sums[i] += others[own + i];
        }
        barrier();
    }
    if (kg > 0) return;
#endif
    store(tx, ty, tile_m, tile_n, group, part);
}
