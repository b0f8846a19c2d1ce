// Engine of the live figures: trains and runs an MLP-Mixer in the page. Compiled to engine.wasm by `make engine`.
//
// JavaScript writes sizes, images and settings, and calls what is exported; the result of a call depends on nothing
// else, so that a run replays bit for bit.

#include "network.h"

// How to train, written by JavaScript in this order. Names as in mixer/recipe.py.
static struct {
    int n_train, batch_size, n_steps, by_sgd, seed, random_changes;
    float lr, weight_decay, label_smoothing, warm_up, clip, affine;  // warm_up < 0: no schedule; clip 0: none
    float mean[3], std[3];
} recipe;

static byte *images, *labels;  // uint8 [N, colours, height, width], and [N]
static int *pixel_order;       // where each pixel comes from, [height·width]
static u32 *order;             // of the training images in the epoch under way
static real *picture, *first_moment, *second_moment;
static double power1, power2;  // of Adam's two decays
static int step, n_correct;
static double loss_sum;
static float *shares, *losses;  // of the images that were evaluated last

static double schedule(void) {
    if (recipe.warm_up < 0) return 1;
    double wanted = (double)recipe.n_steps * recipe.warm_up;
    int n = (int)(wanted + 0.5), whole = (int)wanted;
    if (wanted - whole == 0.5) n = whole + (whole & 1);  // to even, as Python rounds
    if (n < 1) n = 1;
    if (step < n) return (step + 1.0) / n;
    int rest = recipe.n_steps - n;
    double done = (step - n) / (double)(rest < 1 ? 1 : rest), half = 1.5707963267948966;
    double sine = sin_of(done < 0.5 ? half * done : half * (1 - done));
    return done < 0.5 ? 1 - sine * sine : sine * sine;  // half of 1 + cos(π · done)
}

// Memory for so many images, after `configure`; 1, or 0 if it does not suffice.
int EXPORT(prepare)(int n) {
    int n_positions = size.height * size.width;
    images = reserve(n * size.colours * n_positions), labels = reserve(n);
    pixel_order = (int *)reserve(n_positions * sizeof(int)), order = (u32 *)reserve(n * sizeof(u32));
    picture = reserve_reals(size.colours * n_positions);
    first_moment = reserve_reals(n_parameters), second_moment = reserve_reals(n_parameters);
    shares = (float *)reserve(n * size.classes * sizeof(float)), losses = (float *)reserve(n * sizeof(float));
    for (int i = 0; i < n_positions && !out_of_memory; i++) pixel_order[i] = i;
    return !out_of_memory;
}

// Fresh weights as PyTorch draws them, uniform up to 1/√n_in, and no step taken.
void EXPORT(start)(void) {
    Random random = seeded(recipe.seed, 0);
    for (int i = 0; i < n_tensors; i++)
        for (int k = 0; k < tensors[i].size; k++) {
            float bound = tensors[i].bound;
            params[tensors[i].at + k] = bound < 0 ? 1 : bound ? uniform(&random, -bound, bound) : 0;
        }
    __builtin_memset(first_moment, 0, n_parameters * sizeof(real));
    __builtin_memset(second_moment, 0, n_parameters * sizeof(real));
    power1 = power2 = 1, step = n_correct = 0, loss_sum = 0;
}

// ---------------------------------------------------------------------------------------------------- images

// One channel of an image, at a place between its pixels; beyond its edge, the edge is repeated.
static real between(const byte *channel, real y, real x) {
    int H = size.height, W = size.width;
    y = y < 0 ? 0 : y > H - 1 ? H - 1 : y, x = x < 0 ? 0 : x > W - 1 ? W - 1 : x;
    int top = (int)y, left = (int)x, down = min(top + 1, H - 1), right = min(left + 1, W - 1);
    real v = y - top, u = x - left;
    real above = channel[top * W + left] * (1 - u) + channel[top * W + right] * u;
    real under = channel[down * W + left] * (1 - u) + channel[down * W + right] * u;
    return above * (1 - v) + under * v;
}

// An image turned, scaled, sheared and shifted at random, in `picture`: as `augment` in mixer/regularisation.py.
static void change_image(const byte *image, Random *random) {
    int H = size.height, W = size.width;
    real draws[5];
    for (int i = 0; i < 5; i++) draws[i] = recipe.affine * uniform(random, -1, 1);
    real angle = draws[0] * (real)0.2617993877991494, scale = 1 + (real)0.15 * draws[1], skew = (real)0.2 * draws[2];
    real sine = sin_of(angle), cosine = root(1 - sine * sine);
    real a[2][3] = {{cosine * scale, skew - sine * scale, (real)0.2 * draws[3]}, {sine * scale, cosine * scale, (real)0.2 * draws[4]}};
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) {
            real down = (real)(2 * y + 1) / H - 1, across = (real)(2 * x + 1) / W - 1;  // from -1 to 1
            real from_x = ((a[0][0] * across + a[0][1] * down + a[0][2] + 1) * W - 1) / 2;
            real from_y = ((a[1][0] * across + a[1][1] * down + a[1][2] + 1) * H - 1) / 2;
            for (int c = 0; c < size.colours; c++) picture[(c * H + y) * W + x] = between(image + c * H * W, from_y, from_x);
        }
}

