/* Scattering transforms: what wavemill/scattering2d.py does with torch, fused so that a field is
 * seldom further away than the second cache.
 *
 * LANES first-order fields are computed at once, one in each lane of a vector: angles of an image,
 * or of several images. A wave is a folded spectrum, which is transformed along x row by row as it
 * is made, and along y column by column as its modulus is averaged; only these two passes visit
 * memory. Fields are transposed in between: their columns are contiguous. */
#ifndef REAL

#include "kernels.h"
#define SCALES 24

/* Most products that are summed at once. */
#define TERMS 256

/* Most bytes of fields that a thread works on by itself. Larger fields are shared by a team, which
 * meets after each pass. */
#define APART ((int64_t)1 << 24)

/* Block (y, x) of a spectrum, the filters first..last-1 that reach it, and the number of the first
 * one's term in the sums. Filters lie row by row, and in a row term by term: other orders would put
 * what is read together a multiple of 4096 bytes apart, where caches hold few lines. */
typedef struct { int64_t y, x, first, last, term; } Place;

/* An average along one axis: output i sums weights[k] x[(first + step i + k) mod n] over k. */
typedef struct { int64_t first, step, count, length; const void *weights; } Average;

/* Filters and the places that they reach; terms in a row; rows of a block, and reals in each. */
typedef struct {
    const void *values;
    const Place *reached;
    int64_t places, terms, rows, columns;
} Bank;

/* What is to be computed of images of `height` rows with `width` reals each. First banks are by
 * scale j1, second ones by (j1, j2), averages by scale and axis (y, x). */
typedef struct {
    int64_t images, height, width, J, L, phases, order, coefficients;
    const Bank *first, *second;
    const Average *averages;
} Scattering;

#define REAL float
#define ROOT sqrtf
#define TINY FLT_MIN
#define HUGE_ FLT_MAX
#include "scattering.c"
#undef REAL
#undef ROOT
#undef TINY
#undef HUGE_

#define REAL double
#define ROOT sqrt
#define TINY DBL_MIN
#define HUGE_ DBL_MAX
#include "scattering.c"

#else /* one precision */

VECTORS
#include "fourier.h"
#include "lines.h"

/* What one thread works on, and which part of it is its own: a team may share the fields, but never
 * the rest. */
typedef struct NAMED(Desk) {
    COMPLEX *waves, *spectrum, *gradient, *line, *slope, *spare;
    VEC *extended, *averaged, *sums, *pair;
    REAL *rows;
    int64_t part, parts;
    struct NAMED(Desk) *team;
} NAMED(Desk);

#define DESK NAMED(Desk)

/* Where part p of n rows or columns begins. */
INLINE int64_t NAMED(begin)(int64_t n, const DESK *desk, int64_t p) {
    return n * (desk->part + p) / desk->parts;
}

/* Over those of n rows or columns that are a thread's own. */
#define FOR_OWN(i, n) \
    for (int64_t i = NAMED(begin)(n, desk, 0), end = NAMED(begin)(n, desk, 1); i < end; i++)

/* Wait for the team. */
static void NAMED(meet)(const DESK *desk) {
    if (desk->parts > 1) {
#pragma omp barrier
    }
}

/* The spectra of the first-order fields at scale j1 become waves, transposed, along x only. */
CLONED static void NAMED(first_rows)(const Scattering *task, const REAL *spectra, int64_t j,
                                     int64_t job, const GRID *grid, const DESK *desk) {
    FOR_OWN(row, grid->y.n) {
        NAMED(fold_lanes)(task, spectra, task->first + j, job, row, desk->rows, desk->line);
        COMPLEX *to = desk->waves + row;
        NAMED(transform)(&grid->x, &desk->line->im, &desk->line->re, &to->im, &to->re, grid->column,
                         desk->spare);
    }
}

CLONED static void NAMED(second_rows)(const Bank *bank, const GRID *finer, const GRID *grid, int64_t l,
                                      int64_t stop, int64_t size, const DESK *desk) {
    FOR_OWN(row, grid->y.n)
        for (int64_t k = l; k < stop; k++) {
            NAMED(fold_half)(desk->spectrum, finer, bank, k, row, desk->line);
            COMPLEX *to = desk->waves + (k - l) * size + row;
            NAMED(transform)(&grid->x, &desk->line->im, &desk->line->re, &to->im, &to->re,
                             grid->column, desk->spare);
        }
}

