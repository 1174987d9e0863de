/* Sparse codes and their gradients: wavemill/dictionaries/active_sets.py explains them. */
#ifndef REAL

#include "kernels.h"

/* Signals, their channels, atoms, iterations, and whether codes are positive. */
typedef struct { int64_t rows, channels, atoms, iterations, positive; } Coding;

#define LOOPS "sparse_codes.c"
#include "precisions.h"

#else /* one precision */

/* A code: atoms in ascending order, and their values. */
typedef struct { int64_t count; int32_t *atoms; REAL *values; } NAMED(Code);

#define STRIP 512 /* columns of v at a time: they stay in the nearest cache */
#define LOOK 32   /* columns compared with the threshold together */
#define SUMS 16

/* out += a x */
INLINE void NAMED(add)(REAL a, const REAL *restrict x, REAL *restrict out, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] += a * x[i];
}

INLINE REAL NAMED(dot)(const REAL *x, const REAL *y, int64_t n) {
    REAL parts[SUMS] = {0}, total = 0;
    int64_t i = 0;
    for (; i + SUMS <= n; i += SUMS)
        for (int j = 0; j < SUMS; j++) parts[j] += x[i + j] * y[i + j];
    for (; i < n; i++) total += x[i] * y[i];
    for (int j = 0; j < SUMS; j++) total += parts[j];
    return total;
}

/* Appends the entries of v[first..first+n) that exceed the threshold, or are NaN. */
INLINE void NAMED(exceeding)(const REAL *v, int64_t first, int64_t n, REAL threshold, int positive,
                             NAMED(Code) *z) {
    for (int64_t i = 0; i < n; i += LOOK) {
        int64_t stop = i + LOOK < n ? i + LOOK : n;
        int any = 0;
        for (int64_t j = i; j < stop; j++)
            any |= !(v[j] <= threshold) | (!positive & (v[j] < -threshold));
        for (int64_t j = i; any && j < stop; j++) {
            int below = !positive && v[j] < -threshold;
            if (!below && v[j] <= threshold) continue;
            z->atoms[z->count] = (int32_t)(first + j);
            z->values[z->count++] = below ? v[j] + threshold : v[j] - threshold;
        }
    }
}

/* z_n from z_{n-1}: thresholded v = W^T beta + sum over the code of values times rows of M */
INLINE void NAMED(iterate)(const REAL *analysed, const REAL *M, const Coding *s, REAL threshold,
                           const NAMED(Code) *before, NAMED(Code) *z) {
    REAL v[STRIP];
    z->count = 0;
    for (int64_t first = 0; first < s->atoms; first += STRIP) {
        int64_t n = s->atoms - first < STRIP ? s->atoms - first : STRIP, k = 0;
        memcpy(v, analysed + first, n * sizeof(REAL));
        const REAL *table = M + first;
        for (; k + 4 <= before->count; k += 4) {
            const REAL *a = before->values + k;
            const REAL *r0 = table + before->atoms[k] * s->atoms,
                       *r1 = table + before->atoms[k + 1] * s->atoms,
                       *r2 = table + before->atoms[k + 2] * s->atoms,
                       *r3 = table + before->atoms[k + 3] * s->atoms;
            for (int64_t i = 0; i < n; i++)
                v[i] += a[0] * r0[i] + a[1] * r1[i] + a[2] * r2[i] + a[3] * r3[i];
        }
        for (; k < before->count; k++)
            NAMED(add)(before->values[k], table + before->atoms[k] * s->atoms, v, n);
        NAMED(exceeding)(v, first, n, threshold, (int)s->positive, z);
    }
}

/* Codes of one signal after each iteration. */
CLONED static void NAMED(code)(const REAL *analysed, const REAL *M, const REAL *thresholds,
                               const Coding *s, NAMED(Code) *path, int kept) {
    NAMED(Code) none = {0, NULL, NULL};
    for (int64_t n = 0; n < s->iterations; n++)
        NAMED(iterate)(analysed, M, s, thresholds[n], n ? path + (n - 1) % kept : &none,
                       path + n % kept);
}

static NAMED(Code) *NAMED(new_path)(int64_t length, int64_t atoms) {
    NAMED(Code) *path = malloc(length * (sizeof(*path) + atoms * (sizeof(REAL) + sizeof(int32_t))));
    if (!path) return NULL;
    REAL *values = (REAL *)(path + length);
    int32_t *places = (int32_t *)(values + length * atoms);
    for (int64_t n = 0; n < length; n++)
        path[n] = (NAMED(Code)){0, places + n * atoms, values + n * atoms};
    return path;
}

