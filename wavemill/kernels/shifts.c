/* Covariances of spectra, or of fields, at few shifts or none, and the gradients of a loss of these:
 * what GramBlock and ShiftBlock of wavemill/moments/covariances.py do with torch. Cross-spectra are
 * never written to memory, and spectra are differentiated while they are in a cache. */
#ifndef REAL

#include "kernels.h"

/* A mean to be taken: of which pair, with which waves along y, the cosine and `sign` i times the
 * sine, and with which wave along x. */
typedef struct { int64_t pair, cosine, sine, sign, across; } Mean;

/* Which channels of two stacks of spectra, (field, channel, y, x) in boxes of their own, meet in a
 * box common to both; waves along y, (wave, y), and along x, complex and (wave, x). `alone`: each
 * channel meets itself, and cross-spectra are real. `plain`, for each stack: gradients are not
 * conjugated. `swapped`: means are those of the second stack with the first, conjugates of what
 * the sums give. */
typedef struct {
    int64_t fields, pairs, means, waves, rows, columns, channels[2], boxes[2][2];
    int64_t alone, plain[2], swapped;
    const int64_t *chosen;
    const Mean *mean;
    const void *along, *across;
} Shifts;

#define ROWS 4  /* of a cross-spectrum at once */
#define PARTS 4 /* of all rows that are added up apart, whatever the number of threads */
#define HELD (1 << 21) /* bytes of spectra and gradients that caches keep between both passes */

#define LOOPS "shifts.c"
#include "precisions.h"

#else /* one precision */

/* A row of a spectrum, whose negative frequencies lie `jump` numbers later than in the box. */
typedef struct { REAL *start; int64_t jump; } NAMED(Row);

#define ROW NAMED(Row)

/* Row y of the box in a pair's channel of one stack. */
INLINE ROW NAMED(find)(const Shifts *task, const REAL *stack, int64_t pair, int side, int64_t y) {
    const int64_t height = task->boxes[side][0], width = task->boxes[side][1];
    const int64_t channel = pair / task->pairs * task->channels[side] +
                            task->chosen[side * task->pairs + pair % task->pairs];
    if (y > task->rows / 2) y += height - task->rows;
    return (ROW){(REAL *)stack + 2 * (channel * height + y) * width, 2 * (width - task->columns)};
}

INLINE void NAMED(times_conjugate)(const REAL *restrict a, const REAL *restrict b,
                                   REAL *restrict out, int64_t n) {
    for (int64_t i = 0; i < 2 * n; i += 2) {
        out[i] = a[i] * b[i] + a[i + 1] * b[i + 1];
        out[i + 1] = a[i + 1] * b[i] - a[i] * b[i + 1];
    }
}

INLINE void NAMED(squares)(const REAL *restrict a, REAL *restrict out, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = a[2 * i] * a[2 * i] + a[2 * i + 1] * a[2 * i + 1];
}

/* g (+)= s conj(b), or its conjugate */
INLINE void NAMED(pull_first)(REAL *restrict g, const REAL *restrict s, const REAL *restrict b,
                              int64_t n, int fresh, REAL sign) {
    for (int64_t i = 0; i < 2 * n; i += 2) {
        const REAL re = s[i] * b[i] + s[i + 1] * b[i + 1];
        const REAL im = sign * (s[i + 1] * b[i] - s[i] * b[i + 1]);
        g[i] = fresh ? re : g[i] + re, g[i + 1] = fresh ? im : g[i + 1] + im;
    }
}

/* g (+)= s a, or its conjugate */
INLINE void NAMED(pull_second)(REAL *restrict g, const REAL *restrict s, const REAL *restrict a,
                               int64_t n, int fresh, REAL sign) {
    for (int64_t i = 0; i < 2 * n; i += 2) {
        const REAL re = s[i] * a[i] - s[i + 1] * a[i + 1];
        const REAL im = sign * (s[i] * a[i + 1] + s[i + 1] * a[i]);
        g[i] = fresh ? re : g[i] + re, g[i + 1] = fresh ? im : g[i + 1] + im;
    }
}

/* g (+)= 2 s a, of real s, or its conjugate */
INLINE void NAMED(pull_alone)(REAL *restrict g, const REAL *restrict s, const REAL *restrict a,
                              int64_t n, int fresh, REAL sign) {
    for (int64_t i = 0; i < n; i++) {
        const REAL re = 2 * s[i] * a[2 * i], im = sign * 2 * s[i] * a[2 * i + 1];
        g[2 * i] = fresh ? re : g[2 * i] + re, g[2 * i + 1] = fresh ? im : g[2 * i + 1] + im;
    }
}

