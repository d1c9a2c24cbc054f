/* Geohashes: places in the world as short texts, of which those of near places mostly begin alike. */
#ifndef GEOHASH_H
#define GEOHASH_H

#include <stdbool.h>
#include <stddef.h>

enum { GEOHASH_LENGTH_MAX = 12 };

/* Writes a geohash of `length` characters (1 to 12), without a zero at its end. False where there is no such place. */
bool geohash_write(double latitude, double longitude, size_t length, char *to);

/* A number in decimal notation; false where the text is none. */
bool geohash_number(const char *text, size_t length, double *number);

#endif
