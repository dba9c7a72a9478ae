/* The code of one frame of a tactile skin, for a microcontroller: the bits that persianrug.skin.SkinEncoder makes.

   counts (n)     what the taxels read, in counts; signs (n) bits, 1 for -1; columns (n) of H that they go to
   matrix         the first factor of H, (base, base), of +1 and -1; the second is Sylvester's, of 2^log2n rows
   order (length) the rows of H that the code is made of; values (length): the code, of 2 to 16 bits each
   work           room for N = base 2^log2n numbers, which are H (s x) when this returns
   clipped        1 if counts were cut so that all sums stay within 32 bits, or else 0
   Returns the exponent: a value v says v 2^exponent counts. Shifts to the right must keep the sign. */
#include <stdint.h>
#include <string.h>

int persianrug_encode(const int32_t *counts, int n, const uint8_t *signs, const uint16_t *columns, int base, int log2n,
                      const int8_t *matrix, const uint16_t *order, int length, int bits, int32_t *work,
                      int16_t *values, int *clipped)
{
    int width = 1 << log2n, size = base * width, tile = width < 16 ? width : 16, e = 0;
    int32_t top = (1 << (bits - 1)) - 1, limit = INT32_MAX, high = INT32_MIN, low = INT32_MAX, tiles[20][16];
    int64_t sum = 0;
    for (int i = 0; i < n; i++) sum += counts[i] < 0 ? -(int64_t)counts[i] : counts[i];
    *clipped = sum > INT32_MAX;
    if (*clipped) limit = INT32_MAX / n;
    if (n < size) memset(work, 0, (size_t)size * sizeof *work);
    for (int i = 0; i < n; i++) {
        int32_t c = counts[i] > limit ? limit : counts[i] < -limit ? -limit : counts[i];
        work[columns[i]] = signs[i >> 3] >> (i & 7) & 1 ? -c : c;
    }
    for (int s = 0; base > 1 && s < width; s += tile) {
        for (int c = 0; c < base; c++) memcpy(tiles[c], work + c * width + s, (size_t)tile * sizeof *work);
        for (int a = 0; a < base; a++) {
            int32_t *out = work + a * width + s;
            memset(out, 0, (size_t)tile * sizeof *work);
            for (int c = 0; c < base; c++)
                if (matrix[a * base + c] > 0) for (int j = 0; j < tile; j++) out[j] += tiles[c][j];
                else for (int j = 0; j < tile; j++) out[j] -= tiles[c][j];
        }
    }
    for (int i = 0; (log2n & 1) && i < size; i += 2) {
        int32_t a = work[i], b = work[i + 1];
        work[i] = a + b, work[i + 1] = a - b;
    }
    for (int h = 1 << (log2n & 1); h < width; h *= 4) /* Two of Sylvester's steps at a time. */
        for (int32_t *x = work; x < work + size; x += 4 * h)
            for (int j = 0; j < h; j++) {
                int32_t a = x[j] + x[j + h], b = x[j] - x[j + h];
                int32_t c = x[j + 2 * h] + x[j + 3 * h], d = x[j + 2 * h] - x[j + 3 * h];
                x[j] = a + c, x[j + h] = b + d, x[j + 2 * h] = a - c, x[j + 3 * h] = b - d;
            }
    for (int j = 0; j < length; j++) {
        int32_t z = work[order[j]];
        if (z > high) high = z;
        if (z < low) low = z;
    }
#define ROUNDED(z) (e ? ((z) >> e) + ((z) >> (e - 1) & 1) : (z))
    while (length > 0 && (ROUNDED(high) > top || ROUNDED(low) < -top)) e++;
    for (int j = 0; j < length; j++) values[j] = (int16_t)ROUNDED(work[order[j]]);
    return e;
}
