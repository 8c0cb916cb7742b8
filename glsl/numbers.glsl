// ReLU: numbers below zero become 0; NaN and -0 stay. It compares bits, because a compiler may turn a comparison of floats
// into max(), and max() may turn NaN into 0.
float relu(float value) {
    uint bits = floatBitsToUint(value);
    // From the smallest negative denormal to -infinity.
    return bits - 0x80000001u < 0x7f800000u ? 0.0 : value;
}

// A pixel of the padding: 0, because the uniform `count` is less than 2^31. The compiler does not know that. It would drop
// products with a constant zero, but with an infinite weight they must be NaN.
#define PADDING uintBitsToFloat(count >> 31)