// An image, normalised and cut into patches, as number b of n that pass together; changed at random, if wished.
static void put_image(const byte *image, int b, int n, Random *random) {
    int W = size.width, P = size.patch, n_positions = size.height * W;
    if (random) change_image(image, random);
    for (int c = 0; c < size.colours; c++)
        for (int i = 0; i < n_positions; i++) {
            int from = c * n_positions + pixel_order[i], y = i / W, x = i % W;
            real value = random ? picture[from] : image[from];
            real *patch = patches + ((u64)(y / P * columns + x / P) * n + b) * n_pixels;
            patch[(c * P + y % P) * P + x % P] = (value / 255 - recipe.mean[c]) / recipe.std[c];
        }
}

// The cross-entropy of image b of the pass, and in `target` its probabilities less what they should be.
static double cross_entropy(int b, int label, real smoothing, real *target) {
    int K = size.classes;
    const real *z = logits + b * K;
    real highest = z[0], total = 0, inner = 0;
    for (int k = 1; k < K; k++) highest = z[k] > highest ? z[k] : highest;
    for (int k = 0; k < K; k++) total += target[k] = exp_of((wide)(z[k] - highest))[0];
    for (int k = 0; k < K; k++) {
        real wanted = smoothing / K + (k == label ? 1 - smoothing : 0);
        inner += wanted * (z[k] - highest);
        target[k] = target[k] / total - wanted;
    }
    return log_of(total) - inner;
}

static int best_of(int b) {
    int best = 0;
    for (int k = 1; k < size.classes; k++) best = logits[b * size.classes + k] > logits[b * size.classes + best] ? k : best;
    return best;
}

// Probabilities and losses of images from `first` on, in `shares` and `losses`; the number of right answers.
int EXPORT(evaluate)(int first, int count) {
    int n_bytes = size.colours * size.height * size.width, K = size.classes, right = 0;
    make_matrices();
    for (int done = 0; done < count; done += size.batch) {
        int n = min(size.batch, count - done);
        for (int b = 0; b < n; b++) put_image(images + (u64)(first + done + b) * n_bytes, b, n, 0);
        forward(n);
        for (int b = 0; b < n; b++) {
            int label = labels[first + done + b];
            losses[done + b] = cross_entropy(b, label, 0, d_logits + b * K);
            right += best_of(b) == label;
            for (int k = 0; k < K; k++) shares[(done + b) * K + k] = d_logits[b * K + k] + (k == label);
        }
    }
    return right;
}

// ---------------------------------------------------------------------------------------------------- one step

// Losses and gradients of the images order[first …], which are the whole batch of a step.
static void learn(int first, int count) {
    int n_bytes = size.colours * size.height * size.width, K = size.classes;
    Random random = seeded(recipe.seed, 2 * step + 2);
    for (int done = 0; done < count; done += size.batch) {
        int n = min(size.batch, count - done);
        for (int b = 0; b < n; b++)
            put_image(images + (u64)order[first + done + b] * n_bytes, b, n, recipe.random_changes ? &random : 0);
        forward(n);
        for (int b = 0; b < n; b++) {
            int label = labels[order[first + done + b]];
            loss_sum += cross_entropy(b, label, recipe.label_smoothing, d_logits + b * K);
            n_correct += best_of(b) == label;
        }
        for (int i = 0; i < n * K; i++) d_logits[i] /= count;
        backward();
    }
}

static void clip(void) {
    double squares = 0;
    if (!(recipe.clip > 0)) return;
    for (int i = 0; i < n_parameters; i++) squares += (double)grads[i] * grads[i];
    double factor = recipe.clip / (__builtin_sqrt(squares) + 1e-6);
    for (int i = 0; factor < 1 && i < n_parameters; i++) grads[i] *= factor;
}

// Up to four numbers from an address, and back to it.
static vec load_some(const real *p, int n) {
    vec x = splat(0);
    if (n == 4) return load(p);
    for (int i = 0; i < n; i++) x[i] = p[i];
    return x;
}
static void store_some(real *p, vec x, int n) {
    if (n == 4) store(p, x);
    for (int i = 0; i < n && n < 4; i++) p[i] = x[i];
}

