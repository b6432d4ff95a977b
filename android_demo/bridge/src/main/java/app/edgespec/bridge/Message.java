package app.edgespec.bridge;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** A message of a conversation, and which parts of it were drafted. */
public final class Message {
    public static final String USER = "user";
    public static final String ASSISTANT = "assistant";

    public final String role;
    private final StringBuilder text = new StringBuilder();
    private final List<int[]> drafted = new ArrayList<>();

    public Message(String role, String text) {
        this.role = role;
        this.text.append(text);
    }

    public synchronized String text() {
        return text.toString();
    }

    /** Where drafted text begins and ends, in characters, in order and apart from each other. */
    public synchronized List<int[]> drafted() {
        return Collections.unmodifiableList(new ArrayList<>(drafted));
    }

    synchronized void append(String piece, boolean fromDraft) {
        int start = text.length();
        text.append(piece);
        if (!fromDraft) {
            return;
        }
        int last = drafted.size() - 1;
        if (last >= 0 && drafted.get(last)[1] == start) {
            start = drafted.remove(last)[0];
        }
        drafted.add(new int[] {start, text.length()});
    }

    boolean isOf(String role) {
        return this.role.equals(role);
    }
}
