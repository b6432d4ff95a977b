package app.edgespec.bridge;

/** Hears an answer as it is generated. */
@FunctionalInterface
public interface TokenSink {
    /**
     * A piece of the answer, on the thread that generates.
     *
     * @param piece the text, of one or a few tokens
     * @param fromDraft whether the drafter had proposed it
     * @return whether to go on
     */
    boolean onToken(String piece, boolean fromDraft);
}
