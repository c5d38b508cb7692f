# Reads kernels/budgets.txt and what ptxas said about each kernel; prints the resources of the kernels, worst architecture
# first. Fails on spills, stack frames, notes that an instruction was dropped or serialised, and budgets exceeded or missing.
#     awk -f check-kernels.awk budgets.txt *.notes

function complain(text) {
    print "kernels: " text > "/dev/stderr"
    failures++
}

function base(path) {
    sub(/.*\//, "", path)
    sub(/\.notes$/, "", path)
    return path
}

FNR == NR {
    if ($0 ~ /^#/ || NF == 0) {
        next
    }
    if (NF != 3) {
        complain("budgets.txt line " FNR ": expected 'kernel registers shared_bytes', got '" $0 "'")
    }
    registers_allowed[$1] = $2
    shared_allowed[$1] = $3
    next
}

# What shows or measures instructions needs no budget.
FNR == 1 {
    probe = FILENAME ~ /\/(conformance|measure)\//
}

/Compiling entry function/ {
    split($0, quoted, "'")
    kernel = quoted[2]
    architecture = quoted[4]
    next
}

/Function properties for/ {
    what = $NF
    next
}

/bytes stack frame/ {
    if ($1 + 0 > 0) {
        complain(base(FILENAME) ".cu, " what " on " architecture ": stack frame of " $1 " bytes; index arrays by constants only, unroll the loops over them")
    }
    if ($5 + 0 > 0 || $9 + 0 > 0) {
        complain(base(FILENAME) ".cu, " what " on " architecture ": spills (" $5 " bytes stored, " $9 " loaded); use fewer registers or larger launch bounds")
    }
    next
}

/\(C75[0-9]*\)/ {
    complain(base(FILENAME) ".cu: ptxas dropped or serialised an instruction: " $0)
    next
}

/: Used [0-9]+ registers/ {
    used = 0
    shared = 0
    for (i = 1; i < NF; i++) {
        if ($(i + 1) ~ /^registers/) {
            used = $i
        }
        if ($(i + 1) == "bytes" && $(i + 2) ~ /^smem/) {
            shared = $i
        }
    }
    if (probe) {
        next
    }
    if (!(kernel in most)) {
        names[++count] = kernel
        most[kernel] = -1
        most_shared[kernel] = 0
    }
    source[kernel] = base(FILENAME)
    if (used + 0 > most[kernel]) {
        most[kernel] = used + 0
        worst[kernel] = architecture
    }
    if (shared + 0 > most_shared[kernel]) {
        most_shared[kernel] = shared + 0
    }
}

END {
    if (count == 0) {
        complain("ptxas reported no kernel; its output no longer reads as expected")
    }
    for (i = 1; i <= count; i++) {
        kernel = names[i]
        if (!(kernel in registers_allowed)) {
            complain(kernel " has no budget; add '" kernel " " most[kernel] " " most_shared[kernel] "' to kernels/budgets.txt")
            continue
        }
        if (most[kernel] > registers_allowed[kernel]) {
            complain(kernel " uses " most[kernel] " registers on " worst[kernel] ", allowed are " registers_allowed[kernel] "; use fewer, or raise the budget with the reason in the commit")
        }
        if (most_shared[kernel] > shared_allowed[kernel]) {
            complain(kernel " uses " most_shared[kernel] " bytes of static shared memory, allowed are " shared_allowed[kernel] "; use less, or raise the budget with the reason in the commit")
        }
    }
    for (kernel in registers_allowed) {
        if (!(kernel in most)) {
            complain("budgets.txt names " kernel ", which no source defines; remove the line")
        }
    }
    if (failures > 0) {
        exit 1
    }
    print "# kernel, registers on its worst architecture, static shared bytes, source"
    for (i = 1; i <= count; i++) {
        kernel = names[i]
        printf "%-32s %4d %-8s %6d  %s.cu\n", kernel, most[kernel], worst[kernel], most_shared[kernel], source[kernel]
    }
}