/* Along y: the averages of moduli or rectifiers; `keep`: moduli take the place of waves. */
CLONED static void NAMED(columns)(COMPLEX *waves, const GRID *grid, const Average *averages,
                                  int64_t phases, int keep, const DESK *desk) {
    const int64_t ny = grid->y.n, nx = grid->x.n, outputs = averages[0].count * averages[1].count;
    const REAL unit = (REAL)(1.0 / (double)(nx * ny));
    VEC *u = desk->extended - averages[0].first;
    memset(desk->sums, 0, outputs * (phases ? phases : 1) * sizeof(VEC));
    FOR_OWN(x, nx) {
        COMPLEX *column = waves + x * grid->column, *z = desk->line;
        NAMED(transform)(&grid->y, &column->im, &column->re, &z->im, &z->re, 1, desk->spare);
        for (int64_t a = 0; a < phases; a++) {
            const double angle = 2 * PI * (double)a / (double)phases;
            NAMED(rectified)(z, u, ny, unit * (REAL)cos(angle), unit * (REAL)sin(angle));
            NAMED(average)(averages, averages + 1, ny, nx, x, desk->extended, desk->averaged,
                           desk->sums + a * outputs);
        }
        if (phases && !keep) continue;
        NAMED(moduli)(z, u, ny, unit);
        if (keep) memcpy(column, u, ny * sizeof(VEC));
        if (!phases)
            NAMED(average)(averages, averages + 1, ny, nx, x, desk->extended, desk->averaged,
                           desk->sums);
    }
}

/* The half spectrum of the moduli: two real columns in one transform along y, then along x. */
CLONED static void NAMED(half_columns)(const GRID *grid, const DESK *desk) {
    const int64_t ny = grid->y.n;
    FOR_OWN(pair, grid->x.n / 2) {
        const int64_t x = 2 * pair;
        const VEC *one = (const VEC *)(desk->waves + x * grid->column);
        const VEC *other = (const VEC *)(desk->waves + (x + 1) * grid->column);
        COMPLEX *z = desk->line;
        for (int64_t i = 0; i < ny; i++) z[i] = (COMPLEX){one[i], other[i]};
        NAMED(transform)(&grid->y, &z->re, &z->im, &z->re, &z->im, 1, desk->spare);
        for (int64_t k = 0; k <= ny / 2; k++) {
            const COMPLEX p = z[k], q = z[k ? ny - k : 0];
            COMPLEX *to = desk->spectrum + k * grid->row + x;
            to[0] = (COMPLEX){(REAL)0.5 * (p.re + q.re), (REAL)0.5 * (p.im - q.im)};
            to[1] = (COMPLEX){(REAL)0.5 * (p.im + q.im), (REAL)0.5 * (q.re - p.re)};
        }
    }
}

CLONED static void NAMED(half_rows)(const GRID *grid, const DESK *desk) {
    FOR_OWN(k, grid->y.n / 2 + 1) {
        COMPLEX *z = desk->spectrum + k * grid->row;
        NAMED(transform)(&grid->x, &z->re, &z->im, &z->re, &z->im, 1, desk->spare);
        z[grid->x.n] = z[0];
    }
}

/* First-order waves at scale j1 and averages of their moduli or rectifiers; `deeper`: also the half
 * spectrum of the moduli, for the second order. */
static void NAMED(first_order)(const Scattering *task, const REAL *spectra, const GRID *grid,
                               int64_t j1, int64_t job, int64_t phases, int deeper,
                               const DESK *desk) {
    NAMED(first_rows)(task, spectra, j1, job, grid, desk);
    NAMED(meet)(desk);
    NAMED(columns)(desk->waves, grid, task->averages + 2 * j1, phases, deeper, desk);
    NAMED(meet)(desk);
    if (!deeper) return;
    NAMED(half_columns)(grid, desk);
    NAMED(meet)(desk);
    NAMED(half_rows)(grid, desk);
}

