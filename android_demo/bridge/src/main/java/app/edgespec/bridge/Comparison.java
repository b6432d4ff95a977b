package app.edgespec.bridge;

import java.util.Map;

/** The same questions with and without drafting, measured in turns. */
public final class Comparison {
    public final double withoutTokensPerSecond;
    public final double withTokensPerSecond;

    /** How many times as fast with drafting: the median of the turns, the least, the most. */
    public final double times;
    public final double least;
    public final double most;

    public final double acceptance;
    public final int tokens;
    public final int questions;

    /** Of them, those whose answer is the same, token by token. */
    public final int same;

    public final String note;

    Comparison(Map<String, Object> reply) {
        withoutTokensPerSecond = Reply.number(reply, "without_tokens_per_s");
        withTokensPerSecond = Reply.number(reply, "with_tokens_per_s");
        times = Reply.number(reply, "times");
        least = Reply.number(reply, "least");
        most = Reply.number(reply, "most");
        acceptance = Reply.number(reply, "acceptance");
        tokens = Reply.whole(reply, "n_tokens");
        questions = Reply.whole(reply, "n_questions");
        same = Reply.whole(reply, "n_same");
        note = Reply.text(reply, "note");
    }

    /** A few lines for a screen. */
    public String text() {
        String line = "Without drafting %.1f tokens/s, with %.1f: %.2f times as fast (%.2f to %.2f)."
                + "\nAnswers that are the same: %d of %d.";
        String said = Figures.format(line, withoutTokensPerSecond, withTokensPerSecond, times, least,
                most, same, questions);
        return note.isEmpty() ? said : said + "\n" + note;
    }
}
