// ReLU: numbers below zero become 0; NaN and -0 stay. By the bits: a compiler may make max() of a comparison of floats, and max() may
// turn NaN into 0.
float relu(float value) {
    uint bits = floatBitsToUint(value);
    // From the smallest negative denormal to -infinity.
    return bits - 0x80000001u < 0x7f800000u ? 0.0 : value;
}

// A pixel of the padding: 0, as the uniform `count` is less than 2^31. The compiler does not know that. It would drop products with a zero
// that it knows, and an infinite weight makes NaN of them.
#define PADDING uintBitsToFloat(count >> 31)
