/* What lies between the products of a block, each once over its numbers: norm and modulation into the next product's
 * type; norm and rotation of queries and keys, out of the product; activation into the next product's type, beside
 * what attention gives; gate and sum. And the softmax of attention.
 *
 * A family is one choice of types:
 *   SRC   what a product gives: int32 sums with scales of token and row, or numbers
 *   X     the streams            OUT   what a product takes: int8 with a scale a token, or numbers
 *   ATT   queries, keys, values and what attention gives, (heads, positions, size)
 * Rows from `start` to before `stop` are worked on, so that threads can share them.
 */
#include <math.h>
#if defined(__AVX512BF16__) || defined(__AVX512VNNI__)
#include <immintrin.h>
#endif
#include "native.c"
#include "product.c"

#define LANES 16
#define EPS 1e-6f

static inline uint16_t narrow_(float value) { return narrow(value); }
static inline float load_f32(float value) { return value; }
static inline float load_bf16(uint16_t value) { return wide(value); }
static inline float store_f32(float value) { return value; }
static inline uint16_t store_bf16(float value) { return narrow(value); }

#if defined(__FMA__) || defined(__aarch64__)
#define FMA(a, b, c) __builtin_fmaf(a, b, c)
#else
#define FMA(a, b, c) ((a) * (b) + (c))
#endif

/* 2^n of the whole number n that lies beside MAGIC. */
static inline float whole_turn(float moved) {
    uint32_t bits;
    memcpy(&bits, &moved, 4);
    bits = (bits - 0x4b400000u + 127u) << 23;
    float whole;
    memcpy(&whole, &bits, 4);
    return whole;
}

/* whole * 2^rest, rest from -0.5 to 0.5. */
static inline float turned_on(float whole, float rest) {
    float p = 1.33335581e-3f;
    p = FMA(p, rest, 9.61812911e-3f);
    p = FMA(p, rest, 5.55041087e-2f);
    p = FMA(p, rest, 2.40226507e-1f);
    p = FMA(p, rest, 6.93147181e-1f);
    return FMA(p * whole, rest, whole);
}

/* e^x to about 2e-6 of it, in few operations; NaN stays. */
static inline float quick_power(float x) {
    x = x > 87.0f ? 87.0f : x;
    x = x < -87.0f ? -87.0f : x;
    float moved = FMA(x, 1.44269504f, MAGIC), rest = FMA(x, 1.44269504f, MAGIC - moved);
    return turned_on(whole_turn(moved), rest);
}

/* 2^x of what is not above 0, to about 2e-6 of it; NaN stays. */
static inline float turned_f32(float x) {
    x = x < -126.0f ? -126.0f : x;
    float moved = x + MAGIC, rest = x - (moved - MAGIC);
    return turned_on(whole_turn(moved), rest);
}

/* The same to 8e-5 of it, a fiftieth of what rounding to bfloat16 may lose: the least polynomial of degree 3. */
static inline float turned_bf16(float x) {
    x = x < -126.0f ? -126.0f : x;
    float moved = x + MAGIC, rest = x - (moved - MAGIC);
    float whole = whole_turn(moved);
    float p = FMA(0.05517165f, rest, 0.24261114f);
    p = FMA(p, rest, 0.69326099f);
    return FMA(p, rest, 0.99992807f) * whole;
}

/* x * sigmoid(2 * sqrt(2/pi) * (x + 0.044715 x^3)). */
static inline float activated(float x) {
    return x / (1.0f + quick_power(-x * FMA(x * x, 1.5957691216f * 0.044715f, 1.5957691216f)));
}

#define SMALLEST 0.17004f /* below 0 no activated number goes further than this */

/* Numbers from `narrow` on are activated ones, which have nearly no negative side: they are stored less `offsets`
 * steps, so that all 255 steps are theirs. */