/* Columns of second-order waves, transformed along x, become gradients of these. */
CLONED static void NAMED(second_columns_back)(COMPLEX *waves, const GRID *grid,
                                              const Average *averages, const DESK *desk) {
    const int64_t ny = grid->y.n, nx = grid->x.n;
    const REAL unit = (REAL)(1.0 / (double)(nx * ny));
    VEC *u = desk->extended;
    for (int64_t x = 0; x < nx; x++) {
        COMPLEX *column = waves + x * grid->column, *z = desk->line;
        NAMED(transform)(&grid->y, &column->im, &column->re, &z->im, &z->re, 1, desk->spare);
        memset(u, 0, ny * sizeof(VEC));
        NAMED(spread)(averages, averages + 1, ny, nx, x, u, desk->averaged, desk->sums);
        NAMED(slopes)(z, u, z, ny, unit);
        NAMED(transform)(&grid->y, &z->re, &z->im, &column->re, &column->im, 1, desk->spare);
    }
}

/* Rows of these gradients, transformed back along x, are added to that of the half spectrum. */
CLONED static void NAMED(second_rows_back)(const COMPLEX *waves, const Bank *bank, const GRID *finer,
                                           const GRID *grid, int64_t l, const DESK *desk) {
    COMPLEX *z = desk->line;
    for (int64_t row = 0; row < grid->y.n; row++) {
        for (int64_t x = 0; x < grid->x.n; x++) z[x] = waves[x * grid->column + row];
        NAMED(transform)(&grid->x, &z->re, &z->im, &z->re, &z->im, 1, desk->spare);
        NAMED(unfold_half)(desk->gradient, finer, bank, l, row, z);
    }
}

/* Two columns of the gradient of moduli from that of their half spectrum, transformed along x. */
CLONED static void NAMED(real_columns)(const GRID *grid, int64_t x, const DESK *desk) {
    const int64_t ny = grid->y.n;
    COMPLEX *z = desk->line;
    const REAL half = (REAL)0.5;
    for (int64_t k = 0; k <= ny / 2; k++) {
        const COMPLEX *g = desk->gradient + k * grid->row + x, a = g[0], b = g[1];
        if (k % (ny / 2)) {
            z[k] = (COMPLEX){half * (a.re - b.im), half * (a.im + b.re)};
            z[ny - k] = (COMPLEX){half * (a.re + b.im), half * (b.re - a.im)};
        } else {
            z[k] = (COMPLEX){a.re, b.re};
        }
    }
    NAMED(transform)(&grid->y, &z->im, &z->re, &z->im, &z->re, 1, desk->spare);
    for (int64_t i = 0; i < ny; i++) desk->pair[i] = z[i].re, desk->pair[ny + i] = z[i].im;
}

CLONED static void NAMED(first_columns_back)(const GRID *grid, const Average *averages,
                                             int64_t phases, int deeper, const DESK *desk) {
    const int64_t ny = grid->y.n, nx = grid->x.n, outputs = averages[0].count * averages[1].count;
    const REAL unit = (REAL)(1.0 / (double)(nx * ny));
    COMPLEX *z = desk->line, *slope = desk->slope;
    for (int64_t x = 0; x < nx; x++) {
        if (deeper && x % 2 == 0) NAMED(real_columns)(grid, x, desk);
        VEC *u = desk->pair + x % 2 * ny;
        if (!deeper) memset(u, 0, ny * sizeof(VEC));
        COMPLEX *column = desk->waves + x * grid->column;
        NAMED(transform)(&grid->y, &column->im, &column->re, &z->im, &z->re, 1, desk->spare);
        if (!phases)
            NAMED(spread)(averages, averages + 1, ny, nx, x, u, desk->averaged, desk->sums);
        NAMED(slopes)(z, u, slope, ny, unit);
        for (int64_t a = 0; a < phases; a++) {
            const double angle = 2 * PI * (double)a / (double)phases;
            memset(desk->extended, 0, ny * sizeof(VEC));
            NAMED(spread)(averages, averages + 1, ny, nx, x, desk->extended, desk->averaged,
                          desk->sums + a * outputs);
            NAMED(rectified_slopes)(z, desk->extended, slope, ny, unit * (REAL)cos(angle),
                                    unit * (REAL)sin(angle));
        }
        NAMED(transform)(&grid->y, &slope->re, &slope->im, &column->re, &column->im, 1, desk->spare);
    }
}

CLONED static void NAMED(first_rows_back)(const Scattering *task, REAL *spectra, int64_t j,
                                          int64_t job, int64_t lanes, const GRID *grid,
                                          const DESK *desk) {
    COMPLEX *z = desk->line;
    for (int64_t row = 0; row < grid->y.n; row++) {
        for (int64_t x = 0; x < grid->x.n; x++) z[x] = desk->waves[x * grid->column + row];
        NAMED(transform)(&grid->x, &z->re, &z->im, &z->re, &z->im, 1, desk->spare);
        NAMED(unfold_lanes)(task, spectra, task->first + j, job, lanes, row, desk->rows, z);
    }
}