// AdamW, or plain gradient descent with the same decay of the weights.
static void update(void) {
    double lr = recipe.lr * schedule();
    power1 *= 0.9, power2 *= 0.999;
    vec keep1 = splat(0.9), keep2 = splat(0.999), add1 = splat(1 - 0.9), add2 = splat(1 - 0.999);
    vec rate = splat(recipe.by_sgd ? lr : lr / (1 - power1)), scale = splat(1 / __builtin_sqrt(1 - power2));
    for (int i = 0; i < n_tensors; i++) {
        if (tensors[i].frozen) continue;
        vec keep = splat(tensors[i].decays ? 1 - lr * recipe.weight_decay : 1);
        for (int k = 0; k < tensors[i].size; k += 4) {
            int at = tensors[i].at + k, width = min(4, tensors[i].size - k);
            vec g = load_some(grads + at, width), p = load_some(params + at, width) * keep;
            if (recipe.by_sgd) p -= rate * g;
            else {
                vec m = keep1 * load_some(first_moment + at, width) + add1 * g;
                vec v = keep2 * load_some(second_moment + at, width) + add2 * g * g;
                p -= rate * m / (__builtin_elementwise_sqrt(v) * scale + splat(1e-8f));
                store_some(first_moment + at, m, width), store_some(second_moment + at, v, width);
            }
            store_some(params + at, p, width);
        }
    }
}

// One step of training; 0 if the loss is no longer a number.
int EXPORT(train_step)(void) {
    int per_epoch = (recipe.n_train + recipe.batch_size - 1) / recipe.batch_size, number = step % per_epoch;
    if (number == 0) {
        Random random = seeded(recipe.seed, 2 * (step / per_epoch) + 1);
        for (int i = 0; i < recipe.n_train; i++) order[i] = i;
        for (int i = recipe.n_train - 1; i > 0; i--) {
            u32 j = below(&random, i + 1), other = order[j];
            order[j] = order[i], order[i] = other;
        }
        n_correct = 0, loss_sum = 0;
    }
    int first = number * recipe.batch_size;
    __builtin_memset(grads, 0, n_parameters * sizeof(real));
    make_matrices();
    learn(first, min(recipe.batch_size, recipe.n_train - first));
    if (loss_sum - loss_sum != 0) return 0;
    clip();
    update();
    step++;
    return 1;
}

// ---------------------------------------------------------------------------------------------------- for the figures

// The first image passes with the token mixing of the layers left out whose bit in `off` is set.
void EXPORT(run_one)(u32 off) {
    for (int i = 0; i < size.layers; i++) layers[i].is_off = off >> i & 1;
    make_matrices();
    put_image(images, 0, 1, 0);
    forward(1);
    cross_entropy(0, -1, 0, d_logits);
    for (int i = 0; i < size.layers; i++) layers[i].is_off = 0;
}

// The influence of every token on token t in a layer, for the image that passed alone: in d_normed, [n_tokens].
void EXPORT(influence)(int layer, int t) {
    int T = n_tokens, U = size.hidden_token, C = size.channels;
    const Mlp *mlp = &layers[layer].token;
    for (int s = 0; s < T && is_matrix(); s++) d_normed[s] = layers[layer].matrix[t * T + s];
    for (int s = 0; s < T && !has_hidden_token() && !is_matrix(); s++) d_normed[s] = 0;
    for (int s = 0; s < T && is_matrix(); s++) d_normed[s] = d_normed[s] < 0 ? -d_normed[s] : d_normed[s];
    for (int group = 0; group < 4 && size.token_mixing == SHIFT; group++) d_normed[source_of(t, group)] += (real)0.25;
    if (!has_hidden_token()) return;
    for (int u = 0; u < U; u++)
        for (int c = 0; c < C; c++) d_hidden[u * C + c] = params[mlp->weight2 + t * U + u] * mlp->slope[u * C + c];
    product(T, C, U, params + mlp->weight1, 1, T, d_hidden, C, 1, d_table, C, 0);
    for (int s = 0; s < T; s++) {
        real total = 0;
        for (int c = 0; c < C; c++) total += d_table[s * C + c] < 0 ? -d_table[s * C + c] : d_table[s * C + c];
        d_normed[s] = total / C;
    }
}

enum { SIZES, RECIPE, IMAGES, LABELS, PIXEL_ORDER, PARAMS, GRADS, PATCHES, LOGITS, PROBABILITIES, POOLED, INFLUENCE,
       SHARES, LOSSES, STREAM, HIDDEN };

// Where a table stands; of layer i, STREAM has those of before and after its blocks, HIDDEN those of units.
void *EXPORT(address)(int what, int i) {
    void *places[] = {&size,  &recipe, images,   labels, pixel_order, params, grads, patches,
                      logits, d_logits, pooled, d_normed, shares,      losses};
    if (what == STREAM) return stream[i];
    if (what == HIDDEN) return i % 2 ? layers[i / 2].channel.hidden : layers[i / 2].token.hidden;
    return places[what];
}

double EXPORT(loss)(void) { return loss_sum; }
int EXPORT(correct)(void) { return n_correct; }
int EXPORT(steps)(void) { return step; }
double EXPORT(rate)(void) { return recipe.lr * schedule(); }
