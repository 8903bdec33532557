// What a kernel runs on: a GPU, or a CPU that does what each instruction is said to do.
#pragma once

#ifdef __CUDACC__
#include "machine/ptx.cuh"
#else
#include "machine/emulation.cuh"
#endif
#include "machine/types.cuh"
