/* Sums over points, or over frequencies, of products of all channels of some stacks with all of the
 * last one, part by part, and gradients of these: what GramBlock of wavemill/moments/covariances.py
 * does with torch. A tile of all channels is read once for all products. */
#ifndef REAL

#include "kernels.h"

/* Channels of a stack, (field, channel, y, x), each complex, of two parts, or real, of one; numbers
 * of parts are rounded up to blocks. */
typedef struct { int64_t channels, complex, height, width; } Stack;

/* Stacks that meet the last of them in a box common to all. */
typedef struct {
    int64_t fields, rows, columns, stacks;
    const Stack *stack;
} Products;

/* Covariances to be taken: the four products of parts that each is made of, (row * columns + column)
 * of all, what each adds to (re, im), and signs of gradients of the parts of the stacks, and of those
 * of the last. */
typedef struct {
    int64_t count;
    const int64_t *places;
    const void *weights, *signs, *last_signs;
} Covariances;

#define TILE 16 /* vectors of points at once */
#define BLOCK 4 /* parts whose sums are in registers, */
#define PAIR 2  /* with so many vectors of gradients */
#define PARTS 16 /* of all points that are added up apart, whatever the number of threads */

#define LOOPS "products.c"
#include "precisions.h"

#else /* one precision */

/* A part of a channel at a tile. */
typedef struct { VEC at[TILE]; } NAMED(Piece);

#define PIECE NAMED(Piece)

INLINE int64_t NAMED(points)(const Products *task) { return task->rows * task->columns; }

/* Parts of a stack, rounded up to blocks. */
INLINE int64_t NAMED(parts)(const Stack *stack) {
    return (stack->channels * (stack->complex ? 2 : 1) + BLOCK - 1) / BLOCK * BLOCK;
}

/* Parts of all stacks but the last, and of the last. */
INLINE int64_t NAMED(rows)(const Products *task) {
    int64_t rows = 0;
    for (int64_t s = 0; s + 1 < task->stacks; s++) rows += NAMED(parts)(task->stack + s);
    return rows;
}

INLINE int64_t NAMED(columns)(const Products *task) {
    return NAMED(parts)(task->stack + task->stacks - 1);
}

/* Where point k of the common box lies in a channel, and how many follow it in memory. */
INLINE int64_t NAMED(place)(const Products *task, const Stack *stack, int64_t k, int64_t *follow) {
    const int64_t y = k / task->columns, x = k % task->columns, half = task->columns / 2;
    *follow = (x > half ? task->columns : half + 1) - x;
    return (y > task->rows / 2 ? y + stack->height - task->rows : y) * stack->width +
           (x > half ? x + stack->width - task->columns : x);
}

/* `count` points from k on of a field's channels; 0 after them. */
INLINE void NAMED(read_tile)(const Products *task, const Stack *stack, const REAL *at,
                             int64_t field, int64_t k, int64_t count, PIECE *pieces) {
    const int64_t each = stack->complex ? 2 : 1, size = each * stack->height * stack->width;
    if (count < TILE * LANES) memset(pieces, 0, NAMED(parts)(stack) * sizeof(PIECE));
    at += field * stack->channels * size;
    for (int64_t c = 0; c < stack->channels; c++, at += size, pieces += each)
        for (int64_t done = 0, n; done < count; done += n) {
            const REAL *from = at + each * NAMED(place)(task, stack, k + done, &n);
            REAL *restrict re = (REAL *)pieces[0].at + done;
            REAL *restrict im = (REAL *)pieces[each - 1].at + done;
            n = n < count - done ? n : count - done;
            if (each == 1) memcpy(re, from, n * sizeof(REAL));
            else
                for (int64_t i = 0; i < n; i++) re[i] = from[2 * i], im[i] = from[2 * i + 1];
        }
}

/* A tile of all stacks. */
CLONED static void NAMED(read_tiles)(const Products *task, const REAL *const *at, int64_t field,
                                     int64_t k, int64_t count, PIECE *pieces) {
    for (int64_t s = 0; s < task->stacks; s++) {
        NAMED(read_tile)(task, task->stack + s, at[s], field, k, count, pieces);
        pieces += NAMED(parts)(task->stack + s);
    }
}

