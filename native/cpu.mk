# The products for CPUs, in C, as two libraries of the same sources:
#     $(OUT)/cpu/libjmoe_cpu.so             what this processor has is found out when it runs
#     $(OUT)/cpu/emulated/libjmoe_cpu.so    for tests: AVX-512 and AMX are emulated with AVX2, and reported as there
#     $(OUT)/cpu/asan/libjmoe_cpu.so        the same under AddressSanitizer and UndefinedBehaviorSanitizer (make check-asan)
# and beside each, in check/, the programs of cpu/tests linked with it.
# For x86-64 only; elsewhere, and without gcc, there is no library, and Java says so.

CC_NAME ?= gcc
GCC := $(shell command -v $(CC_NAME) 2>/dev/null)
X86_64 := $(filter x86_64,$(shell uname -m))
CPU_OUT := $(OUT)/cpu

# -ffp-contract=off: a product and a sum are rounded once only where the source says so.
CPU_FLAGS := -std=gnu11 -O3 -g1 -fPIC -fvisibility=hidden -ffp-contract=off -fno-math-errno -MMD -MP \
    -Wall -Wextra -Wconversion -Werror -Wno-psabi

AVX2_FLAGS := -mavx2 -mfma -mf16c
AVX512_FLAGS := $(AVX2_FLAGS) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mprefer-vector-width=512

# What a source may use; the library finds out itself what the processor has.
pack_FLAGS := -mavx2
tier_avx2_FLAGS := $(AVX2_FLAGS)
tier_avx512_FLAGS := $(AVX512_FLAGS)
tier_amx_FLAGS := $(AVX512_FLAGS)

EMULATED_FLAGS := -DJMOE_EMULATED $(AVX2_FLAGS)
ASAN_FLAGS := $(EMULATED_FLAGS) -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer

CPU_CHECKS := $(basename $(notdir $(wildcard cpu/tests/*.c)))
CPU_NAMES := $(basename $(notdir $(wildcard cpu/*.c)))

# $(call CPU_LIBRARY,folder,flags for all sources or nothing for each its own,link flags)
define CPU_LIBRARY
$(foreach name,$(CPU_NAMES),
$(1)/objects/$(name).o: cpu/$(name).c cpu.mk
	@mkdir -p $$(@D)
	@$(CC_NAME) $$(CPU_FLAGS) $(if $(2),$(2),$$($(name)_FLAGS)) -c -o $$@ $$<
)
$(1)/libjmoe_cpu.so: $(foreach name,$(CPU_NAMES),$(1)/objects/$(name).o)
	@echo "  cc $(1:$(OUT)/%=%)/libjmoe_cpu.so"
	@$(CC_NAME) -shared -Wl,-z,defs -Wl,-soname,libjmoe_cpu.so -o $$@.part $$^ $(3)
	@mv $$@.part $$@
$(foreach program,$(CPU_CHECKS),
$(1)/check/$(program): cpu/tests/$(program).c $(wildcard cpu/tests/*.h) cpu/jmoe_cpu.h $(1)/libjmoe_cpu.so
	@mkdir -p $$(@D)
	@$(CC_NAME) -std=gnu11 -O2 -g1 -Wall -Wextra -Werror -o $$@ $$< $(1)/libjmoe_cpu.so -Wl,-rpath,'$$$$ORIGIN/..' -lm $(3)
)
endef

.PHONY: cpu
ifeq ($(X86_64),)
cpu:
	@echo "jmoe: the native CPU kernels are for x86-64, this is $$(uname -m): the backend native is left out" >&2
else ifeq ($(GCC),)
cpu:
	@echo "jmoe: no $(CC_NAME) on PATH: the native CPU kernels are not built; install gcc" >&2
else
CPU_BUILDS := $(CPU_OUT) $(CPU_OUT)/emulated
cpu: $(CPU_BUILDS:=/libjmoe_cpu.so) $(foreach build,$(CPU_BUILDS),$(CPU_CHECKS:%=$(build)/check/%))
CPU_ASAN_LOGS := $(CPU_CHECKS:%=$(CPU_OUT)/asan/check/%.log)
$(CPU_ASAN_LOGS): %.log: %
	@timeout 600 $< >$@.part 2>&1 || { echo "$<:"; grep -v '^ok ' $@.part; exit 1; }
	@mv $@.part $@
check-asan: $(CPU_ASAN_LOGS)

# What gcc made of the tiles, of every tier, whether or not this processor has it.
.PHONY: check-tiles
check-instructions: check-tiles
check-tiles: $(CPU_OUT)/libjmoe_cpu.so
ifeq ($(shell command -v objdump 2>/dev/null),)
	@echo "check-tiles: skipped, no objdump on the path"
else
	@objdump -d --no-show-raw-insn $(CPU_OUT)/objects/tier_avx2.o | awk -v lanes=8 -f check-tiles.awk
	@objdump -d --no-show-raw-insn $(CPU_OUT)/objects/tier_avx512.o | awk -v lanes=16 -f check-tiles.awk
	@echo "check-tiles: every sum of every tile is in a register"
endif
$(eval $(call CPU_LIBRARY,$(CPU_OUT),,))
$(eval $(call CPU_LIBRARY,$(CPU_OUT)/emulated,$(EMULATED_FLAGS),-lm))
$(eval $(call CPU_LIBRARY,$(CPU_OUT)/asan,$(ASAN_FLAGS),-lm -fsanitize=address$(comma)undefined))
-include $(wildcard $(CPU_OUT)/objects/*.d $(CPU_OUT)/*/objects/*.d)
endif
