/* Fourier transforms of fields of whose frequencies only a box is given or wanted: what
 * wavemill/moments/boxes.py does with torch.
 *
 * LANES rows are transformed at once, then LANES columns. Where a box is given, columns come first,
 * so that the first lines are always the fewer. What lies in between fits the second cache. */
#ifndef REAL

#include "kernels.h"

/* Fields of a grid, rows and columns in memory before and after: all, or frequencies -a..a. Real
 * fields have all; if those after are real, the imaginary part is left out. `half`: of the
 * frequencies of real fields, only columns from 0 on are given or wanted. */
typedef struct {
    int64_t fields, height, width, from[2], to[2], complex[2], inverse, half;
} Boxes;

/* What rows of complex fields become before they are transformed, or what the transforms' rows
 * become after it. Let z be responses of `channels` wavelets, r = |z| and u = z / r.
 * HARMONICS, of z: r u^k, less each channel's mean, if that is given.
 * SLOPES, of z: u (radial + polar) + more, of which any may be absent.
 * POLAR, after it: p = a u^k of the transform a becomes Re p - i k Im p, added to what is there
 * unless `fresh`. */
enum { PLAIN, HARMONICS, SLOPES, POLAR };
typedef struct {
    int64_t kind, k, channels, fresh;
    const void *z, *mean, *radial, *polar, *more;
} Harmonics;

#define LOOPS "boxes.c"
#include "precisions.h"

#else /* one precision */

#include "fourier.h"

/* What one thread works in; a team may share `field`, whose rows are `row` numbers apart. `mean` is
 * that of the channel it is at, and `before` the number of points of all fields before this one. */
typedef struct {
    PLAN y, x;
    COMPLEX *line, *spare;
    REAL *field;
    int64_t row, part, parts;
    const Harmonics *harmonics;
    REAL mean[2];
    int64_t before;
} NAMED(Desk);

#define DESK NAMED(Desk)

/* Rows of n numbers become the lanes of vectors that lie `apart` from each other. */
INLINE void NAMED(read_rows)(const REAL *from, int64_t row, int64_t rows, int64_t n, int apart,
                             VEC *to) {
    const REAL *start[WIDTH / sizeof(REAL)];
    VEC v[WIDTH / sizeof(REAL)];
    for (int64_t lane = 0; lane < LANES; lane++)
        start[lane] = from + (lane < rows ? lane : rows - 1) * row;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int64_t lane = 0; lane < LANES; lane++) v[lane] = LOOSE(start[lane] + i);
        TRANSPOSE()
        for (int64_t k = 0; k < LANES; k++) to[apart * (i + k)] = v[k];
    }
    for (; i < n; i++)
        for (int64_t lane = 0; lane < LANES; lane++)
            VALUE(to + apart * i, lane) = start[lane][i];
}

INLINE void NAMED(write_rows)(const VEC *from, int apart, int64_t row, int64_t rows, int64_t n,
                              REAL *to) {
    VEC v[WIDTH / sizeof(REAL)];
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int64_t k = 0; k < LANES; k++) v[k] = from[apart * (i + k)];
        TRANSPOSE()
        for (int64_t lane = 0; lane < rows; lane++) LOOSE(to + lane * row + i) = v[lane];
    }
    for (; i < n; i++)
        for (int64_t lane = 0; lane < rows; lane++)
            to[lane * row + i] = VALUE(from + apart * i, lane);
}

/* Columns become the line's lanes, in an order of their own that `write_columns` undoes. */
INLINE void NAMED(read_columns)(const REAL *from, int64_t row, int64_t columns, int64_t n,
                                COMPLEX *line) {
    REAL some[2 * WIDTH / sizeof(REAL)] = {0};
    for (int64_t i = 0; i < n; i++, from += row) {
        const REAL *p = from;
        if (columns < LANES) p = memcpy(some, from, columns * 2 * sizeof(REAL));
        const VEC a = LOOSE(p), b = LOOSE(p + LANES);
        line[i].re = EVEN(a, b), line[i].im = ODD(a, b);
    }
}

INLINE void NAMED(write_columns)(const COMPLEX *line, int64_t row, int64_t columns, int64_t n,
                                 REAL *to) {
    REAL some[2 * WIDTH / sizeof(REAL)];
    for (int64_t i = 0; i < n; i++, to += row) {
        REAL *p = columns < LANES ? some : to;
        LOOSE(p) = LOW(line[i].re, line[i].im), LOOSE(p + LANES) = HIGH(line[i].re, line[i].im);
        if (columns < LANES) memcpy(to, some, columns * 2 * sizeof(REAL));
    }
}