/* codes (row, atom), which are 0 to begin with; returns whether there was memory */
int NAMED(istc)(const REAL *analysed, const REAL *M, const REAL *thresholds, const Coding *s,
                REAL *codes, int threads) {
    int good = 1;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        NAMED(Code) *path = NAMED(new_path)(2, s->atoms);
        if (!path) good = 0;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < s->rows; row++) {
            if (!path) continue;
            NAMED(code)(analysed + row * s->atoms, M, thresholds, s, path, 2);
            const NAMED(Code) *z = path + (s->iterations - 1) % 2;
            for (int64_t k = 0; k < z->count; k++)
                codes[row * s->atoms + z->atoms[k]] = z->values[k];
        }
        free(path);
    }
    return good;
}

/* Where the gradients of one thread go: (atom, channel) twice, and one number an iteration. */
typedef struct { REAL *W, *D, *thresholds; } NAMED(Slopes);

/* From g on the support of z to g on that of the code before: see dictionaries/active_sets.py */
CLONED static void NAMED(back)(const REAL *beta, const REAL *D, const REAL *W, const Coding *s,
                               const NAMED(Code) *z, const NAMED(Code) *before, REAL *g, REAL *rest,
                               NAMED(Slopes) to, REAL *d_beta, REAL *spare) {
    const int64_t C = s->channels;
    REAL *q = spare, *r = spare + C;
    memset(q, 0, C * sizeof(REAL));
    memcpy(r, beta, C * sizeof(REAL));
    for (int64_t k = 0; k < z->count; k++) {
        NAMED(add)(g[k], W + z->atoms[k] * C, q, C);
        *to.thresholds -= z->values[k] > 0 ? g[k] : -g[k];
    }
    for (int64_t k = 0; before && k < before->count; k++)
        NAMED(add)(-before->values[k], D + before->atoms[k] * C, r, C);
    for (int64_t k = 0; k < z->count; k++) NAMED(add)(g[k], r, to.W + z->atoms[k] * C, C);
    NAMED(add)(1, q, d_beta, C);
    for (int64_t k = 0, l = 0; before && k < before->count; k++) {
        int32_t atom = before->atoms[k];
        NAMED(add)(-before->values[k], q, to.D + atom * C, C);
        while (l < z->count && z->atoms[l] < atom) l++;
        rest[k] = (l < z->count && z->atoms[l] == atom ? g[l] : 0) - NAMED(dot)(D + atom * C, q, C);
    }
}

/* Gradients given that of the codes; W and D (thread, atom, channel), thresholds (thread, n). */
int NAMED(istc_gradients)(const REAL *analysed, const REAL *beta, const REAL *M, const REAL *D,
                          const REAL *W, const REAL *thresholds, const REAL *gradient,
                          const Coding *s, REAL *d_beta, REAL *d_W, REAL *d_D, REAL *d_thresholds,
                          int threads) {
    const int64_t K = s->atoms, C = s->channels, share = (s->rows + threads - 1) / threads;
    int good = 1;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t part = 0; part < threads; part++) {
        NAMED(Code) *path = NAMED(new_path)(s->iterations, K);
        REAL *spare = malloc((2 * K + 2 * C) * sizeof(REAL));
        if (!path || !spare) good = 0;
        int64_t stop = (part + 1) * share < s->rows ? (part + 1) * share : s->rows;
        for (int64_t row = part * share; path && spare && row < stop; row++) {
            NAMED(code)(analysed + row * K, M, thresholds, s, path, (int)s->iterations);
            REAL *g = spare, *rest = spare + K;
            const NAMED(Code) *last = path + s->iterations - 1;
            for (int64_t k = 0; k < last->count; k++) g[k] = gradient[row * K + last->atoms[k]];
            for (int64_t n = s->iterations - 1; n >= 0; n--) {
                NAMED(Slopes) to = {d_W + part * K * C, d_D + part * K * C,
                                    d_thresholds + part * s->iterations + n};
                NAMED(back)(beta + row * C, D, W, s, path + n, n ? path + n - 1 : NULL, g, rest, to,
                            d_beta + row * C, spare + 2 * K);
                REAL *swap = g;
                g = rest, rest = swap;
            }
        }
        free(path), free(spare);
    }
    return good;
}

#undef STRIP
#undef LOOK
#undef SUMS
#endif
