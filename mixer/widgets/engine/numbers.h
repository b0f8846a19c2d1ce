// Numbers of the engine: vectors of four, elementary functions, the matrix product, random numbers, and memory.
//
// Every operation is one that IEEE 754 rounds in one way alone (+ - * / and the square root), in a fixed order, so that
// every browser computes the same bits. For this reason nothing here comes from a mathematical library.

typedef unsigned char byte;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef DOUBLE  // for the test by finite differences, compiled natively
#include <math.h>
typedef double real;
#else
typedef float real;
#endif
typedef real vec __attribute__((ext_vector_type(4), aligned(sizeof(real))));  // at any address of a real

#ifdef __wasm__
#define EXPORT(name) __attribute__((export_name(#name))) name
#else
#define EXPORT(name) name
#endif

static vec splat(real x) { return (vec)x; }
static vec load(const real *p) { return *(const vec *)p; }
static void store(real *p, vec x) { *(vec *)p = x; }
static real sum_of(vec x) { return (x[0] + x[1]) + (x[2] + x[3]); }
static int min(int a, int b) { return a < b ? a : b; }

// ---------------------------------------------------------------------------------------------------- memory

#ifdef __wasm__
extern byte __heap_base;
#define PAGE 65536
static byte *heap_begin(void) { return &__heap_base; }
static int heap_reaches(u64 end) {
    u64 size = (u64)__builtin_wasm_memory_size(0) * PAGE;
    return end <= size || __builtin_wasm_memory_grow(0, (end - size + PAGE - 1) / PAGE) != (__SIZE_TYPE__)-1;
}
#else
static byte heap[1 << 28];
static byte *heap_begin(void) { return heap; }
static int heap_reaches(u64 end) { return end <= (u64)(heap + sizeof heap); }
#endif

static byte *heap_end;
static int out_of_memory;

// Memory for so many bytes, all 0, until the next call of `reset`.
byte *EXPORT(reserve)(u32 n_bytes) {
    byte *begin = heap_end;
    u64 end = (u64)begin + ((u64)n_bytes + 15) / 16 * 16;
    if (out_of_memory || !heap_reaches(end)) {
        out_of_memory = 1;
        return 0;
    }
    heap_end = (byte *)end;
    __builtin_memset(begin, 0, n_bytes);
    return begin;
}

static real *reserve_reals(u64 n) {
    if (n * sizeof(real) < 1u << 31) return (real *)reserve(n * sizeof(real));
    out_of_memory = 1;
    return 0;
}

// ---------------------------------------------------------------------------------------------------- functions

// Eight numbers at once: the constants of the functions below are then loaded half as often.
typedef real wide __attribute__((ext_vector_type(8), aligned(sizeof(real))));
#define INLINE static inline __attribute__((always_inline))

// Numbers that the functions need, not static, so that they are loaded: a browser builds a constant anew at each use,
// which is slower.
real constants[] = {
    1.44269504088896341, 12582912, 0.693359375, -2.12194440e-4, -87, 88, 1,
    1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1,
    0.3275911, 1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592,
    0.7071067811865476, 0.3989422804014327, 0.5, -0.5,
};
enum { LOG2_E, MAGIC, LN2_HIGH, LN2_LOW, LOWEST, HIGHEST, ONE, EXP, ERF = EXP + 6, ROOT_HALF = ERF + 6, DENSITY, HALF,
       MINUS_HALF };

INLINE wide constant(int i) { return (wide)constants[i]; }

// eˣ. Source: the coefficients of expf in S. Moshier's Cephes library.
INLINE wide exp_of(wide x) {
#ifdef DOUBLE
    for (int i = 0; i < 8; i++) x[i] = exp(x[i]);
    return x;
#else
    typedef int ints __attribute__((ext_vector_type(8)));
    wide low = constant(LOWEST), high = constant(HIGHEST);
    x = x > high ? high : x, x = x < low ? low : x;
    wide moved = x * constant(LOG2_E) + constant(MAGIC), n = moved - constant(MAGIC);  // an integer
    wide r = x - n * constant(LN2_HIGH) - n * constant(LN2_LOW);
    wide p = constant(EXP);
    for (int i = 1; i < 6; i++) p = p * r + constant(EXP + i);
    ints power = ((ints)moved << 23) + (127 << 23);
    return (p * r * r + r + constant(ONE)) * (wide)power;
#endif
}