/* Moves the frequencies -a..a of a line of n from its first `known` places to their own; `narrow`
 * moves them back. */
INLINE void NAMED(widen)(COMPLEX *line, int64_t known, int64_t n) {
    const int64_t reach = known / 2;
    if (known == n) return;
    memmove(line + n - reach, line + reach + 1, reach * sizeof(COMPLEX));
    memset(line + reach + 1, 0, (n - known) * sizeof(COMPLEX));
}

INLINE void NAMED(narrow)(COMPLEX *line, int64_t known, int64_t n) {
    const int64_t reach = known / 2;
    if (known < n) memmove(line + reach + 1, line + n - reach, reach * sizeof(COMPLEX));
}

INLINE void NAMED(turn)(const PLAN *plan, const DESK *desk, int64_t inverse) {
    COMPLEX *z = desk->line;
    if (inverse) NAMED(transform)(plan, &z->im, &z->re, &z->im, &z->re, 1, desk->spare);
    else NAMED(transform)(plan, &z->re, &z->im, &z->re, &z->im, 1, desk->spare);
}

/* The first of these lines that are a thread's own. */
INLINE int64_t NAMED(begin)(int64_t n, const DESK *desk, int64_t next) {
    const int64_t blocks = (n + LANES - 1) / LANES * (desk->part + next) / desk->parts;
    return blocks * LANES < n ? blocks * LANES : n;
}

/* A field before or after: numbers from one row to the next, and columns. */
typedef struct { REAL *at; int64_t row, columns; } NAMED(Side);

#define SIDE NAMED(Side)
#define SOME(rows) ((rows) < 0 ? 0 : (rows) < LANES ? (rows) : LANES)

/* Some rows of complex fields like those that are transformed, or zeros. */
INLINE void NAMED(read_more)(const void *from, const DESK *desk, int64_t y, int64_t rows,
                             int64_t n, COMPLEX *to) {
    const REAL *start = (const REAL *)from + 2 * (desk->before + y * n);
    if (from) NAMED(read_rows)(start, 2 * n, rows, 2 * n, 1, &to->re);
    else memset(to, 0, n * sizeof(COMPLEX));
}

/* What responses in a line become. */
INLINE void NAMED(prepare)(const DESK *desk, int64_t y, int64_t rows, int64_t n) {
    const Harmonics *h = desk->harmonics;
    COMPLEX *z = desk->line, *sum = desk->spare, *more = sum + n;
    VEC r;
    if (h->kind == HARMONICS)
        for (int64_t i = 0; i < n; i++) {
            const COMPLEX u = NAMED(power)(NAMED(unit)(z[i], &r), h->k);
            z[i] = (COMPLEX){r * u.re - desk->mean[0], r * u.im - desk->mean[1]};
        }
    if (h->kind != SLOPES) return;
    NAMED(read_more)(h->polar, desk, y, rows, n, sum);
    if (h->radial) {
        const REAL *radial = (const REAL *)h->radial + desk->before + y * n;
        NAMED(read_rows)(radial, n, rows, n, 2, &more->re);
        for (int64_t i = 0; i < n; i++) sum[i].re += more[i].re;
    }
    NAMED(read_more)(h->more, desk, y, rows, n, more);
    for (int64_t i = 0; i < n; i++) {
        z[i] = NAMED(times)(NAMED(unit)(z[i], &r), sum[i]);
        z[i].re += more[i].re, z[i].im += more[i].im;
    }
}

/* What the gradients in a line make of row y and those after it. */
INLINE void NAMED(gather)(const DESK *desk, const REAL *known, int64_t y, int64_t rows, int64_t n) {
    const Harmonics *h = desk->harmonics;
    COMPLEX *a = desk->line, *z = desk->spare, *sum = z + n;
    VEC r;
    NAMED(read_more)(h->z, desk, y, rows, n, z);
    if (h->fresh) memset(sum, 0, n * sizeof(COMPLEX));
    else NAMED(read_rows)(known, 2 * n, rows, 2 * n, 1, &sum->re);
    for (int64_t i = 0; i < n; i++) {
        const COMPLEX p = NAMED(times)(a[i], NAMED(power)(NAMED(unit)(z[i], &r), h->k));
        a[i] = (COMPLEX){sum[i].re + p.re, sum[i].im - (REAL)h->k * p.im};
    }
}