static inline void emit_i8_offset(const float *row, int8_t *out, float *scales, float *offsets, long r, long narrow,
                                  long columns) {
    uint32_t first = 0, second = 0;
    for (long c = 0; c < narrow; c++) {
        uint32_t bits;
        memcpy(&bits, row + c, 4);
        bits &= ABSOLUTE;
        first = bits > first ? bits : first;
    }
    for (long c = narrow; c < columns; c++) {
        uint32_t bits;
        memcpy(&bits, row + c, 4);
        bits &= ABSOLUTE;
        second = bits > second ? bits : second;
    }
    float most = scale_of(first), range;
    memcpy(&range, &second, 4);
    range = (range + SMALLEST) / 254.0f;
    float scale = scales[r] = most > range ? most : range, inverse = 1.0f / scale;
    if (range != range) scale = scales[r] = range;
    float offset = offsets[r] = 127.0f - __builtin_floorf(SMALLEST * inverse);
    out += r * columns;
    for (long c = 0; c < narrow; c++) out[c] = nearest(row[c] * inverse);
    for (long c = narrow; c < columns; c++) out[c] = nearest(row[c] * inverse - offset);
}

static inline void emit_f32_offset(const float *row, float *out, float *scales, float *offsets, long r, long narrow,
                                   long columns) {
    memcpy(out + r * columns, row, 4 * columns);
}

static inline void emit_bf16_offset(const float *row, uint16_t *out, float *scales, float *offsets, long r, long narrow,
                                    long columns) {
    out += r * columns;
    for (long c = 0; c < columns; c++) out[c] = narrow_(row[c]);
}

static inline void emit_i8(const float *row, int8_t *out, float *scales, long r, long columns) {
    uint32_t largest = 0;
    for (long c = 0; c < columns; c++) {
        uint32_t bits;
        memcpy(&bits, row + c, 4);
        bits &= ABSOLUTE;
        largest = bits > largest ? bits : largest;
    }
    float scale = scales[r] = scale_of(largest), inverse = 1.0f / scale;
    out += r * columns;
    for (long c = 0; c < columns; c++) out[c] = nearest(row[c] * inverse);
}

static inline void emit_f32(const float *row, float *out, float *scales, long r, long columns) {
    memcpy(out + r * columns, row, 4 * columns);
}

static inline void emit_bf16(const float *row, uint16_t *out, float *scales, long r, long columns) {
    out += r * columns;
    for (long c = 0; c < columns; c++) out[c] = narrow(row[c]);
}

static inline float sum_of(const float *row, long columns) { /* in lanes, so that the compiler may */
    float lanes[LANES] = {0}, total = 0;
    long c = 0;
    for (; c + LANES <= columns; c += LANES)
        for (long i = 0; i < LANES; i++) lanes[i] += row[c + i];
    for (; c < columns; c++) total += row[c];
    for (long i = 0; i < LANES; i++) total += lanes[i];
    return total;
}

static inline float squares_of(const float *row, float mean, long columns) {
    float lanes[LANES] = {0}, total = 0;
    long c = 0;
    for (; c + LANES <= columns; c += LANES)
        for (long i = 0; i < LANES; i++) lanes[i] += (row[c + i] - mean) * (row[c + i] - mean);
    for (; c < columns; c++) total += (row[c] - mean) * (row[c] - mean);
    for (long i = 0; i < LANES; i++) total += lanes[i];
    return total;
}

static inline void put_f32(const float *row, float *out, float factor, long columns) {
    for (long c = 0; c < columns; c++) out[c] = row[c] * factor;
}

static inline void put_bf16(const float *row, uint16_t *out, float factor, long columns) {
    long c = 0;
#ifdef __AVX512BF16__
    __m512 by = _mm512_set1_ps(factor);
    for (; c + LANES <= columns; c += LANES) {
        __m256bh half = _mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_loadu_ps(row + c), by));
        memcpy(out + c, &half, 2 * LANES);
    }
#endif
    for (; c < columns; c++) out[c] = narrow(row[c] * factor);
}

#define SUMS(c) ((float)from[c] * own * weights[c] + bias[c])
#define PLAIN_F32(c) (from[c])
#define PLAIN_BF16(c) (wide(from[c]))