/* Gradients of moduli's half spectra, transformed along x for the way back along y. */
CLONED static void NAMED(half_rows_back)(const GRID *grid, const DESK *desk) {
    for (int64_t k = 0; k <= grid->y.n / 2; k++) {
        COMPLEX *z = desk->gradient + k * grid->row;
        z[0].re += z[grid->x.n].re, z[0].im += z[grid->x.n].im;
        NAMED(transform)(&grid->x, &z->im, &z->re, &z->im, &z->re, 1, desk->spare);
    }
}

/* Where the coefficients of these jobs begin: at `start` in an image, and `each` for an angle. */
static void NAMED(places)(const Scattering *task, REAL *out, int64_t job, int64_t lanes,
                          int64_t start, int64_t each, REAL **to) {
    const int64_t size = task->averages[0].count * task->averages[1].count;
    for (int64_t lane = 0; lane < lanes; lane++) {
        const int64_t image = (job + lane) / task->L, l = (job + lane) % task->L;
        to[lane] = out + (image * task->coefficients + start + l * each) * size;
    }
}

/* The first coefficient of order 2 that follows scale j1. */
static int64_t NAMED(start)(const Scattering *task, int64_t j1) {
    int64_t start = 1 + task->J * task->L * (task->phases ? task->phases : 1);
    for (int64_t j = 0; j < j1; j++) start += task->L * task->L * (task->J - 1 - j);
    return start;
}

/* Write fields of averages, each a sum over the team's columns, and advance `to`. */
static void NAMED(write)(const DESK *desk, const Average *averages, int64_t fields, int64_t lanes,
                         REAL **to) {
    const int64_t outputs = averages[0].count * averages[1].count;
    VEC *sums = desk->sums;
    for (int64_t p = 1; p < desk->parts; p++)
        for (int64_t i = 0; i < fields * outputs; i++) sums[i] += desk->team[p].sums[i];
    for (; fields; fields--, sums += outputs) {
        NAMED(put)(sums, averages, averages + 1, lanes, to);
        for (int64_t lane = 0; lane < lanes; lane++) to[lane] += outputs;
    }
}

/* Coefficients of orders 1 and 2 of LANES jobs, pairs of image and angle, at scale j1. */
static void NAMED(paths)(const Scattering *task, const REAL *spectra, const GRID *grids, int64_t j1,
                         int64_t job, const DESK *desk, REAL *out) {
    const int64_t J = task->J, L = task->L, A = task->phases ? task->phases : 1;
    const int64_t jobs = task->images * L, lanes = jobs - job < LANES ? jobs - job : LANES;
    const Average *averages = task->averages + 2 * j1;
    const int deeper = task->order == 2 && j1 < J - 1;
    REAL *to[LANES];
    NAMED(first_order)(task, spectra, grids + j1, j1, job, task->phases, deeper, desk);
    NAMED(places)(task, out, job, lanes, 1 + j1 * L * A, A, to);
    if (!desk->part) NAMED(write)(desk, averages, A, lanes, to);
    NAMED(meet)(desk);
    NAMED(places)(task, out, job, lanes, NAMED(start)(task, j1), L * (J - 1 - j1), to);
    for (int64_t j2 = deeper ? j1 + 1 : J; j2 < J; j2++) {
        const GRID *grid = grids + j2;
        const int64_t size = grid->x.n * grid->column, fit = (int64_t)1 << 2 * (j2 - j1);
        for (int64_t l = 0, stop; l < L; l = stop) {
            stop = l + fit < L ? l + fit : L;
            NAMED(second_rows)(task->second + j1 * J + j2, grids + j1, grid, l, stop, size, desk);
            NAMED(meet)(desk);
            for (int64_t k = l; k < stop; k++) {
                COMPLEX *waves = desk->waves + (k - l) * size;
                NAMED(columns)(waves, grid, task->averages + 2 * j2, 0, 0, desk);
                NAMED(meet)(desk);
                if (!desk->part) NAMED(write)(desk, averages, 1, lanes, to);
                NAMED(meet)(desk);
            }
        }
    }
}

