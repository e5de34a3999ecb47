/* Products for processors with AVX-512 VNNI, by words of four bytes: four int8, or two bfloat16 for attention (`attend.c`).
 * int8 by int8 into int32: sums (R O) = x (R I) times the turned weight (O I).
 *
 *   weight, 64 rows of it --turn--> panel: four bytes of each of the 64 rows, the next four bytes of each, ...
 *   x, six rows of it, a word broadcast; panel, four registers      24 registers of sums
 *
 * A panel is made from the weight as it lies, each time: a byte of it meets every row of x, which takes longer than its
 * turning, and memory holds no second weight. The processor multiplies unsigned by signed numbers, so a panel holds
 * weight + 128, and sums begin at -128 times the sum of their row of x. Nothing saturates: the result is exact.
 * R is any number, I and O are multiples of 64. Panels from `start` to before `stop` are worked on, so that threads can
 * share them.
 */
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

#define PANEL 64  /* rows of the weight */
#define TALL 6    /* rows of x */
#define DEPTH 1280 /* columns in a panel: 80 KiB, with its rows of x less than a second-level cache */
#define BLOCK 384 /* rows of x that meet a panel while they are near */

/* The compiler's own intrinsics made GCC 12 keep the sums in memory: half the speed. */
static inline __attribute__((always_inline)) __m512i multiplied(const int half, __m512i sum, __m512i panel,
                                                                __m512i word) {
    if (half)
        __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(panel), "v"(word));
    else
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(panel), "v"(word));
    return sum;
}

/* 16 rows of 16 words to 16 columns, some bits of each byte turned over. */
static inline void turn_words(const int8_t *from, long stride, uint8_t *to, int over) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++)
        a[i] = _mm512_xor_si512(_mm512_loadu_si512(from + i * stride), _mm512_set1_epi8((char)over));
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        __m512i even = _mm512_shuffle_i32x4(a[i], a[4 + i], 0x88), odd = _mm512_shuffle_i32x4(a[i], a[4 + i], 0xdd);
        __m512i late = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0x88);
        __m512i last = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0xdd);
        _mm512_store_si512(to + 4 * PANEL * i, _mm512_shuffle_i32x4(even, late, 0x88));
        _mm512_store_si512(to + 4 * PANEL * (i + 4), _mm512_shuffle_i32x4(odd, last, 0x88));
        _mm512_store_si512(to + 4 * PANEL * (i + 8), _mm512_shuffle_i32x4(even, late, 0xdd));
        _mm512_store_si512(to + 4 * PANEL * (i + 12), _mm512_shuffle_i32x4(odd, last, 0xdd));
    }
}

/* -128 times the sum of a row. */
static inline int32_t begun(const int8_t *row, long columns) {
    __m512i sum = _mm512_setzero_si512(), ones = _mm512_set1_epi8(1);
    for (long c = 0; c < columns; c += 64) sum = multiplied(0, sum, ones, _mm512_loadu_si512(row + c));
    return -128 * _mm512_reduce_add_epi32(sum);
}

#define ROWS(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
#define BEGIN(i)                                                                                                      \
    __m512i a##i = zero, b##i = zero, c##i = zero, d##i = zero;                                                       \
    if (i < rows && less) {                                                                                           \
        a##i = b##i = c##i = d##i = _mm512_set1_epi32(less[i]);                                                       \
    } else if (i < rows) {                                                                                            \
        const int32_t *at = sums + i * out;                                                                           \
        a##i = _mm512_loadu_si512(at), b##i = _mm512_loadu_si512(at + 16);                                            \
        c##i = _mm512_loadu_si512(at + 32), d##i = _mm512_loadu_si512(at + 48);                                       \
    }
#define MULTIPLY(i)                                                                                                   \
    if (i < rows) {                                                                                                   \
        int32_t word;                                                                                                 \
        memcpy(&word, x + i * columns + k, 4);                                                                        \
        __m512i same = _mm512_set1_epi32(word);                                                                       \
        a##i = multiplied(half, a##i, first, same), b##i = multiplied(half, b##i, second, same);                      \
        c##i = multiplied(half, c##i, third, same), d##i = multiplied(half, d##i, fourth, same);                      \
    }
