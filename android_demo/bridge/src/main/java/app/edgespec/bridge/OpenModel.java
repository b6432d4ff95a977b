package app.edgespec.bridge;

import java.util.Map;

/** What is open. */
public final class OpenModel {
    /** The target's file name without its ending. */
    public final String name;

    /** What runs where, in words. */
    public final String where;

    /** Tokens that a conversation may have. */
    public final int context;

    /** Whether anything drafts for it. */
    public final boolean drafts;

    OpenModel(Map<String, Object> reply) {
        name = Reply.text(reply, "name");
        where = Reply.text(reply, "where");
        context = Reply.whole(reply, "n_context");
        drafts = Reply.truth(reply, "drafts");
    }
}
