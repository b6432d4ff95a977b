package android.content;

/** Source: https://developer.android.com/reference/android/content/IntentFilter */
public class IntentFilter {
    public IntentFilter(String action) {
        throw new UnsupportedOperationException();
    }
    public final void addAction(String action) {
        throw new UnsupportedOperationException();
    }
}