/* The gradient of `paths`, added to that of spectra, given that of the coefficients. */
static void NAMED(paths_back)(const Scattering *task, const REAL *spectra, const GRID *grids,
                              int64_t j1, int64_t job, const DESK *desk, REAL *out,
                              REAL *gradients) {
    const int64_t J = task->J, L = task->L, A = task->phases ? task->phases : 1;
    const int64_t jobs = task->images * L, lanes = jobs - job < LANES ? jobs - job : LANES;
    const GRID *finer = grids + j1;
    const Average *averages = task->averages + 2 * j1;
    const int64_t outputs = averages[0].count * averages[1].count;
    const int deeper = task->order == 2 && j1 < J - 1;
    REAL *to[LANES];
    if (deeper) {
        NAMED(first_order)(task, spectra, finer, j1, job, 0, 1, desk);
        memset(desk->gradient, 0, (finer->y.n / 2 + 1) * finer->row * sizeof(COMPLEX));
        NAMED(places)(task, out, job, lanes, NAMED(start)(task, j1), L * (J - 1 - j1), to);
        for (int64_t j2 = j1 + 1; j2 < J; j2++) {
            const Bank *bank = task->second + j1 * J + j2;
            const GRID *grid = grids + j2;
            const int64_t size = grid->x.n * grid->column, fit = (int64_t)1 << 2 * (j2 - j1);
            for (int64_t l = 0, stop; l < L; l = stop) {
                stop = l + fit < L ? l + fit : L;
                NAMED(second_rows)(bank, finer, grid, l, stop, size, desk);
                for (int64_t k = l; k < stop; k++) {
                    COMPLEX *waves = desk->waves + (k - l) * size;
                    NAMED(get)(desk->sums, averages, averages + 1, lanes, to);
                    NAMED(second_columns_back)(waves, grid, task->averages + 2 * j2, desk);
                    NAMED(second_rows_back)(waves, bank, finer, grid, k, desk);
                    for (int64_t lane = 0; lane < lanes; lane++) to[lane] += outputs;
                }
            }
        }
        NAMED(half_rows_back)(finer, desk);
    }
    NAMED(places)(task, out, job, lanes, 1 + j1 * L * A, A, to);
    for (int64_t a = 0; a < A; a++) {
        NAMED(get)(desk->sums + a * outputs, averages, averages + 1, lanes, to);
        for (int64_t lane = 0; lane < lanes; lane++) to[lane] += outputs;
    }
    NAMED(first_rows)(task, spectra, j1, job, finer, desk);
    NAMED(first_columns_back)(finer, averages, task->phases, deeper, desk);
    NAMED(first_rows_back)(task, gradients, j1, job, lanes, finer, desk);
}

#define TAKE(field, type, count)                                       \
    (desk->field = (type *)(memory + used), used += (((count) * (int64_t)sizeof(type) + 63) / 64) * 64)

/* Lay out the fields of one thread or of a team; return how many bytes they take. */
static int64_t NAMED(lay_fields)(DESK *desk, char *memory, const Scattering *task,
                                 const GRID *grid, int back) {
    int64_t used = 0;
    /* where a scale has 4^d times fewer points, as many times more angles: */
    TAKE(waves, COMPLEX, grid->x.n * (grid->y.n + ((int64_t)1 << (task->J - 1))));
    TAKE(spectrum, COMPLEX, (grid->y.n / 2 + 1) * grid->row);
    TAKE(gradient, COMPLEX, back ? (grid->y.n / 2 + 1) * grid->row : 0);
    return used;
}

/* The same for what each thread has to itself. */
static int64_t NAMED(lay_lines)(DESK *desk, char *memory, const Scattering *task,
                                const GRID *grid) {
    const int64_t ny = grid->y.n, nx = grid->x.n, n = ny > nx ? ny : nx;
    const int64_t outputs = task->averages[0].count * task->averages[1].count;
    int64_t used = 0;
    TAKE(line, COMPLEX, n);
    TAKE(slope, COMPLEX, n);
    TAKE(spare, COMPLEX, 2 * n);
    TAKE(extended, VEC, 4 * ny);
    TAKE(averaged, VEC, ny);
    TAKE(sums, VEC, (task->phases ? task->phases : 1) * outputs);
    TAKE(rows, REAL, 2 * nx * LANES);
    TAKE(pair, VEC, 2 * ny);
    return used;
}

