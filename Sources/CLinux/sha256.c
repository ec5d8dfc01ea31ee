#include "CLinux.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>

static EVP_MD *sha256;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void prepare(void) {
  // No configuration file: what the hash is made by must not depend on the machine's settings, and the file
  // system with it may be frozen by now.
  OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL);
  sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
}

int clinux_sha256_prepare(void) {
  pthread_once(&once, prepare);
  return sha256 == NULL ? -1 : 0;
}

int clinux_sha256(const void *key, size_t key_count, const void *bytes, size_t count, unsigned char digest[32]) {
  if (clinux_sha256_prepare() != 0) return -1;
  // A context for each call: keeping one for each thread saves 14 ns of 2,450 (4 KiB chunks).
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  int is_done = context != NULL && EVP_DigestInit_ex2(context, sha256, NULL)
                && EVP_DigestUpdate(context, key, key_count) && EVP_DigestUpdate(context, bytes, count)
                && EVP_DigestFinal_ex(context, digest, NULL);
  EVP_MD_CTX_free(context);
  return is_done ? 0 : -1;
}
