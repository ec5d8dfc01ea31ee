#include "CLinux.h"

#include <string.h>
#include <xxhash.h>
#if defined(__x86_64__)
// One implementation in the whole program: mixing it with the plain one leaves the vector registers'
// upper halves dirty and slows both.
#include <xxh_x86dispatch.h>
#endif

struct clinux_hash128 clinux_xxh3_128(const void *bytes, size_t count, const void *secret, size_t secret_count) {
  XXH128_hash_t hash = XXH3_128bits_withSecret(bytes, count, secret, secret_count);
  struct clinux_hash128 result = {hash.low64, hash.high64};
  return result;
}

uint64_t clinux_xxh3_64(const void *bytes, size_t count) { return XXH3_64bits(bytes, count); }

int clinux_is_zero(const void *bytes, size_t count) {
  const unsigned char *first = bytes;
  size_t head = count < 16 ? count : 16;
  for (size_t index = 0; index < head; index++)
    if (first[index] != 0) return 0;
  return count <= 16 || memcmp(first, first + 16, count - 16) == 0;
}
