# Device code to fatbins, one per source:
#     $(OUT)/kernels/<op>.fatbin           ../kernels/<op>.cu: machine code of every architecture, and PTX for later ones
#     $(OUT)/conformance/<name>.fatbin     conformance/<name>.cu
#     $(OUT)/measure/<name>.fatbin         measure/<name>.cu
#     $(OUT)/kernels/resources.txt         registers and shared memory of every kernel, checked against budgets.txt
#     $(OUT)/kernels/instructions.txt      what ptxas made of the instructions of sm_90a
# Operations in *_sm90.cu use instructions that no other architecture has, and so does what measures them. Probes get machine
# code for sm_90a, which they are about, and PTX for every other device.
# ptxas says what matters (spills, dropped setmaxnreg, serialised wgmma) in notes that no flag turns into errors, so its
# output is kept beside each fatbin and read by check-kernels.awk. Where it says nothing, the machine code does: where there is
# nvdisasm, which comes with the toolkit, check-instructions.awk compares it with the PTX.

NVCC ?= nvcc
NVCC_PATH := $(shell command -v $(NVCC) 2>/dev/null)
NVDISASM ?= nvdisasm
NVDISASM_PATH := $(shell command -v $(NVDISASM) 2>/dev/null)

OP_SOURCES := $(wildcard ../kernels/*.cu)
PROBE_SOURCES := $(wildcard conformance/*.cu)
MEASURE_SOURCES := $(wildcard measure/*.cu)
OP_FATBINS := $(patsubst ../kernels/%.cu,$(OUT)/kernels/%.fatbin,$(OP_SOURCES))
PROBE_FATBINS := $(patsubst conformance/%.cu,$(OUT)/conformance/%.fatbin,$(PROBE_SOURCES))
MEASURE_FATBINS := $(patsubst measure/%.cu,$(OUT)/measure/%.fatbin,$(MEASURE_SOURCES))
SM90_FATBINS := $(filter %_sm90.fatbin,$(OP_FATBINS)) $(MEASURE_FATBINS)

SM90 := -gencode arch=compute_90a,code=sm_90a
PTX := -gencode arch=compute_80,code=compute_80
EVERY_ARCHITECTURE := -gencode arch=compute_80,code=sm_80 -gencode arch=compute_89,code=sm_89 $(SM90) \
    -gencode arch=compute_100a,code=sm_100a -gencode arch=compute_120,code=sm_120 $(PTX)
# $(call architectures,source)
architectures = $(if $(filter conformance/%,$(1)),$(SM90) $(PTX),$(if $(filter %_sm90.cu measure/%,$(1)),$(SM90),$(EVERY_ARCHITECTURE)))

NVCC_FLAGS := -std=c++20 -O3 -Werror all-warnings -Xptxas -v,-warn-spills,-Werror -I../kernels

# Where the PTX and the machine code of sm_90a stay, which nvcc makes on its way to the fatbin.
KEPT = $(if $(filter $(SM90_FATBINS),$@),$(@:.fatbin=.kept))

# A fatbin and its notes appear complete or not at all.
define FATBIN
	@mkdir -p $(@D) $(KEPT)
	@echo "  nvcc $(notdir $<)"
	@$(NVCC) $(NVCC_FLAGS) $(call architectures,$<) $(addprefix --keep --keep-dir ,$(KEPT)) -MMD -MP -MT $@ -MF $(@:.fatbin=.d) -fatbin -o $@.part $< \
	    >$(@:.fatbin=.notes) 2>&1 || { grep -v '^ptxas info\|^    ' $(@:.fatbin=.notes); rm -f $@.part $(@:.fatbin=.notes); exit 1; }
	@mv $@.part $@
endef

$(OUT)/kernels/%.fatbin: ../kernels/%.cu kernels.mk
	$(FATBIN)

$(OUT)/conformance/%.fatbin: conformance/%.cu kernels.mk
	$(FATBIN)

$(OUT)/measure/%.fatbin: measure/%.cu kernels.mk
	$(FATBIN)

$(SM90_FATBINS:.fatbin=.sass): %.sass: %.fatbin
	@$(NVDISASM) $*.kept/$(notdir $*).cubin >$@.part
	@mv $@.part $@

READ := $(OP_FATBINS) $(PROBE_FATBINS) $(MEASURE_FATBINS)
$(OUT)/kernels/resources.txt: $(READ) ../kernels/budgets.txt check-kernels.awk
	@awk -f check-kernels.awk ../kernels/budgets.txt $(READ:.fatbin=.notes) >$@.part
	@mv $@.part $@

$(OUT)/kernels/instructions.txt: $(SM90_FATBINS:.fatbin=.sass) check-instructions.awk
	@awk -f check-instructions.awk $(foreach listing,$(SM90_FATBINS:.fatbin=),\
	    $(listing).kept/$(notdir $(listing)).ptx $(listing).sass) >$@.part
	@mv $@.part $@

.PHONY: check-instructions
ifeq ($(NVCC_PATH),)
kernels:
	@echo "kernels: skipped, no nvcc on the path"
else ifeq ($(SM90_FATBINS),)
kernels: $(OUT)/kernels/resources.txt
else ifeq ($(NVDISASM_PATH),)
kernels: $(OUT)/kernels/resources.txt
	@echo "kernels: the instructions of sm_90a are not checked, no nvdisasm on the path"
else
kernels: $(OUT)/kernels/resources.txt $(OUT)/kernels/instructions.txt
endif

# Mistakes planted into a listing; see the script.
check-instructions:
	@./planted_instructions.sh $(OUT)/planted_instructions

-include $(wildcard $(OUT)/kernels/*.d $(OUT)/conformance/*.d $(OUT)/measure/*.d)
