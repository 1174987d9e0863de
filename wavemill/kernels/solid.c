/* Fields convolved with Gaussians times solid harmonics, squared and summed over m, and integrals of
 * powers: wavemill/molecules/solid_gaussians.py explains the former, and does the same in torch.
 *
 * Each vector of points along x is computed from all points that reach it; what is held between its
 * sums fits the second cache. */
#ifndef REAL

#include "kernels.h"

/* Rows of points, of which powers are integrated. */
typedef struct { int64_t sheets, rows, points, powers; } Integrals;

#define LOOPS "solid.c"
#include "precisions.h"

#else /* one precision */

#include "monomials.h"

#undef POW
#ifdef SINGLE
#define POW powf
#else
#define POW pow
#endif

/* What one thread works with. */
typedef struct { VEC *x, *lines, *sheets, *monomials; } NAMED(Desk);

#define DESK NAMED(Desk)

static int64_t NAMED(blocks)(const Solid *s, int axis) {
    const int64_t each = axis == 2 ? LANES : ROWS;
    return (s->new[axis] + each - 1) / each;
}

/* out, (z', y', x' of one vector), of field (z, y, x) */
CLONED static void NAMED(convolve)(const REAL *field, const AXES *axes, const TERM *terms,
                                   const Solid *s, int64_t tile, DESK desk, REAL *out) {
    const int64_t z = s->old[0], y = s->old[1], x = s->old[2], new_z = s->new[0], new_y = s->new[1];
    const int64_t powers = s->degree + 1, P = s->monomials, start = tile * LANES;
    const int64_t lanes = s->new[2] - start < LANES ? s->new[2] - start : LANES;
    const Span along = axes->spans[2][tile];
    for (int64_t k = along.first; k < along.last; k++)
        for (int64_t a = 0; a < powers; a++) {
            VEC *to = desk.x + k * powers + a;
            *to = (VEC){0};
            for (int64_t i = 0; i < lanes; i++)
                VALUE(to, i) = axes->at[2][a * axes->powers[2] + (start + i) * x + k];
        }
    for (int64_t sheet = 0; sheet < z; sheet++) {
        for (int64_t j = 0; j < y; j += ROWS)
            NAMED(product)((NUMBERS){field + sheet * s->sheet + j * s->row, s->row, 1},
                           (LINES){desk.x, 1, powers, NULL}, &along, 0,
                           (LINES){desk.lines + j * powers, powers, 1, NULL},
                           y - j < ROWS ? y - j : ROWS, powers);
        for (int64_t b = 0, k = 0; b < powers; k += powers - b++)
            for (int64_t j = 0; j < new_y; j += ROWS)
                NAMED(product)((NUMBERS){axes->at[1] + b * axes->powers[1] + j * y, y, 1},
                               (LINES){desk.lines, 1, powers, NULL}, axes->spans[1] + j / ROWS, 0,
                               (LINES){desk.sheets + (j * P + k) * z + sheet, P * z, z, NULL},
                               new_y - j < ROWS ? new_y - j : ROWS, powers - b);
    }
    for (int64_t j = 0; j < new_y; j += PAIR)
        for (int64_t i = 0; i < new_z; i += ROWS) {
            const int64_t vectors = new_y - j < PAIR ? new_y - j : PAIR;
            const int64_t rows = new_z - i < ROWS ? new_z - i : ROWS;
            for (int64_t b = 0, k = 0; b < powers; b++)
                for (int64_t a = 0; a < powers - b; a++, k++)
                    NAMED(product)((NUMBERS){axes->at[0] + (s->degree - a - b) * axes->powers[0] +
                                             i * z, z, 1},
                                   (LINES){desk.sheets + (j * P + k) * z, P * z, 1, NULL},
                                   axes->spans[0] + i / ROWS, 0,
                                   (LINES){desk.monomials + k * BLOCK, PAIR, 1, NULL}, rows, vectors);
            VEC total[BLOCK];
            NAMED(squares)(terms, s, desk.monomials, BLOCK, total, BLOCK);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t v = 0; v < vectors; v++)
                    memcpy(out + ((i + r) * new_y + j + v) * s->new[2] + start,
                           total + r * PAIR + v, lanes * sizeof(REAL));
        }
}

/* out (molecule, field, z', y', x') from fields (molecule, field, z, y, x), matrices along z, y and
 * x (power, molecule, new, old) and C (m, monomial), whose monomials are ordered by b, then a;
 * returns whether there was memory */
