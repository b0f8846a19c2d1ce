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

// Numbers that the functions need, four times each and not static, so that one instruction loads them: a browser builds a
// constant anew at each use, which is slower.
#define FOUR(x) {x, x, x, x}
real constants[][4] = {
    FOUR(12582912), FOUR(-126), FOUR(127), FOUR(1.44269504088896341), FOUR(-0.72134752044448170), FOUR(1),
    FOUR(6.93147206e-1), FOUR(2.40226469e-1), FOUR(5.55032878e-2), FOUR(9.61848896e-3), FOUR(1.33999314e-3), FOUR(1.53458120e-4),
    FOUR(0.2316418893), FOUR(0.127414796), FOUR(-0.142248368), FOUR(0.7107068705), FOUR(-0.7265760135), FOUR(0.5307027145),
    FOUR(0.3989422804014327), FOUR(0.5),
};
enum { MAGIC, LOWEST, HIGHEST, LOG2_E, MINUS_HALF_LOG2_E, ONE, POWER, TAIL = POWER + 6, DENSITY = TAIL + 6, HALF };

INLINE wide constant(int i) {
    vec x = load(constants[i]);
    return __builtin_shufflevector(x, x, 0, 1, 2, 3, 0, 1, 2, 3);
}

// 2ˣ for x ≤ 127; below -126, that of -126. By the polynomial of degree 6 with the least relative error, 2e-9.
INLINE wide power_of_two(wide x) {
#ifdef DOUBLE
    for (int i = 0; i < 8; i++) x[i] = exp2(x[i]);
    return x;
#else
    typedef int ints __attribute__((ext_vector_type(8)));
    wide low = constant(LOWEST);
    x = x < low ? low : x;
    wide moved = x + constant(MAGIC), r = x - (moved - constant(MAGIC));  // r: from the nearest integer
    ints power = ((ints)moved << 23) + (127 << 23);
    wide low_part = constant(POWER) + constant(POWER + 1) * r, middle = constant(POWER + 2) + constant(POWER + 3) * r;
    wide square = r * r, high_part = constant(POWER + 4) + constant(POWER + 5) * r;
    return (constant(ONE) + r * (low_part + square * (middle + square * high_part))) * (wide)power;
#endif
}

INLINE wide exp_of(wide x) {
    wide y = x * constant(LOG2_E), high = constant(HIGHEST);
    return power_of_two(y > high ? high : y);
}

// The share of a normal distribution above x ≥ 0, given e^(-x²/2), to 1e-7. Source: Abramowitz and Stegun, 26.2.17.
INLINE wide tail_of(wide x, wide power) {
#ifdef DOUBLE
    for (int i = 0; i < 8; i++) x[i] = erfc(x[i] / sqrt(2)) / 2;
    return x;
#else
    wide t = constant(ONE) / (constant(ONE) + constant(TAIL) * x), square = t * t;
    wide low = constant(TAIL + 1) + constant(TAIL + 2) * t, middle = constant(TAIL + 3) + constant(TAIL + 4) * t;
    return power * t * (low + square * (middle + square * constant(TAIL + 5)));
#endif
}

