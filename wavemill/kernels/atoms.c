/* Gaussians times solid harmonics about atoms, squared and summed over m: what
 * wavemill/molecules/solid_gaussians.py does with torch. */
#ifndef REAL

#include "kernels.h"

#define LOOPS "atoms.c"
#include "precisions.h"

#else /* one precision */

#include "monomials.h"

/* Atoms that reach a sheet of points, in the order in which they are reached along x: which they
 * are, the points of a row that each reaches, numbers (power of z, field, atom) and vectors (tile,
 * atom, power). Then those of them that reach a row: numbers (power of x, power of y and field,
 * atom), and where their vectors are. */
typedef struct {
    int64_t *atoms, *where;
    Span *spans, *reached, *along;
    REAL *at_z, *numbers;
    VEC *x, *monomials;
    int64_t room, near, count;
} NAMED(Row);

#define ROW NAMED(Row)

INLINE void NAMED(reach_sheet)(const REAL *weights, const AXES *axes, const Solid *s,
                               const int32_t *order, int64_t z, ROW *row) {
    const int64_t powers = s->degree + 1, nx = s->new[2], pair = PAIR * LANES;
    row->near = 0;
    for (int64_t i = 0; i < s->sources; i++) {
        const int64_t atom = order[i], k = row->near;
        const REAL *at_z = axes->at[0] + atom * s->new[0] + z;
        const REAL *from = axes->at[2] + atom * nx;
        Span span = axes->spans[2][atom];
        if (*at_z <= FAR || span.first >= span.last) continue;
        if (k && span.last < row->spans[k - 1].last) span.last = row->spans[k - 1].last;
        row->atoms[k] = atom, row->spans[k] = span, row->near++;
        for (int64_t c = 0; c < powers; c++)
            for (int64_t n = 0; n < s->fields; n++)
                row->at_z[(c * s->fields + n) * row->room + k] =
                    at_z[c * axes->powers[0]] * weights[n * s->sources + atom];
        for (int64_t x = span.first / pair * pair; x < nx && x / pair * pair < span.last; x += LANES)
            for (int64_t a = 0; a < powers; a++) {
                VEC *to = row->x + (x / LANES * row->room + k) * powers + a;
                const REAL *start = from + a * axes->powers[2] + x;
                *to = (VEC){0};
                if (nx - x >= LANES) *to = LOOSE(start);
                else memcpy(to, start, (nx - x) * sizeof(REAL));
            }
    }
}

INLINE void NAMED(reach_row)(const AXES *axes, const Solid *s, int64_t y, ROW *row) {
    const int64_t powers = s->degree + 1, nx = s->new[2], pair = PAIR * LANES;
    row->count = 0;
    for (int64_t i = 0; i < row->near; i++) {
        const REAL *at_y = axes->at[1] + row->atoms[i] * s->new[1] + y;
        if (*at_y <= FAR) continue;
        row->reached[row->count] = row->spans[i];
        row->where[row->count] = i * powers;
        REAL *to = row->numbers + row->count++;
        for (int64_t a = 0; a < powers; a++)
            for (int64_t b = 0; b < powers - a; b++) {
                const REAL *at_z = row->at_z + (s->degree - a - b) * s->fields * row->room + i;
                for (int64_t n = 0; n < s->fields; n++, to += row->room)
                    *to = at_y[b * axes->powers[1]] * at_z[n * row->room];
            }
    }
    for (int64_t x = 0; x < nx; x += pair) {
        Span k = {0, row->count};
        while (k.first < k.last && row->reached[k.first].last <= x) k.first++;
        while (k.last > k.first && row->reached[k.last - 1].first >= x + pair) k.last--;
        row->along[x / pair] = k;
    }
}