/* Where each half of a box's row begins, and how many numbers it has. */
#define HALVES(half, at, count)                                                               \
    for (int64_t half = 0, at = 0, count = task->columns / 2 + 1; half < 2;                   \
         at = count, count = task->columns - count, half++)

/* out (wave, x): the sums along y, over some rows, of a pair's cross-spectrum times the waves. */
CLONED static void NAMED(sum_rows)(const Shifts *task, const REAL *first, const REAL *second,
                                   int64_t pair, int64_t y, int64_t end, REAL *lines, REAL *out) {
    const int64_t n = task->columns, width = task->alone ? n : 2 * n;
    memset(out, 0, task->waves * width * sizeof(REAL));
    for (; y < end; y += ROWS) {
        for (int64_t r = 0; r < ROWS; r++) {
            REAL *line = lines + r * width;
            if (y + r >= end) {
                memset(line, 0, width * sizeof(REAL));
                continue;
            }
            const ROW a = NAMED(find)(task, first, pair, 0, y + r);
            const ROW b = NAMED(find)(task, second, pair, 1, y + r);
            HALVES(half, at, count) {
                const REAL *p = a.start + half * a.jump + 2 * at, *q = b.start + half * b.jump + 2 * at;
                if (task->alone) NAMED(squares)(p, line + at, count);
                else NAMED(times_conjugate)(p, q, line + 2 * at, count);
            }
        }
        const REAL *l0 = lines, *l1 = l0 + width, *l2 = l1 + width, *l3 = l2 + width;
        for (int64_t s = 0; s < task->waves; s++) {
            REAL w[ROWS], *restrict sum = out + s * width;
            for (int64_t r = 0; r < ROWS; r++)
                w[r] = y + r < end ? ((const REAL *)task->along)[s * task->rows + y + r] : 0;
            for (int64_t i = 0; i < width; i++)
                sum[i] += (w[0] * l0[i] + w[1] * l1[i]) + (w[2] * l2[i] + w[3] * l3[i]);
        }
    }
}

/* Rows from y on, ROWS at most, of a pair's cross-spectrum's gradient: sums over waves. */
CLONED static void NAMED(spread_rows)(const Shifts *task, int64_t y, int64_t rows,
                                      const REAL *restrict sums, REAL *restrict out) {
    const int64_t width = (task->alone ? 1 : 2) * task->columns;
    const REAL *w = (const REAL *)task->along + y;
    int64_t i = 0;
    for (; rows == ROWS && i + LANES <= width; i += LANES) {
        VEC row[ROWS] = {{0}};
        for (int64_t s = 0; s < task->waves; s++) {
            const VEC sum = LOOSE(sums + s * width + i);
            for (int r = 0; r < ROWS; r++) row[r] += w[s * task->rows + r] * sum;
        }
        for (int r = 0; r < ROWS; r++) LOOSE(out + r * width + i) = row[r];
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = i; k < width; k++) {
            REAL sum = 0;
            for (int64_t s = 0; s < task->waves; s++)
                sum += w[s * task->rows + r] * sums[s * width + k];
            out[r * width + k] = sum;
        }
}

/* Gradients of one row of a pair's spectra, given those of the row of its cross-spectrum. */
CLONED static void NAMED(pull_row)(const Shifts *task, const REAL *first, const REAL *second,
                                   int64_t pair, int64_t y, const REAL *line,
                                   REAL *first_gradient, REAL *second_gradient,
                                   const int *fresh) {
    const ROW a = NAMED(find)(task, first, pair, 0, y), b = NAMED(find)(task, second, pair, 1, y);
    const ROW g = NAMED(find)(task, first_gradient, pair, 0, y);
    const ROW h = NAMED(find)(task, second_gradient, pair, 1, y);
    const REAL one = task->plain[0] ? -1 : 1, two = task->plain[1] ? 1 : -1;
    HALVES(half, at, count) {
        const int64_t i = half * a.jump + 2 * at, k = half * b.jump + 2 * at;
        if (task->alone) {
            if (fresh[0]) NAMED(pull_alone)(g.start + i, line + at, a.start + i, count, 1, -one);
            else NAMED(pull_alone)(g.start + i, line + at, a.start + i, count, 0, -one);
            continue;
        }
        const REAL *from = line + 2 * at;
        if (fresh[0]) NAMED(pull_first)(g.start + i, from, b.start + k, count, 1, one);
        else NAMED(pull_first)(g.start + i, from, b.start + k, count, 0, one);
        if (fresh[1]) NAMED(pull_second)(h.start + k, from, a.start + i, count, 1, two);
        else NAMED(pull_second)(h.start + k, from, a.start + i, count, 0, two);
    }
}