// GELU and its derivative; exact, or by the tanh approximation.
INLINE wide gelu_of(wide x, int by_tanh, wide *slope) {
    if (by_tanh) {
        wide half = constant(HALF);
        wide inner = (real)0.7978845608028654 * (x + (real)0.044715 * x * x * x);
        wide tanh = constant(ONE) - 2 / (exp_of(inner + inner) + constant(ONE));
        wide inside = (real)0.7978845608028654 * (constant(ONE) + (real)(3 * 0.044715) * x * x);
        *slope = half * (constant(ONE) + tanh) + half * x * (constant(ONE) - tanh * tanh) * inside;
        return half * x * (constant(ONE) + tanh);
    }
    wide power = power_of_two(constant(MINUS_HALF_LOG2_E) * x * x);
    wide tail = tail_of(__builtin_elementwise_abs(x), power);
    wide share = x < 0 ? tail : constant(ONE) - tail;  // of a normal distribution below x
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

#define DEPTH 256    // products that are added up at once, and
#define PACKED 4096  // numbers of b that are packed at once, so that what they need stays in the cache

// Four rows of a times the eight columns that lie side by side in `panel`, or the first four, in c or added to it.
INLINE void tile(int K, const real *a, int am, int ak, const real *panel, real *c, int cm, int is_added, int is_half) {
    const real *a1 = a + am, *a2 = a1 + am, *a3 = a2 + am;
    vec s0 = splat(0), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
    if (is_added) s0 = load(c), s2 = load(c + cm), s4 = load(c + 2 * cm), s6 = load(c + 3 * cm);
    if (is_added && !is_half) s1 = load(c + 4), s3 = load(c + cm + 4), s5 = load(c + 2 * cm + 4), s7 = load(c + 3 * cm + 4);
    for (int k = 0; k < K; k++) {
        vec left = load(panel), right = is_half ? left : load(panel + 4);
        s0 += splat(*a) * left, s2 += splat(*a1) * left, s4 += splat(*a2) * left, s6 += splat(*a3) * left;
        if (!is_half) s1 += splat(*a) * right, s3 += splat(*a1) * right, s5 += splat(*a2) * right, s7 += splat(*a3) * right;
        panel += 8, a += ak, a1 += ak, a2 += ak, a3 += ak;
    }
    store(c, s0), store(c + cm, s2), store(c + 2 * cm, s4), store(c + 3 * cm, s6);
    if (!is_half) store(c + 4, s1), store(c + cm + 4, s3), store(c + 2 * cm + 4, s5), store(c + 3 * cm + 4, s7);
}

// Columns of b, from K rows, in panels of eight; columns that b has no more are 0.
static void pack(int K, int N, const real *b, int bk, int bn, real *panels) {
    for (int k = 0; k < K; k++, b += bk, panels += 8) {
        int n = 0;
        for (; n + 8 <= N && bn == 1; n += 8) store(panels + n * K, load(b + n)), store(panels + n * K + 4, load(b + n + 4));
        if (bn == 1 && n + 4 == N) store(panels + n * K, load(b + n)), n = N;  // of half a tile, the rest is not read
        for (; n < N; n += 8)
            for (int i = 0; i < 8; i++) panels[n * K + i] = n + i < N ? b[(n + i) * bn] : 0;
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

// A tile with fewer rows or columns. Of fewer than four rows, one at a time passes, four times the same.
static void edge(int M, int N, int K, const real *a, int am, int ak, const real *panel, real *c, int cm, int is_added) {
    static real out[4 * 8];
    for (int m = 0, height = M == 4 ? 4 : 1; m < M; m += height) {
        tile(K, a + m * am, M == 4 ? am : 0, ak, panel, out, 8, 0, 0);
        for (int i = 0; i < height; i++)
            for (int n = 0; n < N; n++) c[(m + i) * cm + n] = out[8 * i + n] + (is_added ? c[(m + i) * cm + n] : 0);
    }
}

static void half(int K, const real *a, int am, int ak, const real *panel, real *c, int cm, int is_added) {
    tile(K, a, am, ak, panel, c, cm, is_added, 1);
}

// Rows of a times the packed columns of b. Two calls of `tile`, so that the step from one number of a to the next is 1.
static void product_of_packed(int M, int N, int K, const real *a, int am, int ak, const real *panels, real *c, int cm,
                              int is_added) {
    for (int m = 0; m < M; m += 4, a += 4 * am, c += 4 * cm)
        for (int n = 0; n < N; n += 8) {
            const real *panel = panels + n * K;
            int height = min(4, M - m), width = min(8, N - n);
            if (height < 4 || width % 4) edge(height, width, K, a, am, ak, panel, c + n, cm, is_added);
            else if (width == 4) half(K, a, am, ak, panel, c + n, cm, is_added);
            else if (ak == 1) tile(K, a, am, 1, panel, c + n, cm, is_added, 0);
            else tile(K, a, 1, ak, panel, c + n, cm, is_added, 0);
        }
}

// c[m, n] = Σ a[m, k]·b[k, n], or added to what c holds. Element [m, k] of a stands at a[m·am + k·ak], of which one is 1,
// and so for b.
static void product(int M, int N, int K, const real *a, int am, int ak, const real *b, int bk, int bn, real *c, int cm,
                    int is_added) {
    static real panels[PACKED];
    if (ak == 1 && bk == 1 && K >= DEPTH && M % 2 == 0 && N % 4 == 0) {  // nothing to pack
        for (int n = 0; n < N; n += 4)
            for (int m = 0; m < M; m += 2) dots(K, a + m * am, am, b + n * bn, bn, c + m * cm + n, cm, is_added);
        return;
    }
    for (int k = 0; k < K; k += DEPTH, is_added = 1) {
        int depth = min(DEPTH, K - k), most = PACKED / depth / 8 * 8;
        for (int n = 0; n < N; n += most) {
            int width = min(most, N - n);
            pack(depth, width, b + k * bk + n * bn, bk, bn, panels);
            product_of_packed(M, width, depth, a + k * ak, am, ak, panels, c + n, cm, is_added);
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