/* One sheet of the squares of all fields of a molecule, (field, z, y, x). */
CLONED static void NAMED(about_atoms)(const REAL *weights, const AXES *axes, const TERM *terms,
                                      const Solid *s, const int32_t *order, int64_t z, ROW row,
                                      REAL *out) {
    const int64_t powers = s->degree + 1, nx = s->new[2], tiles = (nx + LANES - 1) / LANES;
    NAMED(reach_sheet)(weights, axes, s, order, z, &row);
    for (int64_t y = 0; y < s->new[1]; y++) {
        NAMED(reach_row)(axes, s, y, &row);
        VEC *to = row.monomials;
        const REAL *numbers = row.numbers;
        for (int64_t a = 0; a < powers; a++)
            for (int64_t left = (powers - a) * s->fields; left > 0; left -= ROWS) {
                const int64_t rows = left < ROWS ? left : ROWS;
                NAMED(product)((NUMBERS){numbers, row.room, 1},
                               (LINES){row.x + a, row.room * powers, 0, row.where}, row.along, 1,
                               (LINES){to, tiles, 1, NULL}, rows, tiles);
                numbers += rows * row.room, to += rows * tiles;
            }
        for (int64_t n = 0; n < s->fields; n++)
            for (int64_t tile = 0; tile < tiles; tile += SOME) {
                const int64_t left = nx - tile * LANES;
                VEC total[SOME];
                NAMED(squares)(terms, s, row.monomials + n * tiles + tile, s->fields * tiles, total,
                               SOME);
                memcpy(out + ((n * s->new[0] + z) * s->new[1] + y) * nx + tile * LANES, total,
                       (left < SOME * LANES ? left : SOME * LANES) * sizeof(REAL));
            }
    }
}

/* Puts atoms in the order in which they are reached along x. */
static void NAMED(sort)(const Span *spans, int64_t n, int32_t *order) {
    for (int64_t i = 0; i < n; i++) {
        int64_t k = i;
        for (; k > 0 && spans[order[k - 1]].first > spans[i].first; k--) order[k] = order[k - 1];
        order[k] = (int32_t)i;
    }
}

/* out (molecule, field, z, y, x) from weights (molecule, field, atom), lines along z, y and x
 * (power, molecule, atom, point) and C (m, monomial), whose monomials are ordered by a, then b;
 * returns whether there was memory */
int NAMED(square_about_atoms)(const REAL *weights, const REAL *along_z, const REAL *along_y,
                              const REAL *along_x, const REAL *C, const Solid *s, REAL *out,
                              int threads) {
    const REAL *lines[3] = {along_z, along_y, along_x};
    const int64_t atoms = s->sources, powers = s->degree + 1;
    const int64_t whole = s->fields * s->new[0] * s->new[1] * s->new[2];
    AXES *axes = malloc(s->molecules * sizeof(*axes));
    Span *spans = malloc(s->molecules * atoms * sizeof(*spans));
    int32_t *order = malloc(s->molecules * atoms * sizeof(*order));
    TERM *terms = NAMED(terms)(C, s);
    int good = axes && spans && order && terms;
    for (int64_t g = 0; good && g < s->molecules; g++) {
        for (int axis = 0; axis < 3; axis++) {
            axes[g].at[axis] = lines[axis] + g * atoms * s->new[axis];
            axes[g].powers[axis] = s->molecules * atoms * s->new[axis];
        }
        axes[g].spans[2] = spans + g * atoms;
        for (int64_t i = 0; i < atoms; i++)
            spans[g * atoms + i] = NAMED(reach)(axes[g].at[2] + i * s->new[2], 1, 0, s->new[2]);
        NAMED(sort)(spans + g * atoms, atoms, order + g * atoms);
    }
    const int64_t tiles = (s->new[2] + LANES - 1) / LANES, vectors = tiles * atoms * powers;
    const int64_t monomials = s->monomials * s->fields * tiles + SOME;
    const int64_t values = (powers + s->monomials) * s->fields * atoms;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        ROW row = {.room = atoms};
        row.x = good ? aligned_alloc(WIDTH, (vectors + monomials) * WIDTH) : NULL;
        row.at_z = malloc(values * sizeof(REAL));
        row.spans = malloc((2 * atoms + tiles) * sizeof(Span));
        row.atoms = malloc(2 * atoms * sizeof(int64_t));
        const int able = row.x && row.at_z && row.spans && row.atoms;
        if (able) {
            row.monomials = row.x + vectors, row.numbers = row.at_z + powers * s->fields * atoms;
            row.reached = row.spans + atoms, row.along = row.reached + atoms;
            row.where = row.atoms + atoms;
        } else good = 0;
#pragma omp for schedule(dynamic)
        for (int64_t job = 0; job < s->molecules * s->new[0]; job++) {
            const int64_t g = job / s->new[0];
            if (able)
                NAMED(about_atoms)(weights + g * s->fields * atoms, axes + g, terms, s,
                                   order + g * atoms, job % s->new[0], row, out + g * whole);
        }
        free(row.x), free(row.at_z), free(row.spans), free(row.atoms);
    }
    free(axes), free(spans), free(order), free(terms);
    return good;
}

#endif