/* out = (re, im) of the sum of complex wave times line, of which `real` tells if it is real. */
INLINE void NAMED(dot)(const REAL *wave, const REAL *line, int64_t n, int real, REAL *out) {
    VEC straight = {0}, crossed = {0};
    REAL re = 0, im = 0;
    int64_t x = 0;
    if (real)
        for (; x + LANES <= n; x += LANES) {
            const VEC a = LOOSE(wave + 2 * x), b = LOOSE(wave + 2 * x + LANES);
            const VEC of = SORT(LOOSE(line + x));
            straight += EVEN(a, b) * of, crossed += ODD(a, b) * of;
        }
    else
        for (; x + LANES / 2 <= n; x += LANES / 2) {
            const VEC a = LOOSE(wave + 2 * x), b = LOOSE(line + 2 * x);
            straight += CONJUGATE * a * b, crossed += a * TURNED(b);
        }
    for (int64_t lane = 0; lane < LANES; lane++) re += straight[lane], im += crossed[lane];
    for (; x < n; x++) {
        const REAL a = real ? line[x] : line[2 * x], b = real ? 0 : line[2 * x + 1];
        re += wave[2 * x] * a - wave[2 * x + 1] * b, im += wave[2 * x] * b + wave[2 * x + 1] * a;
    }
    out[0] = re, out[1] = im;
}

/* out (mean): the means of a pair, from its sums along y; others' are left. */
CLONED static void NAMED(take_means)(const Shifts *task, int64_t pair, const REAL *sums, REAL *out) {
    const int64_t n = task->columns, width = task->alone ? n : 2 * n;
    for (int64_t m = 0; m < task->means; m++) {
        const Mean *mean = task->mean + m;
        if (mean->pair != pair) continue;
        const REAL *wave = (const REAL *)task->across + 2 * n * mean->across;
        REAL cosine[2], sine[2] = {0};
        if (task->alone) {
            NAMED(dot)(wave, sums + mean->cosine * width, n, 1, cosine);
            if (mean->sign) NAMED(dot)(wave, sums + mean->sine * width, n, 1, sine);
        } else {
            NAMED(dot)(wave, sums + mean->cosine * width, n, 0, cosine);
            if (mean->sign) NAMED(dot)(wave, sums + mean->sine * width, n, 0, sine);
        }
        out[2 * m] = cosine[0] - (REAL)mean->sign * sine[1];
        out[2 * m + 1] = cosine[1] + (REAL)mean->sign * sine[0];
    }
}

/* The gradient of the sums along y of a pair from that of its means. */
CLONED static void NAMED(give_means)(const Shifts *task, int64_t pair, const REAL *values,
                                     REAL *sums) {
    const int64_t n = task->columns, width = task->alone ? n : 2 * n;
    memset(sums, 0, task->waves * width * sizeof(REAL));
    for (int64_t m = 0; m < task->means; m++) {
        const Mean *mean = task->mean + m;
        if (mean->pair != pair) continue;
        const REAL *wave = (const REAL *)task->across + 2 * n * mean->across;
        for (int part = 0; part < (mean->sign ? 2 : 1); part++) {
            const REAL sign = (REAL)mean->sign;
            const REAL re = part ? -sign * values[2 * m + 1] : values[2 * m];
            const REAL im = part ? sign * values[2 * m] : values[2 * m + 1];
            REAL *restrict line = sums + (part ? mean->sine : mean->cosine) * width;
            for (int64_t x = 0; x < n && task->alone; x++)
                line[x] += re * wave[2 * x] - im * wave[2 * x + 1];
            for (int64_t x = 0; x < n && !task->alone; x++) {
                line[2 * x] += re * wave[2 * x] - im * wave[2 * x + 1];
                line[2 * x + 1] += re * wave[2 * x + 1] + im * wave[2 * x];
            }
        }
    }
}

/* How many threads are worth waking. */
INLINE int64_t NAMED(team)(const Shifts *task, int64_t threads) {
    if (task->fields * task->pairs * task->rows * task->columns <= 1 << 14) return 1;
    return threads < PARTS ? threads : PARTS;
}

INLINE int64_t NAMED(width)(const Shifts *task) {
    return (task->alone ? 1 : 2) * task->columns;
}

/* The first row of a part. */
INLINE int64_t NAMED(part)(const Shifts *task, int64_t part) {
    const int64_t y = (task->rows + ROWS - 1) / ROWS * part / PARTS * ROWS;
    return y < task->rows ? y : task->rows;
}

/* How many pairs are differentiated together, while their spectra are in a cache. */
INLINE int64_t NAMED(batch)(const Shifts *task) {
    const int64_t bytes = 8 * task->rows * task->columns * (int64_t)sizeof(REAL);
    const int64_t all = task->fields * task->pairs, held = HELD / bytes;
    return held < 1 ? 1 : held < all ? held : all;
}

