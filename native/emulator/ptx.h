// The emulated twins of kernels/common/ptx*.cuh, included by ptx.cuh.
#pragma once

#include "ptx_barrier.h"
#include "ptx_bulk.h"
#include "ptx_clock.h"
#include "ptx_convert.h"
#include "ptx_copy.h"
#include "ptx_matrix.h"
#include "ptx_wgmma.h"