CLONED static void NAMED(along_rows)(const Boxes *task, SIDE from, SIDE to, const DESK *desk) {
    const int64_t end = NAMED(begin)(task->height, desk, 1);
    for (int64_t y = NAMED(begin)(task->height, desk, 0); y < end; y += LANES) {
        const int64_t rows = SOME(end - y);
        NAMED(read_rows)(from.at + y * from.row, from.row, rows, 2 * from.columns, 1,
                         &desk->line->re);
        NAMED(prepare)(desk, y, rows, from.columns);
        NAMED(widen)(desk->line, from.columns, task->width);
        NAMED(turn)(&desk->x, desk, task->inverse);
        NAMED(narrow)(desk->line, to.columns, task->width);
        REAL *out = to.at + y * to.row;
        if (desk->harmonics->kind == POLAR) NAMED(gather)(desk, out, y, rows, to.columns);
        NAMED(write_rows)(&desk->line->re, 1, to.row, rows, 2 * to.columns, out);
    }
}

/* Moduli of responses, less their mean, as a part of a line. */
INLINE void NAMED(read_moduli)(const REAL *from, int64_t row, int64_t rows, int64_t n,
                               const DESK *desk, VEC *to) {
    COMPLEX *z = desk->spare;
    NAMED(read_rows)(from, row, rows, 2 * n, 1, &z->re);
    for (int64_t i = 0; i < n; i++) {
        NAMED(unit)(z[i], to + 2 * i);
        to[2 * i] -= desk->mean[0];
    }
}

/* Real rows, two as one complex row a + i b. Their frequencies from 0 on are
 * a_k = (z_k + conj z_-k) / 2 and b_k = (z_k - conj z_-k) / 2i. */
CLONED static void NAMED(from_real_rows)(const Boxes *task, SIDE from, SIDE to, const DESK *desk) {
    const int64_t n = task->width, end = NAMED(begin)(task->height, desk, 1);
    COMPLEX *z = desk->line, *a = desk->spare, *b = a + n;
    for (int64_t y = NAMED(begin)(task->height, desk, 0); y < end; y += 2 * LANES) {
        const int64_t rows = SOME(end - y), more = SOME(end - y - LANES);
        const REAL *start = from.at + y * from.row, *next = start + LANES * from.row;
        if (desk->harmonics->kind) {
            NAMED(read_moduli)(start, from.row, rows, n, desk, &z->re);
            if (more) NAMED(read_moduli)(next, from.row, more, n, desk, &z->im);
        } else {
            NAMED(read_rows)(start, from.row, rows, n, 2, &z->re);
            if (more) NAMED(read_rows)(next, from.row, more, n, 2, &z->im);
        }
        for (int64_t i = 0; !more && i < n; i++) z[i].im = (VEC){0};
        NAMED(turn)(&desk->x, desk, task->inverse);
        for (int64_t k = 0; k < to.columns; k++) {
            const COMPLEX p = z[k], q = z[k ? n - k : 0];
            a[k].re = (REAL)0.5 * (p.re + q.re), a[k].im = (REAL)0.5 * (p.im - q.im);
            b[k].re = (REAL)0.5 * (p.im + q.im), b[k].im = (REAL)0.5 * (q.re - p.re);
        }
        REAL *out = to.at + y * to.row;
        NAMED(write_rows)(&a->re, 1, to.row, rows, 2 * to.columns, out);
        NAMED(write_rows)(&b->re, 1, to.row, more, 2 * to.columns, out + LANES * to.row);
    }
}

/* The reverse. */
CLONED static void NAMED(to_real_rows)(const Boxes *task, SIDE from, SIDE to, const DESK *desk) {
    const int64_t n = task->width, end = NAMED(begin)(task->height, desk, 1);
    const REAL share = task->half ? (REAL)0.5 : 1; /* for k and -k each, of what is given at k */
    COMPLEX *z = desk->line, *a = desk->spare, *b = a + n;
    for (int64_t y = NAMED(begin)(task->height, desk, 0); y < end; y += 2 * LANES) {
        const int64_t rows = SOME(end - y), more = SOME(end - y - LANES);
        const REAL *start = from.at + y * from.row;
        NAMED(read_rows)(start, from.row, rows, 2 * from.columns, 1, &a->re);
        if (more)
            NAMED(read_rows)(start + LANES * from.row, from.row, more, 2 * from.columns, 1, &b->re);
        else memset(b, 0, from.columns * sizeof(COMPLEX));
        memset(z + from.columns, 0, (n - from.columns) * sizeof(COMPLEX));
        for (int64_t k = 0; k < from.columns; k++) {
            const COMPLEX p = a[k], q = b[k];
            if (k && 2 * k < n) {
                z[k] = (COMPLEX){share * (p.re - q.im), share * (p.im + q.re)};
                z[n - k] = (COMPLEX){share * (p.re + q.im), share * (q.re - p.im)};
            } else {
                z[k] = (COMPLEX){p.re, q.re};
            }
        }
        NAMED(turn)(&desk->x, desk, task->inverse);
        REAL *out = to.at + y * to.row;
        NAMED(write_rows)(&z->re, 2, to.row, rows, n, out);
        NAMED(write_rows)(&z->im, 2, to.row, more, n, out + LANES * to.row);
    }
}