// The error function of x ≥ 0, given e^(-x²), to 1.5e-7. Source: Abramowitz and Stegun, formula 7.1.26.
INLINE wide erf_of(wide x, wide power) {
#ifdef DOUBLE
    for (int i = 0; i < 8; i++) x[i] = erf(x[i]);
    return x;
#else
    wide t = constant(ONE) / (constant(ONE) + constant(ERF) * x);
    wide p = constant(ERF + 1);
    for (int i = 2; i < 6; i++) p = p * t + constant(ERF + i);
    return constant(ONE) - p * t * power;
#endif
}

// GELU and its derivative; exact, or by the tanh approximation.
INLINE wide gelu_of(wide x, int by_tanh, wide *slope) {
    wide half = constant(HALF);
    if (by_tanh) {
        wide inner = (real)0.7978845608028654 * (x + (real)0.044715 * x * x * x);
        wide tanh = constant(ONE) - 2 / (exp_of(inner + inner) + constant(ONE));
        wide inside = (real)0.7978845608028654 * (constant(ONE) + (real)(3 * 0.044715) * x * x);
        *slope = half * (constant(ONE) + tanh) + half * x * (constant(ONE) - tanh * tanh) * inside;
        return half * x * (constant(ONE) + tanh);
    }
    wide power = exp_of(constant(MINUS_HALF) * x * x);
    wide part = half * erf_of(__builtin_elementwise_abs(x) * constant(ROOT_HALF), power);
    wide share = half + (x < 0 ? -part : part);  // of a normal distribution below x
    *slope = share + x * power * constant(DENSITY);
    return x * share;
}

// GELU of one number, for the figures.
real EXPORT(gelu)(real x, int by_tanh) {
    wide slope;
    return gelu_of((wide)x, by_tanh, &slope)[0];
}

// The natural logarithm of x > 0, by the series of the inverse hyperbolic tangent.
static double log_of(double x) {
    union { double x; u64 bits; } number = {x};
    int exponent = (int)(number.bits >> 52) - 1023;
    number.bits = (number.bits & 0xfffffffffffffull) | 1023ull << 52;  // from 1 to 2
    double z = (number.x - 1.5) / (number.x + 1.5), square = z * z, sum = 0;
    for (int k = 25; k > 0; k -= 2) sum = sum * square + 1.0 / k;
    return exponent * 0.6931471805599453 + 0.4054651081081644 + 2 * z * sum;
}

// The sine of x, |x| ≤ π/2, by its series.
static double sin_of(double x) {
    double sum = 1;
    for (int k = 21; k > 1; k -= 2) sum = 1 - sum * x * x / (k * (k - 1));
    return x * sum;
}

// ---------------------------------------------------------------------------------------------------- matrix product

#define DEPTH 256  // products that are added up at once, so that what they need stays in the cache

// Four rows of a times the eight columns that lie side by side in `panel`, in c or added to it; a row that a has no more
// is the last one again.
static void tile(int K, const real *a, int am, int ak, int height, const real *panel, real *c, int cm, int is_added) {
    const real *a0 = a, *a1 = a + min(1, height - 1) * am, *a2 = a + min(2, height - 1) * am, *a3 = a + min(3, height - 1) * am;
    vec s0 = splat(0), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
    if (is_added) {
        s0 = load(c), s1 = load(c + 4), s2 = load(c + cm), s3 = load(c + cm + 4);
        s4 = load(c + 2 * cm), s5 = load(c + 2 * cm + 4), s6 = load(c + 3 * cm), s7 = load(c + 3 * cm + 4);
    }
    for (int k = 0; k < K; k++, panel += 8, a0 += ak, a1 += ak, a2 += ak, a3 += ak) {
        vec left = load(panel), right = load(panel + 4);
        s0 += splat(*a0) * left, s1 += splat(*a0) * right;
        s2 += splat(*a1) * left, s3 += splat(*a1) * right;
        s4 += splat(*a2) * left, s5 += splat(*a2) * right;
        s6 += splat(*a3) * left, s7 += splat(*a3) * right;
    }
    store(c, s0), store(c + 4, s1), store(c + cm, s2), store(c + cm + 4, s3);
    store(c + 2 * cm, s4), store(c + 2 * cm + 4, s5), store(c + 3 * cm, s6), store(c + 3 * cm + 4, s7);
}

