#pragma once
#include <stddef.h>
#include <stdint.h>

// What libFuzzer offers to programs with a `main` of their own.
// Source: https://llvm.org/docs/LibFuzzer.html#using-libfuzzer-as-a-library
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*run)(const uint8_t *data, size_t size));