/* Rows of a box that are a thread's own, of `rows`. */
#define OWN(y, rows) \
    (int64_t y = (rows) * desk->part / desk->parts; y < (rows) * (desk->part + 1) / desk->parts; y++)

/* The columns at -k of a real field's frequencies, from those at k. */
CLONED static void NAMED(mirror)(const Boxes *task, SIDE to, const DESK *desk) {
    const int64_t height = task->to[0], n = to.columns, half = (n - 1) / 2;
    for OWN(y, height) {
        const REAL *from = to.at + (y ? height - y : 0) * to.row;
        REAL *out = to.at + y * to.row;
        int64_t x = 1;
        for (; x + LANES / 2 <= half + 1; x += LANES / 2)
            LOOSE(out + 2 * (n - x - LANES / 2 + 1)) = BACKWARDS(LOOSE(from + 2 * x)) * CONJUGATE;
        for (; x <= half; x++)
            out[2 * (n - x)] = from[2 * x], out[2 * (n - x) + 1] = -from[2 * x + 1];
    }
}

/* The part of a box that gives real fields, in columns from 0 on: (x_k + conj x_-k) / 2. */
CLONED static void NAMED(even_part)(const Boxes *task, SIDE from, SIDE to, const DESK *desk) {
    const int64_t height = task->from[0], n = from.columns;
    for OWN(y, height) {
        const REAL *p = from.at + y * from.row, *q = from.at + (y ? height - y : 0) * from.row;
        REAL *out = to.at + y * to.row;
        out[0] = (REAL)0.5 * (p[0] + q[0]), out[1] = (REAL)0.5 * (p[1] - q[1]);
        int64_t x = 1;
        for (; x + LANES / 2 <= to.columns; x += LANES / 2)
            LOOSE(out + 2 * x) =
                (REAL)0.5 * (LOOSE(p + 2 * x) +
                             BACKWARDS(LOOSE(q + 2 * (n - x - LANES / 2 + 1))) * CONJUGATE);
        for (; x < to.columns; x++) {
            out[2 * x] = (REAL)0.5 * (p[2 * x] + q[2 * (n - x)]);
            out[2 * x + 1] = (REAL)0.5 * (p[2 * x + 1] - q[2 * (n - x) + 1]);
        }
    }
}

CLONED static void NAMED(along_columns)(const Boxes *task, SIDE from, SIDE to, const DESK *desk) {
    const int64_t n = from.columns, end = NAMED(begin)(n, desk, 1);
    for (int64_t x = NAMED(begin)(n, desk, 0); x < end; x += LANES) {
        NAMED(read_columns)(from.at + 2 * x, from.row, n - x, task->from[0], desk->line);
        NAMED(widen)(desk->line, task->from[0], task->height);
        NAMED(turn)(&desk->y, desk, task->inverse);
        NAMED(narrow)(desk->line, task->to[0], task->height);
        NAMED(write_columns)(desk->line, to.row, n - x, task->to[0], to.at + 2 * x);
    }
}

static void NAMED(meet)(const DESK *desk) {
    if (desk->parts > 1) {
#pragma omp barrier
    }
}

/* Columns in memory before, or after. */
INLINE int64_t NAMED(columns)(const Boxes *task, int side) {
    const int64_t n = side ? task->to[1] : task->from[1];
    return task->half && task->complex[side] ? n / 2 + 1 : n;
}

