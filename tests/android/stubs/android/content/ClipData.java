package android.content;

/** Source: https://developer.android.com/reference/android/content/ClipData */
public class ClipData {
    public static ClipData newPlainText(CharSequence label, CharSequence text) {
        throw new UnsupportedOperationException();
    }
}
