# The emulated driver, in three builds of the same sources:
#     fast   $(OUT)/emulator/fast/libcuda.so.1   -O2; wrong results, divergence, deadlocks
#     race   $(OUT)/emulator/race/libcuda.so.1   every memory access of the kernels is checked
#     asan   check programs alone, AddressSanitizer and UndefinedBehaviorSanitizer
# and fast again as $(OUT)/emulator/old/libcuda.so.1, without the symbols that an old driver lacks.
# Every file in emulator/, ../kernels, conformance/ and measure/ takes part by being there.

EMULATOR_OUT := $(OUT)/emulator
EMULATOR_CXX ?= g++
EMULATOR_GXX := $(shell command -v $(EMULATOR_CXX) 2>/dev/null)

EMULATOR_SOURCES := $(wildcard emulator/*.cpp)
KERNEL_SOURCES := $(wildcard ../kernels/*.cu) $(wildcard conformance/*.cu) $(wildcard measure/*.cu)
CHECK_SOURCES := $(wildcard emulator/tests/*.cpp)
OLD_DRIVER_SCRIPT := emulator/old_driver.map

# -fno-strict-aliasing: kernels read memory through wider vector types, as CUDA allows.
EMULATOR_FLAGS := -std=c++20 -g1 -fPIC -fvisibility=hidden -march=native -pthread -MMD -MP \
    -Wall -Wextra -Werror -Wno-psabi -DJMOE_EMULATOR -Iemulator -I../kernels
KERNEL_FLAGS := -x c++ -fno-strict-aliasing -Wno-unknown-pragmas

# -fsanitize=thread puts a call before every memory access; emulator/hooks.cpp answers it, libtsan is not linked.
fast_FLAGS := -O2
fast_KERNEL_FLAGS := -O2
race_FLAGS := -O2 -DJMOE_EMULATOR_RACE
race_KERNEL_FLAGS := -O1 -DJMOE_EMULATOR_RACE -fsanitize=thread --param tsan-instrument-func-entry-exit=0
asan_FLAGS := -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
asan_KERNEL_FLAGS := $(asan_FLAGS)
asan_LINK := -fsanitize=address,undefined

# What check programs are linked with. Those that run under AddressSanitizer call neither the driver nor what shows or measures instructions.
fast_SOURCES := $(EMULATOR_SOURCES) $(KERNEL_SOURCES)
race_SOURCES := $(fast_SOURCES)
asan_SOURCES := $(filter-out emulator/driver_% conformance/% measure/%,$(fast_SOURCES))

# Lines of plain memory accesses come from debug information, where gcc brings the library that reads it.
ifneq ($(EMULATOR_GXX),)
LIBBACKTRACE := $(wildcard $(dir $(shell $(EMULATOR_CXX) -print-libgcc-file-name))libbacktrace.a)
ifneq ($(LIBBACKTRACE),)
EMULATOR_FLAGS += -DJMOE_EMULATOR_LINES
endif
endif

# The emulator's own objects come first in every link: of an inline function that they share with instrumented kernels
# the linker keeps the first copy, and the emulator must not check itself.
# $(call object,build,source)
object = $(EMULATOR_OUT)/$(1)/objects/$(subst /,-,$(patsubst ../%,%,$(2))).o
objects = $(foreach source,$($(1)_SOURCES),$(call object,$(1),$(source)))
checks = $(foreach source,$(CHECK_SOURCES),$(EMULATOR_OUT)/$(1)/check/$(basename $(notdir $(source))))

define COMPILE  # build, source, flags
$(call object,$(1),$(2)): $(2) emulator.mk
	@mkdir -p $$(@D)
	@echo "  $(1) $(notdir $(2))"
	@$(EMULATOR_CXX) $(EMULATOR_FLAGS) $(3) -MF $$(@:.o=.d) -c $$< -o $$@
endef

define CHECK_PROGRAM  # build, source
$(EMULATOR_OUT)/$(1)/check/$(basename $(notdir $(2))): $(call objects,$(1)) $(call object,$(1),$(2))
	@mkdir -p $$(@D)
	@$(EMULATOR_CXX) -o $$@ $$^ $($(1)_LINK) $(LIBBACKTRACE) -pthread
endef

define BUILD  # build
$(foreach source,$(EMULATOR_SOURCES),$(eval $(call COMPILE,$(1),$(source),$($(1)_FLAGS))))
$(foreach source,$(KERNEL_SOURCES) $(CHECK_SOURCES),\
    $(eval $(call COMPILE,$(1),$(source),$($(1)_KERNEL_FLAGS) $(KERNEL_FLAGS))))
$(foreach source,$(CHECK_SOURCES),$(eval $(call CHECK_PROGRAM,$(1),$(source))))
endef

define LIBRARY  # folder, build, version script
$(EMULATOR_OUT)/$(1)/libcuda.so.1: $(call objects,$(2)) $(3)
	@mkdir -p $$(@D)
	@echo "  $(1) libcuda.so.1"
	@$(EMULATOR_CXX) -shared -Wl,-soname,libcuda.so.1 -Wl,-z,defs -o $$@ $(call objects,$(2)) \
	    -Wl,--version-script=$(3) $(LIBBACKTRACE) -pthread
endef

$(foreach build,fast race asan,$(eval $(call BUILD,$(build))))
$(eval $(call LIBRARY,fast,fast,emulator/driver.map))
$(eval $(call LIBRARY,race,race,emulator/driver.map))

ifeq ($(EMULATOR_GXX),)
emulator check-programs check-asan check-planted:
	@echo "emulator: skipped, no g++ on the path"
else
EMULATOR_LIBRARIES := $(EMULATOR_OUT)/fast/libcuda.so.1 $(EMULATOR_OUT)/race/libcuda.so.1
ifneq ($(wildcard $(OLD_DRIVER_SCRIPT)),)
$(eval $(call LIBRARY,old,fast,$(OLD_DRIVER_SCRIPT)))
EMULATOR_LIBRARIES += $(EMULATOR_OUT)/old/libcuda.so.1
endif
emulator: $(EMULATOR_LIBRARIES)

# What the Java tests run: every check program, fast and race.
.PHONY: check-programs check-asan check-planted
check-programs: $(call checks,fast) $(call checks,race)

# The kernels again, and the core that runs them, under AddressSanitizer. Not those that reserve the device's memory: its
# shadow would not fit into a small machine.
ASAN_CHECKS := $(filter %/threads %/warps $(EMULATOR_OUT)/asan/check/kernels_%,$(call checks,asan))
ASAN_LOGS := $(ASAN_CHECKS:=.log)
$(ASAN_LOGS): %.log: %
	@timeout 600 $< >$@.part 2>&1 || { echo "$<:"; grep -v '^ok ' $@.part; exit 1; }
	@mv $@.part $@
check-asan: $(ASAN_LOGS)
	@echo "check-asan: $(words $^) programs passed"

# Mistakes planted into the real kernels; see the script.
PLANTED_PROGRAMS := $(foreach program,kernels_route kernels_route_rare kernels_route_hash kernels_route_batch \
    kernels_route_capacity kernels_shape_logits kernels_jitter kernels_soft_mix kernels_singleton_experts \
    kernels_sort_by_expert kernels_permute kernels_decode_route \
    kernels_decode_mma kernels_decode_sm90 kernels_grouped_gemm_mma kernels_grouped_gemm_sm90,\
    $(call object,race,emulator/tests/$(program).cpp))
check-planted: $(call objects,race) $(PLANTED_PROGRAMS)
	@CXX="$(EMULATOR_CXX)" FLAGS="$(filter-out -MMD -MP,$(EMULATOR_FLAGS)) $(race_KERNEL_FLAGS) $(KERNEL_FLAGS)" \
	    LINK="$(LIBBACKTRACE) -pthread" RACE=$(EMULATOR_OUT)/race OBJECTS="$(call objects,race)" \
	    OUT=$(EMULATOR_OUT)/planted emulator/tests/planted_kernels.sh
endif

-include $(wildcard $(foreach build,fast race asan,$(EMULATOR_OUT)/$(build)/objects/*.d))