#undef TAKE

/* Whether threads share fields: large ones, and smaller ones if there are fewer of them than
 * threads. For gradients they never do: each thread adds to an array of its own. */
static int NAMED(together)(const Scattering *task, int64_t bytes, int back, int threads) {
#ifdef _OPENMP
    const int64_t tiles = (task->images * task->L + LANES - 1) / LANES;
    return !back && threads > 1 && bytes > (tiles < threads ? APART / 4 : APART);
#else
    return 0;
#endif
}

/* Lay out what so many threads work on and in; return how many bytes that is. */
static int64_t NAMED(lay)(DESK *desks, char *memory, const Scattering *task, const GRID *grid,
                          int back, int threads) {
    DESK one;
    const int64_t fields = NAMED(lay_fields)(&one, NULL, task, grid, back);
    const int64_t lines = NAMED(lay_lines)(&one, NULL, task, grid);
    const int shared = NAMED(together)(task, fields + lines, back, threads);
    const int64_t behind = (shared ? 1 : threads) * fields;
    for (int64_t thread = 0; desks && thread < threads; thread++) {
        DESK *desk = desks + thread;
        NAMED(lay_fields)(desk, memory + (shared ? 0 : thread) * fields, task, grid, back);
        NAMED(lay_lines)(desk, memory + behind + thread * lines, task, grid);
        desk->part = 0, desk->parts = shared ? threads : 1, desk->team = desks;
    }
    return behind + threads * lines;
}

/* Bytes that so many threads work in, or -1 if a side has a large prime factor or there are too
 * many scales. */
int64_t NAMED(scattering_bytes)(const Scattering *task, int64_t back, int threads) {
    const int64_t rows = task->height, columns = task->width / 2;
    PLAN y, x;
    const int good = NAMED(plan)(&y, rows) & NAMED(plan)(&x, columns) & (task->J <= SCALES);
    GRID grid = {y, x, rows + 1, columns + 2};
    free(y.twiddles), free(x.twiddles);
    return good ? NAMED(lay)(NULL, NULL, task, &grid, back != 0, threads) : -1;
}

/* out (image, coefficient, y', x'), all but order 0, from spectra of images. Or, given `gradients`
 * (thread, image, y, x), which are 0 to begin with: those of spectra, from those of coefficients in
 * `out`. `memory` is as large as `scattering_bytes` says. Each thread does the same every time, so
 * that sums do not depend on chance. */
int NAMED(scattering)(const REAL *spectra, const Scattering *task, REAL *out, REAL *gradients,
                      char *memory, int threads) {
    const int64_t tiles = (task->images * task->L + LANES - 1) / LANES;
    const int64_t size = task->images * task->height * task->width;
    const int back = gradients != NULL;
    DESK *desks = malloc(threads * sizeof(DESK));
    GRID grids[SCALES];
    int good = desks != NULL;
    for (int64_t j = 0; j < task->J; j++) {
        const Bank *s = task->first + j;
        good &= NAMED(plan)(&grids[j].y, s->rows) & NAMED(plan)(&grids[j].x, s->columns / 2);
        grids[j].column = s->rows + 1, grids[j].row = s->columns / 2 + 2;
    }
    if (good) NAMED(lay)(desks, memory, task, grids, back, threads);
    if (good && desks->parts > 1) {
#pragma omp parallel num_threads(threads)
        {
            DESK *desk = desks + this_thread();
            desk->part = this_thread(), desk->parts = all_threads();
            for (int64_t t = 0; t < tiles * task->J; t++)
                NAMED(paths)(task, spectra, grids, t / tiles, t % tiles * LANES, desk, out);
        }
    } else {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static, 1)
        for (int64_t thread = 0; thread < (good ? threads : 0); thread++)
            for (int64_t t = thread; t < tiles * task->J; t += threads) {
                const int64_t j = t / tiles, job = t % tiles * LANES;
                if (back)
                    NAMED(paths_back)(task, spectra, grids, j, job, desks + thread, out,
                                      gradients + thread * size);
                else NAMED(paths)(task, spectra, grids, j, job, desks + thread, out);
            }
    }
    for (int64_t j = 0; j < task->J; j++) free(grids[j].y.twiddles), free(grids[j].x.twiddles);
    free(desks);
    return good;
}

#undef PLAN
#undef AT
#undef DESK
#undef FOR_OWN
#undef GRID
#endif
