package jmoe.cli;

/** The errors of one comparison beside their tolerances. */
final class CheckTable {
    private CheckTable() {}

    static void print(Screen screen, String title, Agreement agreement) {
        screen.heading(title);
        TextTable table = new TextTable("lrrl", "tensor", "error", "tolerance", "");
        table.row(
                "topk_ids",
                Units.plural(agreement.wrongTokens(), "token", "tokens"),
                "none",
                verdict(screen, agreement.wrongTokens() == 0));
        Agreement.NotFinite lost = agreement.notFinite();
        double logits = Agreement.LOGITS_TOLERANCE;
        double weights = Agreement.WEIGHTS_TOLERANCE;
        row(screen, table, "router_logits", agreement.logits(), logits, lost.logits());
        row(screen, table, "topk_weights", agreement.weights(), weights, lost.weights());
        row(screen, table, "y", agreement.y(), Agreement.Y_TOLERANCE, lost.y());
        table.print(screen);
    }

    private static void row(
            Screen screen,
            TextTable table,
            String tensor,
            double error,
            double tolerance,
            long notFinite) {
        table.row(
                tensor,
                Units.error(error),
                Units.error(tolerance),
                verdict(screen, error <= tolerance)
                        + (notFinite == 0 ? "" : ", " + Units.exact(notFinite) + " not finite"));
    }

    private static String verdict(Screen screen, boolean ok) {
        return ok ? screen.good("ok") : screen.bad("OUT OF TOLERANCE");
    }
}