/* One field, or a thread's part of it. */
static void NAMED(field)(const Boxes *task, const REAL *from, REAL *to, const DESK *desk) {
    const int64_t known = NAMED(columns)(task, 0), kept = NAMED(columns)(task, 1);
    const int64_t whole = task->complex[0] || desk->harmonics->kind;
    const SIDE before = {(REAL *)from, whole ? 2 * known : known, known};
    const SIDE after = {to, task->complex[1] ? 2 * kept : kept, kept};
    SIDE between = {desk->field, desk->row, kept};
    if (!task->complex[0]) {
        between.columns = task->to[1] / 2 + 1;
        NAMED(from_real_rows)(task, before, between, desk);
        NAMED(meet)(desk);
        NAMED(along_columns)(task, between, after, desk);
        NAMED(meet)(desk);
        if (!task->half) NAMED(mirror)(task, after, desk);
    } else if (!task->complex[1]) {
        between.columns = task->from[1] / 2 + 1;
        if (!task->half) NAMED(even_part)(task, before, between, desk);
        NAMED(meet)(desk);
        NAMED(along_columns)(task, task->half ? before : between, between, desk);
        NAMED(meet)(desk);
        NAMED(to_real_rows)(task, between, after, desk);
    } else if (known < task->width || task->from[0] < task->height ||
               desk->harmonics->kind == POLAR) {
        between.columns = known;
        NAMED(along_columns)(task, before, between, desk);
        NAMED(meet)(desk);
        NAMED(along_rows)(task, between, after, desk);
    } else {
        NAMED(along_rows)(task, before, between, desk);
        NAMED(meet)(desk);
        NAMED(along_columns)(task, between, after, desk);
    }
    NAMED(meet)(desk);
}

/* Numbers from one row of a thread's field to the next: not a power of two. */
static int64_t NAMED(row)(const Boxes *task) {
    const int64_t columns = task->from[1] < task->to[1] ? task->from[1] : task->to[1];
    return 2 * ((columns + LANES - 1) / LANES * LANES + LANES);
}

/* Whether threads share each field. */
static int NAMED(together)(const Boxes *task, int threads) {
    return threads > 1 && task->fields % threads && task->fields < 4 * threads;
}

/* Bytes that so many threads work in, or -1 if a side has a large prime factor. */
int64_t NAMED(boxes_bytes)(const Boxes *task, int threads) {
    const int64_t n = task->height > task->width ? task->height : task->width;
    PLAN y, x;
    const int good = NAMED(plan)(&y, task->height) & NAMED(plan)(&x, task->width);
    free(y.twiddles), free(x.twiddles);
    const int64_t field = task->height * NAMED(row)(task) * (int64_t)sizeof(REAL);
    const int64_t fields = NAMED(together)(task, threads) ? 1 : threads;
    return good ? fields * field + threads * 3 * n * (int64_t)sizeof(COMPLEX) : -1;
}

/* Transforms fields as `task` and `harmonics` say; `memory` is as large as `boxes_bytes` says. */
int NAMED(boxes)(const REAL *from, const Boxes *task, const Harmonics *harmonics, REAL *to,
                 char *memory, int threads) {
    const int64_t n = task->height > task->width ? task->height : task->width;
    const int64_t whole = task->complex[0] || harmonics->kind;
    const int64_t before = task->from[0] * NAMED(columns)(task, 0) * (whole ? 2 : 1);
    const int64_t after = task->to[0] * NAMED(columns)(task, 1) * (task->complex[1] ? 2 : 1);
    const int shared = NAMED(together)(task, threads);
    DESK one = {.row = NAMED(row)(task), .parts = shared ? threads : 1, .harmonics = harmonics};
    const int good = NAMED(plan)(&one.y, task->height) & NAMED(plan)(&one.x, task->width);
    const int64_t field = task->height * one.row * (int64_t)sizeof(REAL);
    const int large = task->fields * task->height * task->width > 1 << 14;
#pragma omp parallel num_threads(threads) if (good && threads > 1 && large)
    {
        const int64_t thread = this_thread(), all = all_threads();
        DESK desk = one;
        char *own = memory + thread * 3 * n * sizeof(COMPLEX);
        desk.line = (COMPLEX *)own, desk.spare = desk.line + n;
        desk.field = (REAL *)(memory + threads * 3 * n * sizeof(COMPLEX) + (shared ? 0 : thread) * field);
        desk.part = shared ? thread : 0, desk.parts = shared ? all : 1;
        for (int64_t f = shared ? 0 : thread; good && f < task->fields; f += shared ? 1 : all) {
            const REAL *mean = harmonics->mean;
            if (mean) memcpy(desk.mean, mean + 2 * (f % harmonics->channels), sizeof(desk.mean));
            desk.before = f * task->height * task->width;
            NAMED(field)(task, from + f * before, to + f * after, &desk);
        }
    }
    free(one.y.twiddles), free(one.x.twiddles);
    return good;
}

#undef SIDE
#undef SOME
#undef OWN
#undef DESK
#undef PLAN
#undef AT
#endif
