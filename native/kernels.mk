# Device code to fatbins, one per source:
#     $(OUT)/kernels/<op>.fatbin           ../kernels/<op>.cu: machine code of every architecture, and PTX for later ones
#     $(OUT)/conformance/<name>.fatbin     conformance/<name>.cu
#     $(OUT)/kernels/resources.txt         registers and shared memory of every kernel, checked against budgets.txt
# Operations in *_sm90.cu use instructions that no other architecture has. Probes get machine code for sm_90a, which they are
# about, and PTX for every other device.
# ptxas says what matters (spills, dropped setmaxnreg, serialised wgmma) in notes that no flag turns into errors, so its
# output is kept beside each fatbin and read by check-kernels.awk.

NVCC ?= nvcc
NVCC_PATH := $(shell command -v $(NVCC) 2>/dev/null)

OP_SOURCES := $(wildcard ../kernels/*.cu)
PROBE_SOURCES := $(wildcard conformance/*.cu)
OP_FATBINS := $(patsubst ../kernels/%.cu,$(OUT)/kernels/%.fatbin,$(OP_SOURCES))
PROBE_FATBINS := $(patsubst conformance/%.cu,$(OUT)/conformance/%.fatbin,$(PROBE_SOURCES))

SM90 := -gencode arch=compute_90a,code=sm_90a
PTX := -gencode arch=compute_80,code=compute_80
EVERY_ARCHITECTURE := -gencode arch=compute_80,code=sm_80 -gencode arch=compute_89,code=sm_89 $(SM90) \
    -gencode arch=compute_100a,code=sm_100a -gencode arch=compute_120,code=sm_120 $(PTX)
# $(call architectures,source)
architectures = $(if $(filter conformance/%,$(1)),$(SM90) $(PTX),$(if $(filter %_sm90.cu,$(1)),$(SM90),$(EVERY_ARCHITECTURE)))

NVCC_FLAGS := -std=c++20 -O3 -Werror all-warnings -Xptxas -v,-warn-spills,-Werror -I../kernels

# A fatbin and its notes appear complete or not at all.
define FATBIN
	@mkdir -p $(@D)
	@echo "  nvcc $(notdir $<)"
	@$(NVCC) $(NVCC_FLAGS) $(call architectures,$<) -MMD -MP -MT $@ -MF $(@:.fatbin=.d) -fatbin -o $@.part $< \
	    >$(@:.fatbin=.notes) 2>&1 || { grep -v '^ptxas info\|^    ' $(@:.fatbin=.notes); rm -f $@.part $(@:.fatbin=.notes); exit 1; }
	@mv $@.part $@
endef

$(OUT)/kernels/%.fatbin: ../kernels/%.cu kernels.mk
	$(FATBIN)

$(OUT)/conformance/%.fatbin: conformance/%.cu kernels.mk
	$(FATBIN)

$(OUT)/kernels/resources.txt: $(OP_FATBINS) $(PROBE_FATBINS) ../kernels/budgets.txt check-kernels.awk
	@awk -f check-kernels.awk ../kernels/budgets.txt $(OP_FATBINS:.fatbin=.notes) $(PROBE_FATBINS:.fatbin=.notes) >$@.part
	@mv $@.part $@

ifeq ($(NVCC_PATH),)
kernels:
	@echo "kernels: skipped, no nvcc on the path"
else
kernels: $(OUT)/kernels/resources.txt
endif

-include $(wildcard $(OUT)/kernels/*.d $(OUT)/conformance/*.d)
