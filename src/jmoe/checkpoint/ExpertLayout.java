package jmoe.checkpoint;

/**
 * How a family stores its routed experts; E experts, I intermediate, H hidden. In the table of
 * {@link ExpertNames} a layout is written in lower case before the names of its tensors: gate, up
 * and down, or the fused gate and up, then down; ungated families have only up and down.
 */
enum ExpertLayout {
    /** Per expert: gate [I, H], up [I, H], down [H, I]. */
    EACH,
    /** gateUp [E, 2I, H], gate rows first; down [E, H, I]. */
    FUSED,
    /** gateUp [E, H, 2I], gate columns first; down [E, I, H]. */
    TRANSPOSED,
    /** gateUp [E, H, 2I], gate in even and up in odd columns; down [E, I, H]. */
    INTERLEAVED,
    /** gate, up and down, each [E I, H]. */
    STACKED,
    /** Experts of one unit: up [E, H] and down [E, H]. */
    UNITS
}
