/* Patches and windows of images for numbers of type R, see batch.c.
 *
 * A number of an image of `channels` lies at (y * width + x) * channels + c; `line` is width * channels.  An image has
 * readable memory for a vector behind it. */

/* Of n_y times n_x pixels, `down` and `across` apart, the patch: kernel_h stretches of `span` numbers, a line apart. */
static void OF(patches)(void *out_, const void *image, ptrdiff_t line, int kernel_h, int span, int n_y, ptrdiff_t down,
                        int n_x, ptrdiff_t across)
{
    R *out = out_;
    for (int y = 0; y < n_y; y++)
        for (int x = 0; x < n_x; x++) {
            const R *from = (const R *)image + y * down + x * across;
            for (int i = 0; i < kernel_h; i++, from += line, out += span)
                for (int k = 0; k < span; k += VW) /* what is too much the next stretch writes over */
                    STORE(out + k, LOAD(from + k));
        }
}

/* The same the other way: image += patches, where they overlap several times. */
static void OF(add_patches)(void *image, const void *patches, ptrdiff_t line, int kernel_h, int span, int n_y,
                            ptrdiff_t down, int n_x, ptrdiff_t across)
{
    const R *from = patches;
    for (int y = 0; y < n_y; y++)
        for (int x = 0; x < n_x; x++) {
            R *to = (R *)image + y * down + x * across;
            for (int i = 0; i < kernel_h; i++, to += line, from += span) {
                int k = 0;
                for (; k + VW <= span; k += VW)
                    STORE(to + k, LOAD(to + k) + LOAD(from + k));
                for (; k < span; k++)
                    to[k] += from[k];
            }
        }
}

/* out, place: by pixel and channel the greatest number in the window, and its number there: the first of equal ones, or
 * the first NaN. */
static void OF(max_pool)(void *out_, void *place_, const void *image, ptrdiff_t line, int channels, int kernel_h,
                         int kernel_w, int stride, int n_y, int n_x)
{
    R *restrict out = out_, *restrict place = place_;
    for (int y = 0; y < n_y; y++)
        for (int x = 0; x < n_x; x++, out += channels, place += channels) {
            const R *restrict from = (const R *)image + y * stride * line + x * stride * channels;
            for (int c = 0; c < channels; c++) {
                out[c] = from[c];
                place[c] = 0;
            }
            for (int k = 1; k < kernel_h * kernel_w; k++) {
                const R *restrict next = from + k / kernel_w * line + k % kernel_w * channels;
                const R number = (R)k;
                for (int c = 0; c < channels; c++) {
                    const R v = next[c], best = out[c];
                    const int better = (v > best) | ((v != v) & (best == best));
                    out[c] = better ? v : best;
                    place[c] = better ? number : place[c];
                }
            }
        }
}

/* image += g at the places of `max_pool`. */
static void OF(add_pool)(void *image, const void *place_, const void *g_, ptrdiff_t line, int channels, int kernel_w,
                         int stride, int n_y, int n_x)
{
    const R *place = place_, *g = g_;
    for (int y = 0; y < n_y; y++)
        for (int x = 0; x < n_x; x++, g += channels, place += channels) {
            R *to = (R *)image + y * stride * line + x * stride * channels;
            for (int c = 0; c < channels; c++) {
                const int k = (int)place[c];
                to[k / kernel_w * line + k % kernel_w * channels + c] += g[c];
            }
        }
}
