package android.content;

/** Source: https://developer.android.com/reference/android/content/ClipboardManager */
public class ClipboardManager {
    public void setPrimaryClip(ClipData clip) {
        throw new UnsupportedOperationException();
    }
}
