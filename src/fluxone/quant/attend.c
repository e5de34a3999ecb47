/* Attention in bfloat16 for processors that multiply it, a few rows of queries at a time: their scores are float32 and
 * never leave the first caches.
 *
 *   rows of q | times keys: scores | powers of e, to bfloat16 | times values | by the sum of powers: mixed
 *
 * Keys and values of a head are brought to panels (`product.c`) once: a word is two numbers of a key, or a number of each
 * of two values. `size` is a multiple of 64. Rows count through all heads, and `room` is a thread's own, 64 bytes aligned:
 * (8 size + 72) bytes for each of `total` rounded up to 64, and 48 size more (`attend_room`).
 */
#if defined(__AVX512BF16__) && defined(__AVX512VNNI__) && defined(__AVX512BW__)

#define FEW 12 /* rows at a time */

long attend_room(long total, long size) {
    long padded = (total + PANEL - 1) / PANEL * PANEL;
    return padded * (4 * size + 6 * FEW) + 4 * FEW * size;
}

/* Keys of 64 positions, those from `left` on zero, to a panel. */
static void turn_keys(const uint16_t *k, uint8_t *panel, long left, long size) {
    for (long g = 0; g < PANEL; g += 16) {
        uint16_t padded[16 * size];
        const uint16_t *from = k + g * size;
        if (left < g + 16) {
            memset(padded, 0, sizeof padded);
            if (left > g) memcpy(padded, from, 2 * (left - g) * size);
            from = padded;
        }
        for (long d = 0; d < 2 * size; d += 64)
            turn_words((const int8_t *)from + d, 2 * size, panel + d * PANEL + 4 * g, 0);
    }
}

/* Values of all positions to panels of 64 of their numbers. */
static void pair_values(const uint16_t *v, uint32_t *panels, long total, long padded, long size) {
    for (long p = 0; p < size; p += PANEL)
        for (long n = 0; n < padded; n += 2) {
            const uint16_t *one = v + n * size + p, *two = one + size;
            uint32_t *to = panels + p * padded / 2 + n / 2 * PANEL;
            for (long d = 0; d < PANEL; d++)
                to[d] = n + 1 < total ? one[d] | (uint32_t)two[d] << 16 : n < total ? one[d] : 0;
        }
}

void attend_bf16(const uint16_t *q, const uint16_t *k, const uint16_t *v, uint16_t *mixed, float factor, uint8_t *room,
                 long total, long size, long start, long stop) {
    long padded = (total + PANEL - 1) / PANEL * PANEL, ready = -1;
    static const int32_t none[FEW];
    uint8_t *keys = room, *values = keys + 2 * padded * size;
    float *scores = (float *)(values + 2 * padded * size), *sums = scores + FEW * padded;
    uint16_t *weights = (uint16_t *)(sums + FEW * size);
    for (long r = start; r < stop;) {
        long head = r / total, end = (head + 1) * total, rows = (end < stop ? end : stop) - r;
        rows = rows < FEW ? rows : FEW;
        if (head != ready) {
            for (long p = 0; p < padded; p += PANEL)
                turn_keys(k + (head * total + p) * size, keys + 2 * p * size, total - p, size);
            pair_values(v + head * total * size, (uint32_t *)values, total, padded, size);
            memset(weights, 0, 2 * FEW * padded);
            ready = head;
        }
        for (long p = 0; p < padded; p += PANEL)
            tiles(1, (const int8_t *)(q + r * size), keys + 2 * p * size, (int32_t *)scores + p, none, 2 * size,
                  2 * size, padded, rows, 0, 0);
        float shares[FEW];
        for (long i = 0; i < rows; i++) {
            shares[i] = 1.0f / powers_bf16(scores + i * padded, factor * 1.44269504f, total);
            put_bf16(scores + i * padded, weights + i * padded, 1.0f, total);
        }
        for (long p = 0; p < size; p += PANEL)
            tiles(1, (const int8_t *)weights, values + 2 * p * padded, (int32_t *)sums + p, none, 2 * padded,
                  2 * padded, size, rows, 0, 0);
        for (long i = 0; i < rows; i++) put_bf16(sums + i * size, mixed + (r + i) * size, shares[i], size);
        r += rows;
    }
}

#endif
