package app.edgespec.bridge;

import java.util.Locale;
import java.util.Map;

/** How an answer went. */
public final class Figures {
    public final int tokens;
    public final double tokensPerSecond;

    /** Over plain decoding; 0 where that is not known. */
    public final double times;

    /** Of drafted tokens, 0 to 1. */
    public final double acceptance;

    public final int drafted;

    /** Why drafting pauses, or what limits it; "" for nothing. */
    public final String note;

    /** Why the answer ended: stop, length, context, cancelled; "" while it goes on. */
    public final String finish;

    /** Messages, the oldest, that the model no longer sees. */
    public final int leftOut;

    Figures(Map<String, Object> reply) {
        tokens = Reply.whole(reply, "n_tokens");
        tokensPerSecond = Reply.number(reply, "tokens_per_s");
        times = Reply.number(reply, "times");
        acceptance = Reply.number(reply, "acceptance");
        drafted = Reply.whole(reply, "n_drafted");
        note = Reply.text(reply, "note");
        finish = Reply.text(reply, "finish");
        leftOut = Reply.whole(reply, "n_left_out");
    }

    /** One quiet line for below an answer. */
    public String line() {
        StringBuilder line = new StringBuilder(format("%.1f tokens/s", tokensPerSecond));
        if (times > 0) {
            line.append(format(", %.2f times plain decoding", times));
        }
        if (drafted > 0) {
            line.append(format(", %.0f%% of drafts accepted", 100 * acceptance));
        }
        if (!note.isEmpty()) {
            line.append("; ").append(note);
        }
        return line.toString();
    }

    static String format(String pattern, Object... values) {
        return String.format(Locale.ROOT, pattern, values);
    }
}