// Eight columns of b, from K rows, side by side; columns that b has no more are 0.
static void pack(int K, int width, const real *b, int bk, int bn, real *panel) {
    for (int k = 0; k < K; k++, b += bk, panel += 8) {
        if (width == 8 && bn == 1) {
            store(panel, load(b)), store(panel + 4, load(b + 4));
            continue;
        }
        for (int n = 0; n < 8; n++) panel[n] = n < width ? b[n * bn] : 0;
    }
}

// Products of rows, whose elements lie side by side: of two of a with four of b, in c or added to it.
static void dots(int K, const real *a, int am, const real *b, int bn, real *c, int cm, int is_added) {
    const real *a1 = a + am, *b1 = b + bn, *b2 = b1 + bn, *b3 = b2 + bn;
    vec s0 = splat(0), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
    int k = 0;
    for (; k + 4 <= K; k += 4) {
        vec x = load(a + k), y = load(a1 + k), z = load(b + k);
        s0 += x * z, s4 += y * z;
        z = load(b1 + k), s1 += x * z, s5 += y * z;
        z = load(b2 + k), s2 += x * z, s6 += y * z;
        z = load(b3 + k), s3 += x * z, s7 += y * z;
    }
    vec first = {sum_of(s0), sum_of(s1), sum_of(s2), sum_of(s3)}, second = {sum_of(s4), sum_of(s5), sum_of(s6), sum_of(s7)};
    for (; k < K; k++) {
        vec column = {b[k], b1[k], b2[k], b3[k]};
        first += splat(a[k]) * column, second += splat(a1[k]) * column;
    }
    store(c, is_added ? load(c) + first : first), store(c + cm, is_added ? load(c + cm) + second : second);
}

// c[m, n] = Σ a[m, k]·b[k, n], or added to what c holds. Element [m, k] of a stands at a[m·am + k·ak], and so for b.
static void product(int M, int N, int K, const real *a, int am, int ak, const real *b, int bk, int bn, real *c, int cm,
                    int is_added) {
    static real panel[DEPTH * 8], edge[4 * 8];
    if (ak == 1 && bk == 1 && K >= DEPTH && M % 2 == 0 && N % 4 == 0) {  // nothing to pack
        for (int m = 0; m < M; m += 2)
            for (int n = 0; n < N; n += 4) dots(K, a + m * am, am, b + n * bn, bn, c + m * cm + n, cm, is_added);
        return;
    }
    for (int k0 = 0; k0 < K; k0 += DEPTH, is_added = 1) {
        int depth = min(DEPTH, K - k0);
        for (int n = 0; n < N; n += 8) {
            int width = min(8, N - n);
            pack(depth, width, b + k0 * bk + n * bn, bk, bn, panel);
            for (int m = 0; m < M; m += 4) {
                int height = min(4, M - m), is_whole = height == 4 && width == 8;
                real *out = c + m * cm + n;
                tile(depth, a + m * am + k0 * ak, am, ak, height, panel, is_whole ? out : edge, is_whole ? cm : 8,
                     is_whole && is_added);
                for (int i = 0; i < height && !is_whole; i++)
                    for (int j = 0; j < width; j++) out[i * cm + j] = edge[8 * i + j] + (is_added ? out[i * cm + j] : 0);
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------- random numbers

typedef struct { u64 state, step; } Random;

// The next 32 random bits. Source: M. O'Neill 2014, "PCG", the generator pcg32.
static u32 bits(Random *random) {
    u64 old = random->state;
    random->state = old * 6364136223846793005ull + random->step;
    u32 mixed = (u32)(((old >> 18) ^ old) >> 27), turn = (u32)(old >> 59);
    return mixed >> turn | mixed << (-turn & 31);
}

static Random seeded(u32 seed, u32 stream) {
    Random random = {0, (u64)stream << 1 | 1};
    bits(&random);
    random.state += seed;
    bits(&random);
    return random;
}

static real uniform(Random *random, real low, real high) {
    return low + (high - low) * ((real)(bits(random) >> 8) / 16777216);
}

static u32 below(Random *random, u32 n) { return (u32)((u64)bits(random) * n >> 32); }
