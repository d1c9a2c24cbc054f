#include "geohash.h"

#include <stdlib.h>
#include <string.h>

bool geohash_write(double latitude, double longitude, size_t length, char *to) {
    static const char LETTERS[] = "0123456789bcdefghjkmnpqrstuvwxyz";
    /* Written so that a number that is none is refused, too. */
    if (!(latitude >= -90 && latitude <= 90 && longitude >= -180 && longitude <= 180) || length > GEOHASH_LENGTH_MAX) {
        return false;
    }
    double low[2] = {-180, -90}, high[2] = {180, 90};
    const double wanted[2] = {longitude, latitude};
    size_t axis = 0;
    for (size_t at = 0; at < length; at++) {
        size_t letter = 0;
        for (int bit = 0; bit < 5; bit++) {
            const double middle = (low[axis] + high[axis]) / 2;
            const bool upper = wanted[axis] >= middle;
            *(upper ? &low[axis] : &high[axis]) = middle;
            letter = letter << 1 | upper;
            axis ^= 1;
        }
        to[at] = LETTERS[letter];
    }
    return true;
}

bool geohash_number(const char *text, size_t length, double *number) {
    char copy[64];
    if (length == 0 || length >= sizeof copy) {
        return false;
    }
    for (size_t at = 0; at < length; at++) {
        /* What `strtod` would take besides: names, hexadecimal digits, spaces. */
        if (strchr("0123456789+-.eE", text[at]) == NULL || text[at] == '\0') {
            return false;
        }
    }
    memcpy(copy, text, length);
    copy[length] = '\0';
    char *end;
    *number = strtod(copy, &end);
    return end == copy + length;
}
