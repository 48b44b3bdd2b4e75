// All the schedules of rows.
#pragma once
#include "schedule/lanes.cuh"
#include "schedule/neighbours.cuh"
#include "schedule/on_chip.cuh"
#include "schedule/split.cuh"