/* Writes a tile of a channel's gradient, or adds it. */
INLINE void NAMED(write_tile)(const Products *task, const Stack *stack, const PIECE *pieces,
                              int64_t k, int64_t count, int64_t fresh, REAL *channel) {
    const int64_t each = stack->complex ? 2 : 1;
    for (int64_t done = 0, n; done < count; done += n) {
        REAL *restrict to = channel + each * NAMED(place)(task, stack, k + done, &n);
        const REAL *re = (const REAL *)pieces[0].at + done;
        const REAL *im = (const REAL *)pieces[each - 1].at + done;
        n = n < count - done ? n : count - done;
        if (each == 1 && fresh) memcpy(to, re, n * sizeof(REAL));
        else if (each == 1)
            for (int64_t i = 0; i < n; i++) to[i] += re[i];
        else if (fresh)
            for (int64_t i = 0; i < n; i++) to[2 * i] = re[i], to[2 * i + 1] = im[i];
        else
            for (int64_t i = 0; i < n; i++) to[2 * i] += re[i], to[2 * i + 1] += im[i];
    }
}

/* sums (part of a, part of b) += a b */
CLONED static void NAMED(meet)(const PIECE *a, int64_t rows, const PIECE *b, int64_t columns,
                               VEC *sums) {
    for (int64_t r = 0; r < rows; r += BLOCK)
        for (int64_t c = 0; c < columns; c += BLOCK) {
            VEC sum[BLOCK][BLOCK] = {{{0}}};
            for (int64_t i = 0; i < TILE; i++)
                for (int p = 0; p < BLOCK; p++)
                    for (int q = 0; q < BLOCK; q++) sum[p][q] += a[r + p].at[i] * b[c + q].at[i];
            for (int p = 0; p < BLOCK; p++)
                for (int q = 0; q < BLOCK; q++) sums[(r + p) * columns + c + q] += sum[p][q];
        }
}

/* out = BLOCK rows of a matrix times the parts of a stack */
INLINE void NAMED(spread)(const REAL *matrix, const PIECE *parts, int64_t count, PIECE *out) {
    for (int64_t i = 0; i < TILE; i += PAIR) {
        VEC sum[BLOCK][PAIR] = {{{0}}};
        for (int64_t k = 0; k < count; k++)
            for (int p = 0; p < BLOCK; p++)
                for (int v = 0; v < PAIR; v++)
                    sum[p][v] += matrix[p * count + k] * parts[k].at[i + v];
        for (int p = 0; p < BLOCK; p++)
            for (int v = 0; v < PAIR; v++) out[p].at[i + v] = sum[p][v];
    }
}

/* A tile of one stack's gradient: rows of a matrix times parts. */
CLONED static void NAMED(pull_tile)(const Products *task, const Stack *stack, const REAL *matrix,
                                    const PIECE *parts, int64_t columns, int64_t field, int64_t k,
                                    int64_t count, int64_t fresh, REAL *gradient) {
    const int64_t each = stack->complex ? 2 : 1, size = each * stack->height * stack->width;
    PIECE out[BLOCK];
    for (int64_t r = 0; r < each * stack->channels; r += BLOCK) {
        NAMED(spread)(matrix + r * columns, parts, columns, out);
        for (int64_t p = 0; p < BLOCK && r + p < each * stack->channels; p += each)
            NAMED(write_tile)(task, stack, out + p, k, count, fresh,
                              gradient + (field * stack->channels + (r + p) / each) * size);
    }
}

/* Numbers that a thread works in: pieces, and its sums. */
#define PIECES ((rows + columns) * (int64_t)sizeof(PIECE))
#define OWN (PIECES + rows * columns * (int64_t)sizeof(VEC))

/* Bytes that so many threads work in: each of its own, then sums of parts, and three matrices. */
int64_t NAMED(products_bytes)(const Products *task, int threads) {
    const int64_t rows = NAMED(rows)(task), columns = NAMED(columns)(task);
    return threads * OWN + (PARTS + 3) * rows * columns * (int64_t)sizeof(REAL);
}

/* Tiles of a part. */
#define OWN_TILES(k, count, part, parts)                                                       \
    for (int64_t tile = TILE * LANES, all = (NAMED(points)(task) + tile - 1) / tile,           \
                 k = all * (part) / (parts) * tile, end = all * ((part) + 1) / (parts) * tile, \
                 count;                                                                        \
         count = NAMED(points)(task) - k < tile ? NAMED(points)(task) - k : tile, k < end;     \
         k += tile)

/* The sums over all points of a field's products, (row, column), by all threads of a team. */
INLINE void NAMED(sum_products)(const Products *task, const REAL *const *at, int64_t field,
                                int64_t rows, int64_t columns, PIECE *a, VEC *vectors, REAL *parts,
                                REAL *sums) {
    const int64_t all = rows * columns;
#pragma omp for schedule(static, 1)
    for (int64_t part = 0; part < PARTS; part++) {
        memset(vectors, 0, all * sizeof(VEC));
        OWN_TILES(k, count, part, PARTS) {
            NAMED(read_tiles)(task, at, field, k, count, a);
            NAMED(meet)(a, rows, a + rows, columns, vectors);
        }
        for (int64_t i = 0; i < all; i++) {
            REAL sum = 0;
            for (int64_t lane = 0; lane < LANES; lane++) sum += vectors[i][lane];
            parts[part * all + i] = sum;
        }
    }
#pragma omp for
    for (int64_t i = 0; i < all; i++) {
        REAL sum = 0;
        for (int64_t part = 0; part < PARTS; part++) sum += parts[part * all + i];
        sums[i] = sum;
    }
}

