// The host side of kernels/core/intrinsics.cuh: the same names, run by the emulator.
//
// A kernel's thread is a coroutine of the scheduler (src/emulator/scheduler.rs). Collectives and
// barriers suspend it there; every access to memory is checked, and a violation never returns.
#pragma once
#include "host/memory.hpp"
#include "host/numbers.hpp"
#include "host/threads.hpp"