#define END(i)                                                                                                        \
    if (i < rows) {                                                                                                   \
        int32_t *at = sums + i * out;                                                                                 \
        _mm512_storeu_si512(at, a##i), _mm512_storeu_si512(at + 16, b##i);                                            \
        _mm512_storeu_si512(at + 32, c##i), _mm512_storeu_si512(at + 48, d##i);                                       \
    }

/* A few rows of x, a number known when compiled, with a panel. The sums begin at `less`, or without it where they are. */
static inline __attribute__((always_inline)) void tile(const int half, const int rows, const int8_t *x,
                                                       const uint8_t *panel, int32_t *sums, const int32_t *less,
                                                       long depth, long columns, long out) {
    const __m512i zero = _mm512_setzero_si512();
    ROWS(BEGIN)
    for (long k = 0; k < depth; k += 4, panel += 4 * PANEL) {
        __m512i first = _mm512_load_si512(panel), second = _mm512_load_si512(panel + 64);
        __m512i third = _mm512_load_si512(panel + 128), fourth = _mm512_load_si512(panel + 192);
        ROWS(MULTIPLY)
    }
    ROWS(END)
}

#define TILE(many)                                                                                                    \
    case many: tile(half, many, own, panel, to, begin, depth, columns, out); break;

/* All rows of a block with a panel, as evenly as they can be shared among tiles. Meanwhile `coming`, what the next panel
 * is made of, is fetched: weights are read once a step, from memory. */
static inline __attribute__((always_inline)) void
tiles(const int half, const int8_t *x, const uint8_t *panel, int32_t *sums, const int32_t *less, long depth,
      long columns, long out, long rows, const int8_t *coming, long ahead) {
    long count = (rows + TALL - 1) / TALL, line = 0;
    for (long t = 0; t < count; t++) {
        for (; line < (t + 1) * ahead / count; line++)
            _mm_prefetch(coming + line % PANEL * columns + line / PANEL * 64, _MM_HINT_T1);
        long from = t * rows / count;
        const int8_t *own = x + from * columns;
        const int32_t *begin = less ? less + from : less;
        int32_t *to = sums + from * out;
        switch ((t + 1) * rows / count - from) { TILE(6) TILE(5) TILE(4) TILE(3) TILE(2) TILE(1) }
    }
}

void product_i8(const int8_t *x, const int8_t *weight, int32_t *sums, long rows, long columns, long out, long start,
                long stop) {
    uint8_t panel[DEPTH * PANEL] __attribute__((aligned(64)));
    int32_t less[BLOCK];
    for (long r = 0; r < rows; r += BLOCK) {
        long many = rows - r < BLOCK ? rows - r : BLOCK;
        for (long i = 0; i < many; i++) less[i] = begun(x + (r + i) * columns, columns);
        for (long p = start * PANEL; p < stop * PANEL; p += PANEL)
            for (long k = 0; k < columns; k += DEPTH) {
                long depth = columns - k < DEPTH ? columns - k : DEPTH;
                for (long d = 0; d < depth; d += 64)
                    for (long g = 0; g < PANEL; g += 16)
                        turn_words(weight + (p + g) * columns + k + d, columns, panel + d * PANEL + 4 * g, 0x80);
                long on = k + DEPTH < columns, after = on ? columns - k - DEPTH : columns;
                const int8_t *coming = weight + (on ? p : p + PANEL) * columns + (on ? k + DEPTH : 0);
                long ahead = !on && p + PANEL >= stop * PANEL ? 0 : after < DEPTH ? after : DEPTH;
                tiles(0, x + r * columns + k, panel, sums + r * out + p, k ? 0 : less, depth, columns, out, many, coming,
                      ahead);
            }
    }
}

#endif