/* out (covariance), complex, of a field's sums; with `factor` also the matrices that parts of the
 * last stack are multiplied by for the gradients of the others, and those of these for its own. */
INLINE void NAMED(take_covariances)(const Covariances *wanted, const REAL *sums, int64_t rows,
                                    int64_t columns, const REAL *factor, const REAL *offset,
                                    REAL *out, REAL *matrix, REAL *to_last) {
    const REAL *weight = wanted->weights, *sign = wanted->signs, *last_sign = wanted->last_signs;
    if (factor) memset(matrix, 0, rows * columns * sizeof(REAL));
    for (int64_t m = 0; m < wanted->count; m++) {
        const int64_t *place = wanted->places + 4 * m;
        REAL c[2] = {0}, g[2];
        for (int i = 0; i < 4; i++)
            for (int part = 0; part < 2; part++)
                c[part] += weight[8 * m + 2 * i + part] * sums[place[i]];
        for (int part = 0; part < 2; part++) out[2 * m + part] = c[part];
        if (!factor) continue;
        for (int part = 0; part < 2; part++)
            g[part] = factor[2 * m + part] * c[part] - offset[2 * m + part];
        for (int i = 0; i < 4; i++)
            matrix[place[i]] += weight[8 * m + 2 * i] * g[0] + weight[8 * m + 2 * i + 1] * g[1];
    }
    for (int64_t r = 0; factor && r < rows; r++)
        for (int64_t i = 0; i < columns; i++) {
            const REAL value = matrix[r * columns + i];
            matrix[r * columns + i] = value * sign[r], to_last[i * rows + r] = value * last_sign[i];
        }
}

/* Adds the gradients of a field's stacks, or writes them where `fresh`: a team's own part. */
INLINE void NAMED(pull_products)(const Products *task, const REAL *const *at, int64_t field,
                                 int64_t rows, int64_t columns, PIECE *a, const REAL *matrix,
                                 const REAL *to_last, REAL *const *gradients, const int64_t *fresh) {
    const int64_t part = this_thread(), parts = all_threads(), last = task->stacks - 1;
    OWN_TILES(k, count, part, parts) {
        const REAL *own = matrix;
        NAMED(read_tiles)(task, at, field, k, count, a);
        for (int64_t s = 0; s < last; s++) {
            NAMED(pull_tile)(task, task->stack + s, own, a + rows, columns, field, k, count,
                             fresh[s], gradients[s]);
            own += NAMED(parts)(task->stack + s) * columns;
        }
        NAMED(pull_tile)(task, task->stack + last, to_last, a, rows, field, k, count, fresh[last],
                         gradients[last]);
    }
}

/* out (field, covariance), complex; with `factor` also the gradients of all stacks, added, or
 * written where `fresh`, of a loss whose gradient by a covariance c is factor c - offset, part by
 * part. Offsets of fields are `step` numbers apart. */
int NAMED(products)(const REAL *const *at, const Products *task, const Covariances *wanted,
                    REAL *out, const REAL *factor, const REAL *offset, int64_t step,
                    REAL *const *gradients, const int64_t *fresh, char *memory, int threads) {
    const int64_t rows = NAMED(rows)(task), columns = NAMED(columns)(task), all = rows * columns;
    const int64_t own = OWN, pieces = PIECES, team = NAMED(points)(task) > 1 << 12 ? threads : 1;
    REAL *parts = (REAL *)(memory + team * own), *sums = parts + PARTS * all;
    REAL *matrix = sums + all, *to_last = matrix + all;
#pragma omp parallel num_threads(team) if (team > 1)
    {
        PIECE *a = (PIECE *)(memory + this_thread() * own);
        memset(a, 0, pieces);
        for (int64_t f = 0; f < task->fields; f++) {
            NAMED(sum_products)(task, at, f, rows, columns, a, (VEC *)((char *)a + pieces), parts,
                                sums);
#pragma omp single
            NAMED(take_covariances)(wanted, sums, rows, columns, factor,
                                    factor ? offset + f * step : NULL, out + f * 2 * wanted->count,
                                    matrix, to_last);
            if (factor)
                NAMED(pull_products)(task, at, f, rows, columns, a, matrix, to_last, gradients,
                                     fresh);
        }
    }
    return 1;
}

#undef OWN
#undef PIECES
#undef OWN_TILES
#undef PIECE
#endif
