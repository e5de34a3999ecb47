/* The two passes around an int8 product, each once over its numbers: tokens to int8, and sums to numbers again;
 * and the activation between two layers.
 *
 * Compiled by the machine's own compiler for its own processor (see native.py). Without it torch does the same in
 * several passes. NaN and infinity are not lost: they end up in a row's scale, and so in all that comes out.
 */
#include <stdint.h>
#include <string.h>

#define ABSOLUTE 0x7fffffffu  /* all bits of a float but the sign */
#define LEAST 1e-30f
#define MAGIC 12582912.0f     /* 1.5 * 2^23: adding it leaves the nearest whole number in the low bits */

static inline float wide(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline uint16_t narrow(float value) { /* to the nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline int8_t nearest(float value) {
    float moved = value + MAGIC;
    uint32_t bits;
    memcpy(&bits, &moved, 4);
    return (int8_t)(uint8_t)bits;
}

static inline float scale_of(uint32_t largest) {
    float value;
    memcpy(&value, &largest, 4);
    value /= 127.0f;
    return value < LEAST ? LEAST : value; /* NaN stays */
}

void quantize_f32(const float *x, int8_t *out, float *scales, long rows, long columns) {
    for (long r = 0; r < rows; r++) {
        const float *row = x + r * columns;
        uint32_t largest = 0;
        for (long c = 0; c < columns; c++) {
            uint32_t bits;
            memcpy(&bits, row + c, 4);
            bits &= ABSOLUTE;
            largest = bits > largest ? bits : largest;
        }
        float scale = scales[r] = scale_of(largest), inverse = 1.0f / scale;
        for (long c = 0; c < columns; c++) out[r * columns + c] = nearest(row[c] * inverse);
    }
}

void quantize_bf16(const uint16_t *x, int8_t *out, float *scales, long rows, long columns) {
    for (long r = 0; r < rows; r++) {
        const uint16_t *row = x + r * columns;
        uint16_t largest = 0;
        for (long c = 0; c < columns; c++) {
            uint16_t bits = row[c] & 0x7fffu;
            largest = bits > largest ? bits : largest;
        }
        float scale = scales[r] = scale_of((uint32_t)largest << 16), inverse = 1.0f / scale;
        for (long c = 0; c < columns; c++) out[r * columns + c] = nearest(wide(row[c]) * inverse);
    }
}

void finish_f32(const int32_t *sums, const float *scales, float *out, const float *weights, const float *bias,
                long rows, long columns) {
    for (long r = 0; r < rows; r++) {
        const int32_t *row = sums + r * columns;
        float scale = scales[r];
        for (long c = 0; c < columns; c++) out[r * columns + c] = (float)row[c] * scale * weights[c] + bias[c];
    }
}

void finish_bf16(const int32_t *sums, const float *scales, uint16_t *out, const float *weights, const float *bias,
                 long rows, long columns) {
    for (long r = 0; r < rows; r++) {
        const int32_t *row = sums + r * columns;
        float scale = scales[r];
        for (long c = 0; c < columns; c++) out[r * columns + c] = narrow((float)row[c] * scale * weights[c] + bias[c]);
    }
}

/* e^x to about 2e-7 of it: 2^whole * polynomial of the rest. NaN stays, and so do all signs of overflow. */
static inline float power(float x) {
    x = x > 87.0f ? 87.0f : x;
    x = x < -87.0f ? -87.0f : x;
    float turns = x * 1.44269504f, moved = turns + MAGIC, rest = turns - (moved - MAGIC);
    uint32_t bits;
    memcpy(&bits, &moved, 4);
    bits = (bits - 0x4b400000u + 127u) << 23;
    float whole;
    memcpy(&whole, &bits, 4);
    float p = 1.54353e-4f; /* Taylor's coefficients of 2^rest, |rest| <= 1/2 */
    p = p * rest + 1.33335581e-3f;
    p = p * rest + 9.61812911e-3f;
    p = p * rest + 5.55041087e-2f;
    p = p * rest + 2.40226507e-1f;
    p = p * rest + 6.93147181e-1f;
    return whole * (p * rest + 1.0f);
}

/* The tanh form of GELU is x * sigmoid(2 * sqrt(2/pi) * (x + 0.044715 x^3)), exactly. */
static inline float gelu(float x) {
    float inside = 1.5957691216f * (x + 0.044715f * x * x * x);
    return x / (1.0f + power(-inside));
}

void gelu_f32(const float *x, float *out, long rows, long columns, long stride) {
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < columns; c++) out[r * columns + c] = gelu(x[r * stride + c]);
}

void gelu_bf16(const uint16_t *x, uint16_t *out, long rows, long columns, long stride) {
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < columns; c++) out[r * columns + c] = narrow(gelu(wide(x[r * stride + c])));
}
