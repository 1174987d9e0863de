/* Includes LOOPS, the file that includes this, once more for each precision. */
#define REAL float
#define SINGLE
#include "vectors.h"
#include LOOPS
#undef REAL
#undef SINGLE

#define REAL double
#include "vectors.h"
#include LOOPS