int NAMED(square_convolved)(const REAL *field, const REAL *along_z, const REAL *along_y,
                            const REAL *along_x, const REAL *C, const Solid *s, REAL *out,
                            int threads) {
    const REAL *matrices[3] = {along_z, along_y, along_x};
    const int64_t tiles = NAMED(blocks)(s, 2), powers = s->degree + 1;
    const int64_t count = NAMED(blocks)(s, 0) + NAMED(blocks)(s, 1) + tiles;
    const int64_t parts[4] = {s->old[2] * powers, s->old[1] * powers,
                              s->new[1] * s->monomials * s->old[0], s->monomials * BLOCK};
    AXES *axes = malloc(s->molecules * sizeof(*axes));
    Span *spans = malloc(s->molecules * count * sizeof(*spans));
    TERM *terms = NAMED(terms)(C, s);
    int good = axes && spans && terms;
    for (int64_t g = 0; good && g < s->molecules; g++) {
        Span *next = spans + g * count;
        for (int axis = 0; axis < 3; axis++) {
            const int64_t old = s->old[axis], new = s->new[axis], each = axis == 2 ? LANES : ROWS;
            axes[g].at[axis] = matrices[axis] + g * new * old;
            axes[g].powers[axis] = s->molecules * new * old;
            axes[g].spans[axis] = next;
            for (int64_t i = 0; i < new; i += each)
                *next++ = NAMED(reach)(axes[g].at[axis] + i * old, new - i < each ? new - i : each,
                                       old, old);
        }
    }
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        VEC *room = good ? aligned_alloc(WIDTH, (parts[0] + parts[1] + parts[2] + parts[3]) * WIDTH)
                         : NULL;
        if (!room) good = 0;
        const DESK desk = {room, room + parts[0], room + parts[0] + parts[1],
                           room + parts[0] + parts[1] + parts[2]};
#pragma omp for schedule(dynamic)
        for (int64_t job = 0; job < s->molecules * s->fields * tiles; job++) {
            const int64_t n = job / tiles, g = n / s->fields;
            const REAL *from = field + g * s->molecule + n % s->fields * s->field;
            REAL *to = out + n * s->new[0] * s->new[1] * s->new[2];
            if (room) NAMED(convolve)(from, axes + g, terms, s, job % tiles, desk, to);
        }
        free(room);
    }
    free(axes), free(spans), free(terms);
    return good;
}

INLINE VEC NAMED(root)(VEC x) {
    for (int64_t lane = 0; lane < LANES; lane++) VALUE(&x, lane) = ROOT(x[lane]);
    return x;
}

/* Adds the powers of the roots of some vectors to sums in single lanes. */
INLINE void NAMED(add_powers)(const VEC *square, const VEC *root, int64_t n, double q, VEC *sum) {
    if (q == 0.5)
        for (int64_t i = 0; i < n; i++) *sum += NAMED(root)(root[i]);
    else if (q == 1)
        for (int64_t i = 0; i < n; i++) *sum += root[i];
    else if (q == 2)
        for (int64_t i = 0; i < n; i++) *sum += square[i];
    else if (q == 3)
        for (int64_t i = 0; i < n; i++) *sum += square[i] * root[i];
    else
        for (int64_t i = 0; i < n; i++)
            for (int64_t lane = 0; lane < LANES; lane++)
                if (square[i][lane] != 0) VALUE(sum, lane) += POW(root[i][lane], (REAL)q);
}

/* Roots of one sheet, and integrals of their powers. */
CLONED static void NAMED(integrate)(const REAL *square, const double *powers, const Integrals *s,
                                    REAL *root, double *out) {
    const int64_t points = s->rows * s->points;
    for (int64_t i = 0; i < s->powers; i++) out[i] = 0;
    for (int64_t first = 0; first < points; first += BLOCK * LANES) {
        const int64_t n = points - first < BLOCK * LANES ? points - first : BLOCK * LANES;
        const int64_t vectors = (n + LANES - 1) / LANES;
        VEC squares[BLOCK], roots[BLOCK];
        squares[vectors - 1] = (VEC){0};
        memcpy(squares, square + first, n * sizeof(REAL));
        for (int64_t i = 0; i < vectors; i++) roots[i] = NAMED(root)(squares[i]);
        memcpy(root + first, roots, n * sizeof(REAL));
        for (int64_t i = 0; i < s->powers; i++) {
            VEC sum = {0};
            NAMED(add_powers)(squares, roots, vectors, powers[i], &sum);
            for (int64_t lane = 0; lane < LANES; lane++) out[i] += sum[lane];
        }
    }
}

/* out (sheet, power) of squares (sheet, row, point), and their roots */
int NAMED(integrals)(const REAL *square, const double *powers, const Integrals *s, REAL *root,
                     double *out, int threads) {
    const int64_t points = s->rows * s->points;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < s->sheets; i++)
        NAMED(integrate)(square + i * points, powers, s, root + i * points, out + i * s->powers);
    return 1;
}

#endif