/* Bytes that so many threads work in: each of its own, then what the parts found. */
#define OWN (ROWS * width + task->waves * width * (factor ? batch : 1) + means)
int64_t NAMED(shifts_bytes)(const Shifts *task, int64_t factor, int threads) {
    const int64_t width = NAMED(width)(task), batch = NAMED(batch)(task), means = 2 * task->means;
    return (NAMED(team)(task, threads) * OWN + 2 * PARTS * batch * means) * (int64_t)sizeof(REAL);
}

/* The means of a pair from what the parts of its rows gave, and the gradient by what they gave. */
INLINE void NAMED(join_means)(const Shifts *task, int64_t pair, const REAL *found, int64_t stride,
                              const REAL *factor, const REAL *offset, REAL *out, REAL *values) {
    const REAL sign = task->swapped ? -1 : 1;
    for (int64_t m = 0; m < task->means; m++) {
        if (task->mean[m].pair != pair) continue;
        REAL re = 0, im = 0;
        for (int64_t part = 0; part < PARTS; part++) {
            re += found[part * stride + 2 * m], im += found[part * stride + 2 * m + 1];
        }
        if (out) out[2 * m] = re, out[2 * m + 1] = sign * im;
        if (!factor) continue;
        values[2 * m] = factor[2 * m] * re - offset[2 * m];
        values[2 * m + 1] = sign * offset[2 * m + 1] - factor[2 * m + 1] * im;
    }
}

/* out (field, mean), complex; with `factor` also the gradients of both stacks, added, or written
 * where `fresh`, of a loss whose gradient by a mean c is factor c - offset, part by part. Offsets
 * of fields are `step` numbers apart. Each row is one thread's, in both passes. */
int NAMED(shifts)(const REAL *first, const REAL *second, const Shifts *task, REAL *out,
                  const REAL *factor, const REAL *offset, int64_t step, REAL *first_gradient,
                  REAL *second_gradient, int64_t first_fresh, int64_t second_fresh, REAL *memory,
                  int threads) {
    const int fresh[2] = {first_fresh != 0, second_fresh != 0};
    const int64_t width = NAMED(width)(task), sums = task->waves * width;
    const int64_t batch = NAMED(batch)(task), means = 2 * task->means, own = OWN;
    const int64_t all = task->fields * task->pairs, team = NAMED(team)(task, threads);
    REAL *const parts = memory + team * own; /* (turn, part, pair of the batch, mean) */
#pragma omp parallel num_threads(team) if (team > 1)
    {
        const int64_t thread = this_thread();
        REAL *lines = memory + thread * own, *held = lines + ROWS * width;
        REAL *values = lines + own - means;
        for (int64_t start = 0, turn = 0; start < all; start += batch, turn = !turn) {
            const int64_t count = all - start < batch ? all - start : batch;
            REAL *const found = parts + turn * PARTS * batch * means;
#pragma omp for schedule(static, 1)
            for (int64_t part = 0; part < PARTS; part++)
                for (int64_t p = 0; p < count; p++) {
                    NAMED(sum_rows)(task, first, second, start + p, NAMED(part)(task, part),
                                    NAMED(part)(task, part + 1), lines, held);
                    NAMED(take_means)(task, (start + p) % task->pairs, held,
                                      found + (part * batch + p) * means);
                }
            /* All have found theirs. Who is done first goes on to the other half of `parts`. */
            for (int64_t p = 0; p < count; p++) {
                const int64_t field = (start + p) / task->pairs, pair = (start + p) % task->pairs;
                NAMED(join_means)(task, pair, found + p * means, batch * means, factor,
                                  offset + field * step, thread ? NULL : out + field * means, values);
                if (factor) NAMED(give_means)(task, pair, values, held + p * sums);
            }
#pragma omp for schedule(static, 1) nowait
            for (int64_t part = 0; part < (factor ? PARTS : 0); part++)
                for (int64_t p = 0; p < count; p++) {
                    const int64_t end = NAMED(part)(task, part + 1);
                    for (int64_t y = NAMED(part)(task, part); y < end; y += ROWS) {
                        const int64_t rows = end - y < ROWS ? end - y : ROWS;
                        NAMED(spread_rows)(task, y, rows, held + p * sums, lines);
                        for (int64_t r = 0; r < rows; r++)
                            NAMED(pull_row)(task, first, second, start + p, y + r,
                                            lines + r * width, first_gradient, second_gradient,
                                            fresh);
                    }
                }
        }
    }
    return 1;
}

#undef OWN
#undef HALVES
#undef ROW
#endif