#define FAMILY(F, SRC, VALUE, X, XLOAD, XSTORE, OUT, EMIT, ATT, ALOAD, APUT)                                        \
    void norm_##F(const X *x, const float *shift, const float *scale, OUT *out, float *scales, long columns,          \
                  long start, long stop) {                                                                            \
        float row[columns];                                                                                           \
        for (long r = start; r < stop; r++) {                                                                         \
            for (long c = 0; c < columns; c++) row[c] = XLOAD(x[r * columns + c]);                                    \
            float mean = sum_of(row, columns) / columns;                                                              \
            float inverse = 1.0f / sqrtf(squares_of(row, mean, columns) / columns + EPS);                             \
            for (long c = 0; c < columns; c++) row[c] = (1.0f + scale[c]) * ((row[c] - mean) * inverse) + shift[c];   \
            EMIT(row, out, scales, r, columns);                                                                       \
        }                                                                                                             \
    }                                                                                                                 \
    void heads_##F(const SRC *sums, const float *scales, const float *all_weights, const float *all_bias,             \
                   const float *q_norm, const float *k_norm, const float *turns, ATT *q, ATT *k, ATT *v, long heads,  \
                   long size, long stride, long place, long total, long start, long stop) {                           \
        float row[size], turned[size];                                                                                \
        for (long r = start; r < stop; r++) {                                                                         \
            float own = scales ? scales[r] : 0;                                                                       \
            const float *turn = turns + (place + r) * size;                                                           \
            for (long h = 0; h < 3 * heads; h++) {                                                                    \
                long which = h / heads, at = ((h - which * heads) * total + place + r) * size;                        \
                const SRC *from = sums + r * stride + h * size;                                                       \
                const float *weights = all_weights + h * size, *bias = all_bias + h * size;                           \
                for (long c = 0; c < size; c++) row[c] = VALUE(c);                                                    \
                if (which == 2) {                                                                                     \
                    APUT(row, v + at, 1.0f, size);                                                                    \
                    continue;                                                                                         \
                }                                                                                                     \
                ATT *out = (which ? k : q) + at;                                                                      \
                const float *norm = which ? k_norm : q_norm;                                                          \
                float inverse = 1.0f / sqrtf(squares_of(row, 0, size) / size + EPS);                                  \
                for (long c = 0; c < size; c++) row[c] = row[c] * inverse * norm[c];                                  \
                for (long c = 0; c < size; c += 2) {                                                                  \
                    turned[c] = row[c] * turn[c] - row[c + 1] * turn[c + 1];                                          \
                    turned[c + 1] = row[c + 1] * turn[c] + row[c] * turn[c + 1];                                      \
                }                                                                                                     \
                APUT(turned, out, 1.0f, size);                                                                        \
            }                                                                                                         \
        }                                                                                                             \
    }                                                                                                                 \
    void inner_##F(const ATT *mixed, const float *shares, const SRC *sums, const float *scales,                       \
                   const float *all_weights, const float *all_bias, OUT *out, float *out_scales, float *offsets,      \
                   long heads, long size, long place, long total, long inner, long stride, long start, long stop) {   \
        long columns = heads * size + inner;                                                                          \
        float row[columns];                                                                                           \
        for (long r = start; r < stop; r++) {                                                                         \
            for (long h = 0; h < heads; h++) {                                                                        \
                float share = shares ? shares[h * total + place + r] : 1.0f;                                          \
                const ATT *given = mixed + (h * total + place + r) * size;                                            \
                for (long c = 0; c < size; c++) row[h * size + c] = ALOAD(given[c]) * share;                          \
            }                                                                                                         \
            if (inner) {                                                                                              \
                float own = scales ? scales[r] : 0, *to = row + heads * size;                                         \
                const SRC *from = sums + r * stride + stride - inner;                                                 \
                const float *weights = all_weights + stride - inner, *bias = all_bias + stride - inner;               \
                for (long c = 0; c < inner; c++) to[c] = activated(VALUE(c));                                         \
            }                                                                                                         \
            if (inner)                                                                                                \
                EMIT##_offset(row, out, out_scales, offsets, r, heads * size, columns);                               \
            else                                                                                                      \
                EMIT(row, out, out_scales, r, columns);                                                               \
        }                                                                                                             \
    }                                                                                                                 \
    void gate_##F(const SRC *sums, const float *scales, const float *weights, const float *bias, const float *gate,   \
                  const X *x, X *out, const float *offsets, const float *beyond, long columns, long start,            \
                  long stop) {                                                                                        \
        for (long r = start; r < stop; r++) {                                                                         \
            float own = scales ? scales[r] : 0, offset = offsets ? offsets[r] * own : 0;                              \
            const SRC *from = sums + r * columns;                                                                     \
            const X *old = x + r * columns;                                                                           \
            X *to = out + r * columns;                                                                                \
            if (offsets)                                                                                              \
                for (long c = 0; c < columns; c++)                                                                    \
                    to[c] = XSTORE(XLOAD(old[c]) + gate[c] * (VALUE(c) + offset * beyond[c]));                        \
            else                                                                                                      \
                for (long c = 0; c < columns; c++) to[c] = XSTORE(XLOAD(old[c]) + gate[c] * VALUE(c));                \
        }                                                                                                             \
    }

FAMILY(i8_f32_bf16, int32_t, SUMS, float, load_f32, store_f32, int8_t, emit_i8, uint16_t, load_bf16, put_bf16)
FAMILY(i8_bf16_bf16, int32_t, SUMS, uint16_t, load_bf16, store_bf16, int8_t, emit_i8, uint16_t, load_bf16, put_bf16)
FAMILY(i8_f32_f32, int32_t, SUMS, float, load_f32, store_f32, int8_t, emit_i8, float, load_f32, put_f32)
FAMILY(f32_f32_f32, float, PLAIN_F32, float, load_f32, store_f32, float, emit_f32, float, load_f32, put_f32)
FAMILY(bf16_bf16_bf16, uint16_t, PLAIN_BF16, uint16_t, load_bf16, store_bf16, uint16_t, emit_bf16, uint16_t,
       load_bf16, put_bf16)

/* Scores become powers of e, relative to their row's largest; their sum is what comes back. */
#define POWERS(F)                                                                                                     \
    static inline float powers_##F(float *row, float turns, long columns) {                                           \
        float lanes[LANES], most = -INFINITY;                                                                         \
        for (long i = 0; i < LANES; i++) lanes[i] = -INFINITY;                                                        \
        long c = 0;                                                                                                   \
        for (; c + LANES <= columns; c += LANES)                                                                      \
            for (long i = 0; i < LANES; i++) lanes[i] = row[c + i] > lanes[i] ? row[c + i] : lanes[i];                \
        for (; c < columns; c++) most = row[c] > most ? row[c] : most;                                                \
        for (long i = 0; i < LANES; i++) most = lanes[i] > most ? lanes[i] : most;                                    \
        float most_turns = -most * turns, sums[LANES] = {0}, total = 0;                                               \
        for (c = 0; c + LANES <= columns; c += LANES)                                                                 \
            for (long i = 0; i < LANES; i++) {                                                                        \
                float power = turned_##F(FMA(row[c + i], turns, most_turns));                                         \
                row[c + i] = power;                                                                                   \
                sums[i] += power;                                                                                     \
            }                                                                                                         \
        for (; c < columns; c++) total += row[c] = turned_##F(FMA(row[c], turns, most_turns));                        \
        for (long i = 0; i < LANES; i++) total += sums[i];                                                            \
        return total;                                                                                                 \
    }
POWERS(f32)
POWERS(bf16)

/* What a row has to be multiplied by for a sum of 1 is left to who reads what the values are weighed to: there it is a
 * product for each number of a head, not for each score. */
#define SOFTMAX(F, T, LOAD)                                                                                           \
    void softmax_##F(T *scores, float *shares, float factor, long columns, long start, long stop) {                   \
        float row[columns];                                                                                           \
        for (long r = start; r < stop; r++) {                                                                         \
            T *own = scores + r * columns;                                                                            \
            for (long c = 0; c < columns; c++) row[c] = LOAD(own[c]);                                                 \
            shares[r] = 1.0f / powers_##F(row, factor * 1.44269504f, columns);                                        \
            put_##F(row, own, 1.0f, columns);                                                                         \
        }                                                                                                             \
    }
SOFTMAX(f32, float, load_f32)
SOFTMAX(bf16, uint16_t, load_bf16)
#include "attend.c"
